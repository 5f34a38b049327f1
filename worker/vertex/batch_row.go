package vertex

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// rowFields are the fields of a row that matter, as they are in the line; nil where they are missing.
type rowFields struct{ request, status, response json.RawMessage }

var (
	errNoRow = errors.New("the line is no JSON object")
	errCut   = errors.New("the line is cut")
)

// splitRow returns the fields of a row. With an error, it returns those that are complete.
func splitRow(line []byte) (f rowFields, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return f, errNoRow
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return f, safeSyntax(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return f, safeSyntax(err)
		}
		switch key {
		case "request":
			f.request = value
		case "status":
			f.status = value
		case "response":
			f.response = value
		}
	}
	if _, err := dec.Token(); err != nil {
		return f, safeSyntax(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return f, errors.New("the line goes on behind its JSON object")
	}
	return f, nil
}

// safeSyntax is an error of encoding/json. Those about syntax quote no more than a character.
func safeSyntax(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return fmt.Errorf("the line is not JSON: %w", err)
}

// echo is what a row repeats of its request.
type echo struct {
	Contents          []echoContent     `json:"contents"`
	SystemInstruction echoContent       `json:"systemInstruction"`
	Labels            map[string]string `json:"labels"`

	hash [32]byte
}

type echoContent struct {
	Parts []struct {
		Text     string `json:"text"`
		FileData struct {
			FileURI string `json:"fileUri"`
		} `json:"fileData"`
	} `json:"parts"`
}

func (c *echoContent) texts() (all []string) {
	for _, p := range c.Parts {
		if p.Text != "" {
			all = append(all, p.Text)
		}
	}
	return all
}

// job is what an echoed request tells of its job: its texts, which must not show in an error, and its images.
func (e *echo) job() *jobs.Job {
	j := &jobs.Job{System: strings.Join(e.SystemInstruction.texts(), " ")}
	var texts []string
	for _, c := range e.Contents {
		texts = append(texts, c.texts()...)
		for _, p := range c.Parts {
			if p.FileData.FileURI != "" {
				j.References = append(j.References, p.FileData.FileURI)
			}
		}
	}
	for i, text := range texts {
		if i == len(texts)-1 {
			j.Prompt = text
		} else {
			j.Turns = append(j.Turns, jobs.Turn{Prompt: text})
		}
	}
	return j
}

// readEcho reads an echoed request. What it can't read is missing in the result: it is somebody else's request.
func readEcho(request json.RawMessage) *echo {
	e := &echo{}
	if request == nil {
		return e
	}
	_ = json.Unmarshal(request, e)
	if hash, err := requestHash(request); err == nil {
		e.hash = hash
	}
	return e
}

// row returns what a row says: its answer, or why there is none, or what is wrong with it.
func (c *call) row(f rowFields) (*worker.Answer, *worker.CallError, error) {
	status := rowStatus(f.status)
	resp, err := readResponse(f.response)
	said := len(resp.Candidates) > 0 || resp.PromptFeedback != nil || resp.UsageMetadata != nil
	switch {
	case status != "" && !(said && c.kept > 0): // an image that is there is paid for, whatever the status
		return nil, c.failed(status), nil
	case err != nil:
		return nil, nil, safe(err)
	case !said:
		return nil, c.failed("the row has neither an answer nor a status"), nil
	}
	return c.answer(resp), nil, nil
}

// rowResponse is what is read of a response: what an answer is made of. The SDK reads more, fails over fields that nobody needs, and does not
// survive a null in place of a response.
type rowResponse struct {
	Candidates []*struct {
		Content       *genai.Content        `json:"content"`
		FinishMessage string                `json:"finishMessage"`
		FinishReason  genai.FinishReason    `json:"finishReason"`
		SafetyRatings []*genai.SafetyRating `json:"safetyRatings"`
	} `json:"candidates"`
	ModelVersion   string                                       `json:"modelVersion"`
	PromptFeedback *genai.GenerateContentResponsePromptFeedback `json:"promptFeedback"`
	ResponseID     string                                       `json:"responseId"`
	UsageMetadata  *genai.GenerateContentResponseUsageMetadata  `json:"usageMetadata"`
}

// readResponse reads a response as the SDK does. One that is missing is empty.
func readResponse(raw json.RawMessage) (*genai.GenerateContentResponse, error) {
	var r rowResponse
	if raw != nil {
		if err := json.Unmarshal(raw, &r); err != nil {
			return &genai.GenerateContentResponse{}, err
		}
	}
	resp := &genai.GenerateContentResponse{
		ModelVersion: r.ModelVersion, PromptFeedback: r.PromptFeedback, ResponseID: r.ResponseID, UsageMetadata: r.UsageMetadata,
	}
	for _, c := range r.Candidates {
		if c == nil {
			resp.Candidates = append(resp.Candidates, nil)
			continue
		}
		resp.Candidates = append(resp.Candidates, &genai.Candidate{
			Content: c.Content, FinishMessage: c.FinishMessage, FinishReason: c.FinishReason, SafetyRatings: c.SafetyRatings,
		})
	}
	return resp, nil
}
