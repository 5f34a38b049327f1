package vertex

import (
	"time"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// contents returns what the model is to see: the references, then the prompt that speaks of them.
func contents(j *jobs.Job) []*genai.Content {
	parts := make([]*genai.Part, 0, len(j.References)+1)
	for _, uri := range j.References {
		parts = append(parts, genai.NewPartFromURI(uri, jobs.ReferenceType(uri)))
	}
	parts = append(parts, genai.NewPartFromText(j.Prompt))
	return []*genai.Content{genai.NewContentFromParts(parts, genai.RoleUser)}
}

// config returns everything else of a request.
func (o *Online) config(j *jobs.Job, lane worker.Lane, timeout time.Duration) *genai.GenerateContentConfig {
	once := false
	cfg := &genai.GenerateContentConfig{
		ResponseModalities: []string{"TEXT", "IMAGE"},
		CandidateCount:     1,
		Seed:               j.Seed,
		ImageConfig:        &genai.ImageConfig{AspectRatio: j.AspectRatio},
		Labels:             labels(j),
		// The SDK continues an unfinished answer with a second paid request unless told not to.
		AutomaticContinuation: &once,
		HTTPOptions:           &genai.HTTPOptions{Headers: o.headers(lane, timeout)},
	}
	// Models that make one size only are asked for none: some of them refuse the field.
	if len(j.Model.Sizes) > 1 {
		cfg.ImageConfig.ImageSize = j.Size
	}
	if *cfg.ImageConfig == (genai.ImageConfig{}) {
		cfg.ImageConfig = nil
	}
	if j.System != "" {
		cfg.SystemInstruction = genai.NewContentFromText(j.System, genai.RoleUser)
	}
	for _, s := range j.Safety {
		cfg.SafetySettings = append(cfg.SafetySettings, &genai.SafetySetting{
			Category: genai.HarmCategory(s.Category), Threshold: genai.HarmBlockThreshold(s.Threshold),
		})
	}
	return cfg
}

// labels are those that cost is split by in the bill. A key with more than a thousand values may vanish from it, so no id
// of a job or a submission is ever a label.
func labels(j *jobs.Job) map[string]string {
	m := map[string]string{"campaign": j.Campaign}
	if j.Client != "" {
		m["client"] = j.Client
	}
	return m
}
