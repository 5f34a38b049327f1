package vertex

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
)

// Labels of a row in a batch, by which its output is told from that of a row with an equal request.
const (
	rowHighLabel = "row_hi"
	rowLowLabel  = "row_lo"
)

// BatchFormat is how requests and answers look in the files of a batch prediction job. It is safe for concurrent use.
type BatchFormat struct {
	budget   *blob.Budget
	maxImage int64 // maxImageBytes, but for tests
}

// maxBatchImages bounds the images of batches' outputs that are in memory at a time, in bytes, whatever the budget. They are there from their
// first byte until they are stored, a tenth of a second or two: this many keep a network of a gigabit busy, and leave the rest to online calls,
// which can't wait. A larger image passes alone.
const maxBatchImages = 32 << 20

// NewBatchFormat returns a BatchFormat whose images are held within a part of the budget. Without a budget it can make lines, and read none.
func NewBatchFormat(budget *blob.Budget) *BatchFormat {
	f := &BatchFormat{maxImage: maxImageBytes}
	if budget != nil {
		f.budget = budget.Part(maxBatchImages)
	}
	return f
}

// batchRequest is the request of a row: the body of an online call, spelled as the SDK spells it.
type batchRequest struct {
	Contents          []*genai.Content       `json:"contents"`
	SystemInstruction *genai.Content         `json:"systemInstruction,omitempty"`
	SafetySettings    []*genai.SafetySetting `json:"safetySettings,omitempty"`
	GenerationConfig  generationConfig       `json:"generationConfig"`
	Labels            map[string]string      `json:"labels,omitempty"`
}

type generationConfig struct {
	ResponseModalities []string           `json:"responseModalities"`
	CandidateCount     int32              `json:"candidateCount"`
	Seed               *int32             `json:"seed,omitempty"`
	ImageConfig        *genai.ImageConfig `json:"imageConfig,omitempty"`
}

// Line returns the line of a job's request, with a newline, and the hash by which its answer is known again. hi and lo become labels of the
// row; empty ones are left out. They are no part of the hash, nor are the labels for the bill.
//
// The request is that of an online call. That includes the size, for models that make several: 1K is what batches make by default, and to
// name it keeps a changed default from changing images. A job of a size that batches don't make is refused, since Vertex may
// make, and bill, an image of another size.
func (f *BatchFormat) Line(j *jobs.Job, hi, lo string) (line []byte, hash [32]byte, err error) {
	if !j.InBatch() {
		return nil, hash, fmt.Errorf("model %s makes no image of size %s in batch mode", j.Model.ID, j.Size)
	}
	request, err := encodeRequest(j, hi, lo)
	if err != nil {
		return nil, hash, fmt.Errorf("encode the request: %w", err)
	}
	if hash, err = requestHash(request); err != nil {
		return nil, hash, fmt.Errorf("hash the request: %w", err)
	}
	line = append([]byte(`{"request":`), request...)
	return append(line, "}\n"...), hash, nil
}

func encodeRequest(j *jobs.Job, hi, lo string) ([]byte, error) {
	s := settings(j)
	for label, value := range map[string]string{rowHighLabel: hi, rowLowLabel: lo} {
		if value != "" {
			s.Labels[label] = value
		}
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false) // six bytes for one, in a file whose size is bounded
	err := e.Encode(batchRequest{
		Contents: contents(j), SystemInstruction: s.SystemInstruction, SafetySettings: s.SafetySettings, Labels: s.Labels,
		GenerationConfig: generationConfig{s.ResponseModalities, s.CandidateCount, s.Seed, s.ImageConfig},
	})
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}
