package vertex

import (
	"fmt"
	"strings"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/internal/imagehead"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const (
	// maxNameBytes bounds a name that the service gives, such as a finish reason. The longest known ones take 40.
	maxNameBytes = 128
	// maxRatings bounds the safety ratings that are kept. There are nine categories; prompt and answer may each have all.
	maxRatings = 32
)

// ending is what a finish reason means for an answer.
type ending int

const (
	blocked ending = iota + 1 // by policy: no image, even if one is there
	stopped                   // by the service, for a reason that is not policy by name; an image that is there counts
	without                   // the model made no image and says so
	useless                   // broken off
	normal
)

// endings are the finish reasons that are known. One that is not is taken as stopped: new ones have been filters.
var endings = map[string]ending{
	"SAFETY":                   blocked,
	"RECITATION":               blocked,
	"BLOCKLIST":                blocked,
	"PROHIBITED_CONTENT":       blocked,
	"SPII":                     blocked,
	"MODEL_ARMOR":              blocked,
	"IMAGE_SAFETY":             blocked,
	"IMAGE_PROHIBITED_CONTENT": blocked,
	"IMAGE_RECITATION":         blocked,

	"OTHER":       stopped,
	"LANGUAGE":    stopped,
	"IMAGE_OTHER": stopped,

	"NO_IMAGE": without,

	"":                          useless,
	"FINISH_REASON_UNSPECIFIED": useless,
	"MAX_TOKENS":                useless,
	"MALFORMED_FUNCTION_CALL":   useless,
	"MALFORMED_RESPONSE":        useless,
	"UNEXPECTED_TOOL_CALL":      useless,
	"TOO_MANY_TOOL_CALLS":       useless,
	"CONTINUATION":              useless,

	"STOP": normal,
}

func endingOf(finish string) ending {
	if e, ok := endings[finish]; ok {
		return e
	}
	return stopped
}

// answer turns what the SDK read into an answer. It takes the call's image if it is the answer's, or says where the model wrote it.
//
// An image that comes with an odd finish reason is an image, since it is complete and paid for, unless the reason names a
// policy: what a filter blocked is never stored.
func (c *call) answer(resp *genai.GenerateContentResponse) *worker.Answer {
	a := &worker.Answer{
		ModelVersion: shorten(resp.ModelVersion), ResponseID: shorten(resp.ResponseID),
	}
	candidate := &genai.Candidate{}
	if len(resp.Candidates) > 0 && resp.Candidates[0] != nil {
		candidate = resp.Candidates[0]
	}
	a.FinishReason = shorten(string(candidate.FinishReason))
	a.Ratings = ratings(candidate.SafetyRatings)
	words, problem := c.pick(a, candidate)
	switch {
	case hasImage(a):
		a.Reason = jobs.ReasonImage
	case isPromptBlocked(resp):
		a.Reason = jobs.ReasonPromptFilter
		a.FinishReason = shorten(string(resp.PromptFeedback.BlockReason))
		a.Ratings = append(ratings(resp.PromptFeedback.SafetyRatings), a.Ratings...)
		words = resp.PromptFeedback.BlockReasonMessage
	case len(resp.Candidates) == 0:
		a.Reason, words = jobs.ReasonBadAnswer, "the answer has no candidate"
	default:
		a.Reason, words = refusal(candidate, words, problem)
	}
	if !hasImage(a) {
		a.Detail = detail(c.Job, words)
	}
	c.usage(a, resp.UsageMetadata)
	return a
}

func hasImage(a *worker.Answer) bool { return a.Image != nil || a.Written != "" }

func isPromptBlocked(resp *genai.GenerateContentResponse) bool {
	if resp.PromptFeedback == nil {
		return false
	}
	r := resp.PromptFeedback.BlockReason
	return r != "" && r != genai.BlockedReasonUnspecified
}

// pick puts the answer's image into a: that of the first part which is no thought. It returns the model's words, and why an
// image that came can't be used.
func (c *call) pick(a *worker.Answer, candidate *genai.Candidate) (words, problem string) {
	if candidate.Content == nil {
		return "", ""
	}
	var texts []string
	for _, part := range candidate.Content.Parts {
		switch {
		case part == nil || part.Thought:
		case part.Text != "":
			texts = append(texts, part.Text)
		case hasImage(a) || problem != "":
		case part.InlineData != nil:
			problem = c.use(a, part.InlineData)
		case part.FileData != nil:
			problem = c.find(a, part.FileData.FileURI)
		}
	}
	return strings.Join(texts, " "), problem
}

// use takes the captured image for the answer, if it is the one that the part stands for and may be used.
func (c *call) use(a *worker.Answer, inline *genai.Blob) (problem string) {
	switch {
	case endingOf(a.FinishReason) == blocked:
		return "" // the finish reason says it all
	case c.kept == 0 || string(inline.Data) != placeholder(c.kept):
		return "the image of the answer is not where it is expected"
	case c.tooLarge:
		return fmt.Sprintf("the image is larger than %d bytes", c.maxImage)
	}
	mime, width, height, ok := imagehead.Identify(c.blob.NewReader, inline.MIMEType)
	if !ok {
		return fmt.Sprintf("the %d bytes that came as %q are no image", c.blob.Len(), shorten(inline.MIMEType))
	}
	a.Image = &worker.Image{Blob: c.take(), MimeType: mime, Width: width, Height: height}
	return ""
}

// find takes the image that the model wrote itself for the answer, if it is where it was asked for. Elsewhere it may be another job's, or in
// another region.
func (c *call) find(a *worker.Answer, uri string) (problem string) {
	if endingOf(a.FinishReason) == blocked {
		return ""
	}
	if !isBelow(uri, c.Prefix) {
		c.strayed = true
		return fmt.Sprintf("the image was written to %q, which is not where it was asked for", shorten(uri))
	}
	a.Written = uri
	return ""
}

func shorten(name string) string {
	return strings.ToValidUTF8(name[:min(maxNameBytes, len(name))], "")
}

// refusal says why a candidate without a usable image has none, and in which words.
func refusal(candidate *genai.Candidate, words, problem string) (jobs.Reason, string) {
	finish := string(candidate.FinishReason)
	message := candidate.FinishMessage
	if message == "" {
		message = words
	}
	switch endingOf(finish) {
	case blocked:
		return jobs.ReasonOutputFilter, message
	case stopped:
		if problem == "" {
			return jobs.ReasonOutputFilter, message
		}
	case without:
		if problem == "" {
			return jobs.ReasonNoImage, message
		}
	case normal:
		if problem == "" && words != "" {
			return jobs.ReasonModelDeclined, words
		}
	}
	if problem == "" {
		problem = "the answer has no image"
	}
	if finish != "" {
		problem += " and ended with " + shorten(finish)
	}
	if candidate.FinishMessage != "" {
		problem += ": " + candidate.FinishMessage
	}
	return jobs.ReasonBadAnswer, problem
}

func ratings(from []*genai.SafetyRating) []*schemas.SafetyRating {
	var all []*schemas.SafetyRating
	for _, r := range from {
		if r != nil && len(all) < maxRatings {
			all = append(all, &schemas.SafetyRating{
				Category: shorten(string(r.Category)), Probability: shorten(string(r.Probability)),
				Severity: shorten(string(r.Severity)), Blocked: r.Blocked,
			})
		}
	}
	return all
}

// usage fills in what the answer cost. Without the service's counts it is the job's estimate, less the image where none
// can have been made.
func (c *call) usage(a *worker.Answer, m *genai.GenerateContentResponseUsageMetadata) {
	if m != nil {
		a.TrafficType = shorten(string(m.TrafficType))
	}
	if m == nil || m.TotalTokenCount == 0 && m.PromptTokenCount == 0 && m.CandidatesTokenCount == 0 {
		a.UsageMissing = true
		if c.Job.Model == nil {
			return // a batch's row, whose job is not known yet
		}
		a.Usage = c.Job.EstimatedUsage()
		switch a.Reason {
		case jobs.ReasonPromptFilter, jobs.ReasonModelDeclined, jobs.ReasonNoImage:
			a.Usage = a.Usage.WithoutImage()
		}
		return
	}
	u := jobs.Usage{
		Prompt:  int64(m.PromptTokenCount) + int64(m.ToolUsePromptTokenCount),
		Thought: int64(m.ThoughtsTokenCount),
		Total:   int64(m.TotalTokenCount),
	}
	for _, d := range m.CandidatesTokensDetails {
		if d != nil && d.Modality == genai.MediaModalityImage {
			u.Image += int64(d.TokenCount)
		}
	}
	rest := max(int64(m.CandidatesTokenCount)-u.Image, 0)
	if u.Image == 0 && (c.count > 0 || a.Written != "") {
		u.Image = rest // an image came and the counts don't say which tokens were its own
	} else {
		u.Text = rest
	}
	if u.Total == 0 {
		u.Total = u.Prompt + u.Text + u.Image + u.Thought
	}
	a.Usage = u
}
