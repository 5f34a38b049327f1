package jobs

import (
	"maps"
	"slices"
	"time"

	"github.com/assetmill/assetmill/schemas"
)

// Mode says how a job's call is made.
type Mode string

// Modes.
const (
	Online Mode = "online"
	Batch  Mode = "batch"
	// Auto leaves the mode to whoever submits the job, who settles it before it is published. No [Job] has it.
	Auto Mode = "auto"
)

// DefaultSubmission is the submission of jobs whose producer named none.
const DefaultSubmission = "direct"

// DefaultCampaign is the campaign of jobs whose producer named none.
const DefaultCampaign = "default"

// GlobalRegion is the data region of a job that may run anywhere.
const GlobalRegion = "global"

// RetentionKeep is the retention class of assets that no lifecycle rule touches; it is the default.
const RetentionKeep = "keep"

// Retentions are the retention classes, in the order of their length.
var retentions = []string{"30d", "90d", "365d", "archive", RetentionKeep}

// Retentions returns the retention classes.
func Retentions() []string { return slices.Clone(retentions) }

// Turn is an earlier turn that shows the model what is wanted: a prompt and the image that it should have led to.
type Turn struct {
	Prompt string // not empty, at most MaxTurnBytes bytes of UTF-8
	Image  string // gs:// URI
}

// Job is a valid job with every default filled in. It is made by [Catalogue.Parse] and must not be changed afterwards.
type Job struct {
	ID         string // [a-z0-9-]{1,63}
	Submission string
	Campaign   string
	Client     string // may be empty

	Prompt      string // not empty, at most Model.MaxPromptBytes bytes of UTF-8
	System      string // may be empty
	Model       *Model
	Size        string   // one of Model.Sizes
	AspectRatio string   // one of Model.AspectRatios; empty: the first reference's own
	Seed        *int32   // nil: the model chooses
	Variant     int      // from 1
	References  []string // gs:// URIs; with the images of Turns at most Model.MaxReferences
	Turns       []Turn   // earlier turns, in their order
	Safety      []SafetySetting

	Mode      Mode
	Deadline  time.Time // zero: none
	Region    string    // data region; GlobalRegion: anywhere
	Retention string

	Labels     map[string]string
	Source     map[string]string
	SourceFile string
	SourceRow  int64 // 0: not from a file
}

// Message returns the job as it is published. The result shares no memory with the job.
func (j *Job) Message() *schemas.Job {
	m := &schemas.Job{
		Id: j.ID, Submission: j.Submission, Campaign: j.Campaign, Client: j.Client,
		Prompt: j.Prompt, System: j.System, Model: j.Model.ID, Size: j.Size, AspectRatio: j.AspectRatio,
		Variant: int32(j.Variant), References: slices.Clone(j.References),
		Mode: string(j.Mode), Region: j.Region, Retention: j.Retention,
		Labels: maps.Clone(j.Labels), Source: maps.Clone(j.Source),
		SourceFile: j.SourceFile, SourceRow: j.SourceRow,
	}
	for _, t := range j.Turns {
		m.Turns = append(m.Turns, &schemas.Job_Turn{Prompt: t.Prompt, Image: t.Image})
	}
	if j.Seed != nil {
		seed := *j.Seed
		m.Seed = &seed
	}
	if !j.Deadline.IsZero() {
		m.Deadline = j.Deadline.UTC().Format(time.RFC3339)
	}
	if len(j.Safety) > 0 {
		m.Safety = make(map[string]string, len(j.Safety))
		for _, s := range j.Safety {
			m.Safety[s.Category] = s.Threshold
		}
	}
	return m
}

// TurnRows returns the job's turns as lineage stores them.
func (j *Job) TurnRows() []*schemas.Turn {
	var all []*schemas.Turn
	for _, t := range j.Turns {
		all = append(all, &schemas.Turn{Prompt: t.Prompt, Image: t.Image})
	}
	return all
}

// KeyValues returns a map as lineage stores it, sorted by key.
func KeyValues(m map[string]string) []*schemas.KeyValue {
	if len(m) == 0 {
		return nil
	}
	all := make([]*schemas.KeyValue, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, &schemas.KeyValue{Key: k, Value: m[k]})
	}
	return all
}
