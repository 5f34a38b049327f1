package vertextest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
)

// Turn is one content of a request: what the user said or the model answered,
// the latter in examples that show the model what is wanted.
type Turn struct {
	Role  string // user or model
	Parts []TurnPart
}

// TurnPart is a text or an image, as in [Call.References].
type TurnPart struct{ Text, Image string }

// HashContext returns the hex SHA-256 of a system instruction and the turns
// of a request: what [ContextHash] finds in a picture. Requests that differ in
// any turn, in the order of parts or in who said what have different hashes.
func HashContext(system string, turns []Turn) string {
	h := sha256.New()
	addText(h, system)
	for _, t := range turns {
		addText(h, t.Role)
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(t.Parts)))) // hashes never fail
		for _, p := range t.Parts {
			addText(h, p.Text)
			addText(h, p.Image)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// addText adds s and its length, so that no two lists of texts look alike.
func addText(h hash.Hash, s string) {
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
	_, _ = h.Write([]byte(s))
}

// setContents reads the turns and counts what is in them. The prompt is what
// the user said last: in one content with images between texts, what follows the
// last of these images.
func (c *Call) setContents(t tree) *apiError {
	contents := t.objects("contents")
	if len(contents) == 0 {
		return invalid("Unable to submit request because at least one contents field is required. Add at least one contents field and try again.")
	}
	textBytes, urls := 0, 0
	for _, content := range contents {
		turn, err := readTurn(content, len(contents) == 1)
		if err != nil {
			return err
		}
		var texts []string
		shown := false // an image since the last text
		for _, p := range turn.Parts {
			textBytes += len(p.Text)
			if p.Text != "" {
				if shown {
					texts = nil
				}
				texts = append(texts, p.Text)
			}
			shown = p.Image != ""
			if p.Image != "" {
				c.References = append(c.References, p.Image)
			}
			if strings.HasPrefix(p.Image, "http") {
				urls++
			}
		}
		if turn.Role == "user" {
			c.Prompt = strings.Join(texts, "\n")
		}
		c.Turns = append(c.Turns, turn)
	}
	refs := len(c.References)
	if refs > c.model.MaxReferences {
		return invalid("Unable to submit request because it has %d image parts but model %s supports up to %d images. Reduce the number of images and try again.",
			refs, c.Model, c.model.MaxReferences)
	}
	if urls > maxURLs {
		return invalid("Unable to submit request because it has %d URLs; up to %d are supported.", urls, maxURLs)
	}
	if err := c.setSystem(t); err != nil {
		return err
	}
	c.inTokens = tokens(textBytes+len(c.System)) + refs*c.model.ReferenceTokens
	return nil
}

// readTurn reads one content. Only the only one of a request may leave its role out.
func readTurn(content tree, alone bool) (Turn, *apiError) {
	turn := Turn{Role: content.text("role")}
	if turn.Role == "" && alone {
		turn.Role = "user"
	}
	if turn.Role != "user" && turn.Role != "model" {
		return Turn{}, invalid("Please use a valid role: user, model.")
	}
	parts := content.objects("parts")
	if len(parts) == 0 {
		return Turn{}, invalid("Unable to submit request because it must include at least one parts field, which describes the prompt input.")
	}
	for _, part := range parts {
		text, ref, err := readPart(part)
		if err != nil {
			return Turn{}, err
		}
		turn.Parts = append(turn.Parts, TurnPart{text, ref})
	}
	return turn, nil
}

// checkTurns holds a conversation to its order: user and model in turns, the
// user first and last.
func (c *Call) checkTurns(tree) *apiError {
	for i, t := range c.Turns {
		want := "user"
		if i%2 == 1 {
			want = "model"
		}
		switch {
		case i == 0 && t.Role != want:
			return invalid("Please ensure that multiturn requests start with a user role.")
		case t.Role != want:
			return invalid("Please ensure that multiturn requests alternate between user and model roles.")
		}
	}
	if c.Turns[len(c.Turns)-1].Role != "user" {
		return invalid("Please ensure that multiturn requests end with a user role or a function response.")
	}
	return nil
}

// setSystem reads the system instruction, which is text.
func (c *Call) setSystem(t tree) *apiError {
	if t["systemInstruction"] == nil {
		return nil
	}
	system, _ := t.get("systemInstruction").(map[string]any)
	parts := tree(system).objects("parts")
	if len(parts) == 0 {
		return invalid("Unable to submit request because system_instruction must include at least one parts field.")
	}
	var texts []string
	for _, part := range parts {
		if _, ok := part["text"].(string); !ok {
			return invalid("Unable to submit request because system_instruction supports only text parts.")
		}
		texts = append(texts, part.text("text"))
	}
	c.System = strings.Join(texts, "\n")
	return nil
}

// hasContext reports whether there is more to the request than one text.
func (c *Call) hasContext() bool {
	return len(c.Turns) > 1 || len(c.References) > 0 || c.System != ""
}

// textRunes counts the characters of all turns.
func (c *Call) textRunes() (n int) {
	for _, t := range c.Turns {
		for _, p := range t.Parts {
			n += len([]rune(p.Text))
		}
	}
	return n
}

func tokens(n int) int { return (n + bytesPerToken - 1) / bytesPerToken }

// readPart returns the text of a part or the name of its image.
func readPart(part tree) (text, ref string, e *apiError) {
	if v, ok := part["text"]; ok {
		s, _ := v.(string)
		return s, "", nil
	}
	if part["inlineData"] != nil {
		data, _ := part.get("inlineData", "data").([]byte)
		if err := checkImageType(part.text("inlineData", "mimeType")); err != nil {
			return "", "", err
		}
		if len(data) == 0 {
			return "", "", invalid("Unable to submit request because inlineData has an empty data field.")
		}
		if len(data) > maxInlineBytes {
			return "", "", invalid("Unable to submit request because an inline file has %d bytes; up to %d are supported.", len(data), maxInlineBytes)
		}
		sum := sha256.Sum256(data)
		return "", "inline:" + hex.EncodeToString(sum[:]), nil
	}
	if part["fileData"] != nil {
		uri := part.text("fileData", "fileUri")
		if part.text("fileData", "mimeType") == "" {
			return "", "", invalid("Unable to submit request because it must have a mimeType parameter for the fileData field. Add the mimeType parameter and try again.")
		}
		if err := checkImageType(part.text("fileData", "mimeType")); err != nil {
			return "", "", err
		}
		if _, _, ok := splitGS(uri); !ok && !strings.HasPrefix(uri, "https://") {
			return "", "", invalid("Invalid or unsupported file uri: %s", uri)
		}
		return "", uri, nil
	}
	for name := range part {
		if name != "thought" && name != "thoughtSignature" && name != "mediaResolution" {
			return "", "", nil // functionCall and its like play no role here
		}
	}
	return "", "", invalid("Unable to submit request because it must have a text, inlineData or fileData part.")
}
