package vertextest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// answer is what the model said, before it is put into a transport's words.
type answer struct {
	parts []answerPart
	// finishReason is empty when the prompt was blocked; blockReason otherwise.
	finishReason, finishMessage string
	blockReason, blockMessage   string
	ratings                     []safetyRating
	usage                       *usage
	model, responseID           string
	createTime                  time.Time
	billed                      int // tokens, also when the usage is not told
}

type answerPart struct {
	text      string
	image     *imageFile
	uri       string // of the image in Cloud Storage; empty: it is in the answer
	thought   bool
	signature string // base64
}

type safetyRating struct {
	Category    string `json:"category"`
	Probability string `json:"probability"`
	Blocked     bool   `json:"blocked,omitempty"`
}

type modalityTokens struct {
	Modality   string `json:"modality"`
	TokenCount int    `json:"tokenCount"`
}

// usage is usageMetadata as REST spells it.
type usage struct {
	PromptTokenCount        int              `json:"promptTokenCount"`
	CandidatesTokenCount    int              `json:"candidatesTokenCount,omitempty"`
	ThoughtsTokenCount      int              `json:"thoughtsTokenCount,omitempty"`
	TotalTokenCount         int              `json:"totalTokenCount"`
	TrafficType             string           `json:"trafficType"`
	PromptTokensDetails     []modalityTokens `json:"promptTokensDetails,omitempty"`
	CandidatesTokensDetails []modalityTokens `json:"candidatesTokensDetails,omitempty"`
}

// image returns the asset: the first image that is not a thought.
func (a *answer) image() *imageFile {
	for _, p := range a.parts {
		if p.image != nil && !p.thought {
			return p.image
		}
	}
	return nil
}

// uri returns where the asset is in Cloud Storage, if it is there.
func (a *answer) uri() string {
	for _, p := range a.parts {
		if p.image != nil && !p.thought {
			return p.uri
		}
	}
	return ""
}

// answer makes what the model says to c under fate f.
func (s *Server) answer(ctx context.Context, c *Call, f Fate) (*answer, error) {
	d := newDice(s.cfg.Seed, c.content[:], c.Number)
	a := &answer{model: c.Model, createTime: s.now().UTC(), responseID: responseID(d)}
	switch {
	case f.Refusal == RefusalPrompt:
		a.blockReason = f.Reason
		a.blockMessage = "The prompt could not be submitted. This prompt contains sensitive words that violate our policies."
	case f.Refusal == RefusalOutput:
		a.finishReason = f.Reason
		a.finishMessage = finishMessage(f.Reason)
		a.ratings = ratings(f.Reason)
	case f.Refusal == RefusalText || c.textOnly:
		a.finishReason = "STOP"
		a.parts = []answerPart{{text: "I'm sorry, I can't create that image. Could you describe it in another way?"}}
	default:
		a.finishReason = "STOP"
		if err := s.addImages(ctx, a, c, f, d); err != nil {
			return nil, err
		}
	}
	u := a.countTokens(c, d)
	a.billed = u.TotalTokenCount
	if !f.NoUsage {
		a.usage = u
	}
	return a, nil
}

func (s *Server) addImages(ctx context.Context, a *answer, c *Call, f Fate, d dice) error {
	if f.TextPart {
		a.parts = append(a.parts, answerPart{text: "Here is the image you asked for: \"" + short(withoutDirectives(c.Prompt), 80) + "\"\n"})
	}
	if c.thoughts {
		a.parts = append(a.parts, answerPart{text: "**Composing the scene**\n\nI weigh the subject, the light and the frame.\n", thought: true})
	}
	n := 1
	if f.TwoImages {
		n = 2
	}
	if f.ThoughtImage {
		img, err := s.picture(ctx, c, f, 0, true)
		if err != nil {
			return err
		}
		a.parts = append(a.parts, answerPart{image: img, thought: true})
	}
	for i := range n {
		img, err := s.picture(ctx, c, f, i, false)
		if err != nil {
			return err
		}
		part := answerPart{image: img}
		if c.model != nil && c.model.Thinks {
			part.signature = signature(d)
		}
		a.parts = append(a.parts, part)
	}
	return nil
}

// picture draws one image of an answer. Few are drawn at once: each needs a
// buffer of its pixel size, and more than the processors would only wait.
func (s *Server) picture(ctx context.Context, c *Call, f Fate, index int, thought bool) (*imageFile, error) {
	select {
	case s.drawing <- struct{}{}:
		defer func() { <-s.drawing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	variant := c.variant()
	if index > 0 {
		variant += fmt.Sprintf("image=%d;", index)
	}
	if s.cfg.VaryRepeats && c.Number > 0 {
		variant += fmt.Sprintf("repeat=%d;", c.Number)
	}
	file, err := s.painter.draw(Picture{
		Prompt: c.Prompt, Context: c.context, Model: c.Model, Size: c.Size, AspectRatio: c.AspectRatio, Seed: c.Seed,
		Variant: variant, MIMEType: c.MIMEType, Quality: c.Quality, Plain: s.cfg.PlainPictures, Thought: thought,
	})
	if err != nil {
		return nil, err
	}
	size := f.Bytes
	if thought {
		size = 0
	}
	img := s.pads.file(c.MIMEType, file, size)
	return &img, nil
}

// countTokens returns the usage of an answer. Thinking models spend some 100
// to 400 tokens on thought; the number is fixed by the request.
func (a *answer) countTokens(c *Call, d dice) *usage {
	u := &usage{PromptTokenCount: c.inTokens, TrafficType: trafficType(c.Tier)}
	text, images := 0, 0
	for _, p := range a.parts {
		switch {
		case p.thought:
		case p.image != nil:
			images++
		default:
			text += tokens(len(p.text))
		}
	}
	if c.model != nil {
		refs := len(c.References) * c.model.ReferenceTokens
		u.PromptTokensDetails = append(u.PromptTokensDetails, modalityTokens{"TEXT", c.inTokens - refs})
		if refs > 0 {
			u.PromptTokensDetails = append(u.PromptTokensDetails, modalityTokens{"IMAGE", refs})
		}
		images *= c.model.ImageTokens[c.Size]
		if c.model.Thinks && a.blockReason == "" {
			u.ThoughtsTokenCount = 100 + int(d.unit("thoughts")*300)
		}
	}
	u.CandidatesTokenCount = text + images
	if images > 0 {
		u.CandidatesTokensDetails = append(u.CandidatesTokensDetails, modalityTokens{"IMAGE", images})
	}
	if text > 0 {
		u.CandidatesTokensDetails = append(u.CandidatesTokensDetails, modalityTokens{"TEXT", text})
	}
	u.TotalTokenCount = u.PromptTokenCount + u.CandidatesTokenCount + u.ThoughtsTokenCount
	return u
}

func trafficType(tier string) string {
	switch tier {
	case TierFlex:
		return "ON_DEMAND_FLEX"
	case TierProvisioned:
		return "PROVISIONED_THROUGHPUT"
	default:
		return "ON_DEMAND"
	}
}

func responseID(d dice) string {
	sum := sha256.Sum256(append(d.key[:], "response"...))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// signature stands for the opaque thought signature on a final part.
func signature(d dice) string {
	var b []byte
	for i := range uint64(8) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(d.key[:], "signature"...), i))
		b = append(b, sum[:]...)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// finishMessage carries a support code, as the service's messages do.
func finishMessage(reason string) string {
	codes := map[string]string{
		"IMAGE_SAFETY": "62263041", "IMAGE_PROHIBITED_CONTENT": "89371032", "IMAGE_OTHER": "42876398",
		"SAFETY": "90789179", "PROHIBITED_CONTENT": "49114662",
	}
	if code, ok := codes[reason]; ok {
		return "Unable to show the generated image. The image violated the usage guidelines. Support codes: " + code
	}
	return ""
}

func ratings(reason string) []safetyRating {
	if strings.Contains(reason, "SAFETY") {
		return []safetyRating{{Category: "HARM_CATEGORY_DANGEROUS_CONTENT", Probability: "HIGH", Blocked: true}}
	}
	return nil
}

// short cuts s to n runes.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

func hexSum(b [sha256.Size]byte) string { return hex.EncodeToString(b[:]) }
