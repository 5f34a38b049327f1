package jobs

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/assetmill/assetmill/schemas"
)

// Bounds of a job. A Pub/Sub message holds at most 10 MB and an object's metadata 8 KiB; these keep a job far below the
// first, and what lineage stores of it readable.
const (
	// MaxPromptBytes is for the prompts of 8,192 tokens that models are asked for, in any script. A token is about 4 bytes of
	// English, but a token of two or three characters is 6 to 9 bytes of Hindi, Thai or Tamil, and a German or Russian word of
	// 12 bytes may be one. Whether a prompt fits is for the model to say, which refuses at no cost; this bound only
	// keeps out what can't have been meant as a prompt.
	MaxPromptBytes = 8_192 * 12
	// MaxTextBytes bounds prompt, system instruction and the prompts of turns together. In JSON a character may take six times its
	// size, and the ledger reads back records of 1 MiB.
	MaxTextBytes       = MaxPromptBytes + MaxSystemBytes
	MaxNameBytes       = 63     // ids, campaigns, clients, labels: the limit of Google Cloud labels
	MaxVariants        = 100    // images of one prompt; more is a campaign, not a variant
	MaxSystemBytes     = 32_768 // 8,192 tokens of English
	MaxTurns           = 14     // each has an image, and no model takes more
	MaxTurnBytes       = 32_768 // prompt of one turn: an example is not longer than what it exemplifies
	MaxReferenceBytes  = 1_024  // longest object name in Cloud Storage
	MaxLabels          = 32     // half of what a request to Vertex may carry
	MaxSourceKeys      = 64     // unknown columns of a CSV file
	MaxSourceKeyBytes  = 128
	MaxSourceBytes     = 16_384 // all keys and values together
	MaxSourceFileBytes = 255
)

// Parse turns a published message into a valid job with every default filled in. It reports everything that is wrong, not
// just the first; the error is nil or of type [Problems]. An empty id is derived from the content, as occurrence 0.
//
// The message is not changed and not kept.
func (c *Catalogue) Parse(m *schemas.Job) (*Job, error) {
	var ps Problems
	j := &Job{
		ID:         m.GetId(),
		Submission: defaultTo(m.GetSubmission(), DefaultSubmission),
		Campaign:   defaultTo(m.GetCampaign(), DefaultCampaign),
		Client:     m.GetClient(),
		Prompt:     m.GetPrompt(),
		System:     m.GetSystem(),
		Mode:       Mode(defaultTo(m.GetMode(), string(Online))),
		Region:     defaultTo(m.GetRegion(), GlobalRegion),
		Retention:  defaultTo(m.GetRetention(), RetentionKeep),
		Variant:    int(max(m.GetVariant(), 1)),
		References: slices.Clone(m.GetReferences()),
		Labels:     maps.Clone(m.GetLabels()),
		Source:     maps.Clone(m.GetSource()),
		SourceFile: m.GetSourceFile(),
		SourceRow:  m.GetSourceRow(),
	}
	for _, t := range m.GetTurns() {
		j.Turns = append(j.Turns, Turn{t.GetPrompt(), t.GetImage()})
	}
	j.checkNames(&ps)
	j.checkPlace(&ps)
	if c.resolveModel(j, m, &ps) {
		j.checkText(&ps)
		j.resolveImage(m, &ps)
		j.checkImages(&ps)
	}
	j.Safety = safetySettings(m.GetSafety(), &ps)
	j.checkLabels(&ps)
	j.checkSource(&ps)
	if len(ps) > 0 {
		return nil, ps
	}
	if j.ID == "" {
		j.ID = j.DeriveID(0)
	}
	return j, nil
}

func defaultTo(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

func (j *Job) checkNames(ps *Problems) {
	if j.ID != "" && !ValidID(j.ID) {
		ps.add("id", j.ID, IDRule)
	}
	if !ValidID(j.Submission) {
		ps.add("submission", j.Submission, IDRule)
	}
	for _, f := range []struct{ field, value string }{{"campaign", j.Campaign}, {"client", j.Client}} {
		if f.value != "" && !validName(f.value) {
			ps.add(f.field, f.value, nameRule+suggestion(f.value))
		}
	}
}

// checkPlace checks how, when and where the job may run and how long its asset is kept.
func (j *Job) checkPlace(ps *Problems) {
	if j.Mode != Online && j.Mode != Batch {
		ps.add("mode", string(j.Mode), "is unknown; allowed: online, batch")
	}
	if !slices.Contains(retentions, j.Retention) {
		ps.add("retention", j.Retention, "is unknown; allowed: "+strings.Join(retentions, ", "))
	}
}

// resolveModel finds the model and checks that it serves the job's region. It reports whether there is a model to check
// the rest against.
func (c *Catalogue) resolveModel(j *Job, m *schemas.Job, ps *Problems) bool {
	j.Model = c.defaultModel
	if id := m.GetModel(); id != "" {
		j.Model = c.models[id]
	}
	if j.Model == nil {
		ps.add("model", m.GetModel(), "is unknown; allowed: "+strings.Join(c.ModelIDs(), ", "))
		return false
	}
	if slices.Contains(j.Model.Locations, j.Region) {
		return true
	}
	if served := c.servedIn(j.Region); len(served) > 0 {
		ps.add("region", j.Region, fmt.Sprintf("is not served by %s; models served there: %s", j.Model.ID, strings.Join(served, ", ")))
	} else {
		ps.add("region", j.Region, fmt.Sprintf("is no region that a model is served in; %s allows: %s", j.Model.ID, strings.Join(j.Model.Locations, ", ")))
	}
	return true
}

func (c *Catalogue) servedIn(region string) (ids []string) {
	for _, id := range c.ModelIDs() {
		if slices.Contains(c.models[id].Locations, region) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (j *Job) checkText(ps *Problems) {
	if strings.TrimSpace(j.Prompt) == "" {
		ps.add("prompt", "", "is missing: say what the image should show")
	}
	checkBytes(ps, "prompt", j.Prompt, j.Model.MaxPromptBytes)
	checkBytes(ps, "system", j.System, MaxSystemBytes)
	for i, t := range j.Turns {
		if strings.TrimSpace(t.Prompt) == "" {
			ps.add(turnField(i, "prompt"), "", "is missing: a turn is a prompt and its image, and turns are numbered without gaps")
		}
		checkBytes(ps, turnField(i, "prompt"), t.Prompt, MaxTurnBytes)
	}
	if n := j.textBytes(); n > MaxTextBytes && len(*ps) == 0 {
		ps.add("prompt", "", fmt.Sprintf("is %d bytes long together with system and turns; at most %d are allowed", n, MaxTextBytes))
	}
}

// turnField names a field of a turn, from index 0, as errors do: `turns.1.prompt`.
func turnField(index int, field string) string { return fmt.Sprintf("turns.%d.%s", index+1, field) }

// textBytes is the length of all that the model reads.
func (j *Job) textBytes() int {
	n := len(j.Prompt) + len(j.System)
	for _, t := range j.Turns {
		n += len(t.Prompt)
	}
	return n
}

// images is the number of images that the model looks at.
func (j *Job) images() int { return len(j.References) + len(j.Turns) }

func checkBytes(ps *Problems, field, value string, limit int) {
	switch {
	case len(value) > limit:
		ps.add(field, value, fmt.Sprintf("is %d bytes long; at most %d are allowed", len(value), limit))
	case !utf8.ValidString(value):
		ps.add(field, strings.ToValidUTF8(value, "�"), "is not UTF-8")
	case strings.ContainsRune(value, 0):
		ps.add(field, strings.ReplaceAll(value, "\x00", "␀"), "holds a NUL character; remove it")
	}
}

// resolveImage fills in and checks what decides the picture's shape and sampling.
func (j *Job) resolveImage(m *schemas.Job, ps *Problems) {
	j.Size = strings.ToUpper(defaultTo(m.GetSize(), "1K"))
	if _, ok := j.Model.Sizes[j.Size]; !ok {
		ps.add("size", m.GetSize(), fmt.Sprintf("is not offered by %s; allowed: %s", j.Model.ID, strings.Join(j.Model.SizeNames(), ", ")))
	} else if j.Mode == Batch && j.Model.HasTier(TierBatch) && !j.InBatch() {
		ps.add("size", j.Size, fmt.Sprintf("is not made in batch mode, which makes %s only; use mode online", strings.Join(j.Model.BatchSizes, ", ")))
	}
	if j.Mode == Batch && !j.Model.HasTier(TierBatch) {
		ps.add("mode", string(j.Mode), fmt.Sprintf("is not offered by %s; use mode online", j.Model.ID))
	}
	j.AspectRatio = m.GetAspectRatio()
	if j.AspectRatio == "" && len(j.References) == 0 {
		j.AspectRatio = "1:1"
	}
	if j.AspectRatio != "" && !slices.Contains(j.Model.AspectRatios, j.AspectRatio) {
		ps.add("aspect_ratio", j.AspectRatio, fmt.Sprintf("is not offered by %s; allowed: %s", j.Model.ID, strings.Join(j.Model.AspectRatios, ", ")))
	}
	if m.Seed != nil {
		seed := m.GetSeed()
		j.Seed = &seed
		if seed < 0 {
			ps.add("seed", fmt.Sprint(seed), "is negative; allowed: 0 to 2147483647")
		}
	}
	if v := m.GetVariant(); v < 0 || v > MaxVariants {
		ps.add("variant", fmt.Sprint(v), fmt.Sprintf("is out of range; allowed: 1 to %d", MaxVariants))
	}
	if m.GetDeadline() == "" {
		return
	}
	var err error
	if j.Deadline, err = time.Parse(time.RFC3339, m.GetDeadline()); err != nil {
		ps.add("deadline", m.GetDeadline(), "is not a time with a zone, such as 2026-12-01T09:00:00Z")
	}
}

// referenceTypes are the image types that Vertex reads, by the ending of the object's name: a request must name the type.
var referenceTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".heic": "image/heic", ".heif": "image/heif",
}

// ReferenceType returns the media type of a reference image by its ending, or "" for an ending that Vertex does not read.
func ReferenceType(uri string) string { return referenceTypes[strings.ToLower(path.Ext(uri))] }

func (j *Job) checkImages(ps *Problems) {
	field, are := "references", "are"
	switch {
	case len(j.References) == 0:
		field = "turns"
	case len(j.Turns) > 0:
		are = "and the images of turns are"
	}
	if n := len(j.Turns); n > MaxTurns {
		ps.add("turns", "", fmt.Sprintf("are %d; at most %d are allowed", n, MaxTurns))
	} else if n := j.images(); n > j.Model.MaxReferences {
		ps.add(field, "", fmt.Sprintf("%s %d; %s takes at most %d", are, n, j.Model.ID, j.Model.MaxReferences))
	}
	for _, uri := range j.References {
		checkImage(ps, "references", uri)
	}
	for i, t := range j.Turns {
		if t.Image == "" {
			ps.add(turnField(i, "image"), "", "is missing: a turn is a prompt and its image, and turns are numbered without gaps")
			continue
		}
		checkImage(ps, turnField(i, "image"), t.Image)
	}
}

func checkImage(ps *Problems, field, uri string) {
	if _, _, err := SplitURI(uri); err != nil {
		ps.add(field, uri, err.Error())
	} else if ReferenceType(uri) == "" {
		ps.add(field, uri, "ends in no image type that the model reads; allowed: .png, .jpg, .jpeg, .webp, .heic, .heif")
	}
}

// SplitURI parts a gs:// URI into bucket and object.
func SplitURI(uri string) (bucket, object string, err error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	bucket, object, found := strings.Cut(rest, "/")
	switch {
	case !ok || !found || object == "" || len(bucket) < 3:
		return "", "", fmt.Errorf("is not a Cloud Storage object; write gs://bucket/object")
	case len(object) > MaxReferenceBytes:
		return "", "", fmt.Errorf("is longer than the %d bytes of an object's name", MaxReferenceBytes)
	case !utf8.ValidString(object) || strings.ContainsAny(object, "\x00\r\n") || object == "." || object == "..":
		return "", "", fmt.Errorf("is no name that an object in Cloud Storage can have")
	}
	return bucket, object, nil
}

func (j *Job) checkLabels(ps *Problems) {
	if n := len(j.Labels); n > MaxLabels {
		ps.add("labels", "", fmt.Sprintf("are %d; at most %d are allowed", n, MaxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(j.Labels)) {
		if !validName(key) || key[0] < 'a' || key[0] > 'z' {
			ps.add("labels", key, labelRule+suggestion(key))
		}
		if value := j.Labels[key]; value != "" && !validName(value) {
			ps.add("label."+key, value, nameRule+suggestion(value))
		}
	}
}

func (j *Job) checkSource(ps *Problems) {
	if n := len(j.Source); n > MaxSourceKeys {
		ps.add("source", "", fmt.Sprintf("has %d keys; at most %d are allowed", n, MaxSourceKeys))
	}
	total := 0
	for _, key := range slices.Sorted(maps.Keys(j.Source)) {
		value := j.Source[key]
		total += len(key) + len(value)
		checkBytes(ps, "source", key, MaxSourceKeyBytes)
		checkBytes(ps, "source."+Shorten(key), value, MaxSourceBytes)
	}
	if total > MaxSourceBytes {
		ps.add("source", "", fmt.Sprintf("is %d bytes in all; at most %d are allowed", total, MaxSourceBytes))
	}
	checkBytes(ps, "source_file", j.SourceFile, MaxSourceFileBytes)
	if j.SourceRow < 0 {
		ps.add("source_row", fmt.Sprint(j.SourceRow), "is negative")
	}
}
