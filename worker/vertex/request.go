package vertex

import (
	"time"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// contents returns what the model is to see: the turns that show what is wanted, the references, then the prompt that speaks of them.
//
// It is all said by the user, in one content. Turns are not made to look like answers of the model: models with thoughts sign their images, and
// some refuse a conversation whose images are not signed ("Image part is missing a thought_signature",
// https://github.com/langchain-ai/langchain-google/issues/1431).
func contents(j *jobs.Job) []*genai.Content {
	parts := make([]*genai.Part, 0, 2*len(j.Turns)+len(j.References)+1)
	for _, t := range j.Turns {
		parts = append(parts, genai.NewPartFromText(t.Prompt), imagePart(t.Image))
	}
	for _, uri := range j.References {
		parts = append(parts, imagePart(uri))
	}
	parts = append(parts, genai.NewPartFromText(j.Prompt))
	return []*genai.Content{genai.NewContentFromParts(parts, genai.RoleUser)}
}

// imagePart stands for an image that Vertex reads from Cloud Storage itself.
func imagePart(uri string) *genai.Part { return genai.NewPartFromURI(uri, jobs.ReferenceType(uri)) }

// hasImages reports whether a request for the job has Vertex read images.
func hasImages(j *jobs.Job) bool { return len(j.References)+len(j.Turns) > 0 }

// config returns everything else of an online request.
func (o *Online) config(call worker.Call, timeout time.Duration) *genai.GenerateContentConfig {
	once := false
	cfg := settings(call.Job)
	// The SDK continues an unfinished answer with a second paid request unless told not to.
	cfg.AutomaticContinuation = &once
	cfg.HTTPOptions = &genai.HTTPOptions{Headers: o.headers(call.Lane, timeout)}
	if call.Prefix != "" {
		cfg.GenerationOutputConfig = &genai.GenerationOutputConfig{OutputURIPrefix: call.Prefix}
	}
	return cfg
}

// settings returns what a job asks for beside its contents, online and in a batch.
func settings(j *jobs.Job) *genai.GenerateContentConfig {
	cfg := &genai.GenerateContentConfig{
		ResponseModalities: []string{"TEXT", "IMAGE"},
		CandidateCount:     1,
		Seed:               j.Seed,
		ImageConfig:        &genai.ImageConfig{AspectRatio: j.AspectRatio},
		Labels:             labels(j),
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
