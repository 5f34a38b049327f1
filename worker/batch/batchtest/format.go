package batchtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Format implements batch.Format.
type Format struct {
	// Budget bounds the images of rows that are read.
	Budget *blob.Budget
}

// Request is what a line asks for.
type Request struct {
	Prompt string            `json:"prompt"`
	Seed   *int32            `json:"seed,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// line is a row of an output.
type line struct {
	Request  Request   `json:"request"`
	Status   string    `json:"status"`
	Response *response `json:"response"`
}

type response struct {
	Image  string      `json:"image,omitempty"`
	Reason jobs.Reason `json:"reason"`
	Usage  *jobs.Usage `json:"usage,omitempty"`
}

func (r Request) hash() [32]byte {
	r.Labels = nil
	data, err := json.Marshal(r)
	if err != nil || r.Prompt == "" {
		return [32]byte{}
	}
	return sha256.Sum256(data)
}

// Line implements batch.Format.
func (f *Format) Line(j *jobs.Job, hi, lo string) ([]byte, [32]byte, error) {
	if strings.Contains(j.Prompt, "[[unspeakable]]") {
		return nil, [32]byte{}, errors.New("the prompt has no words")
	}
	r := Request{Prompt: j.Prompt, Seed: j.Seed}
	hash := r.hash()
	r.Labels = map[string]string{"row_hi": hi, "row_lo": lo}
	data, err := json.Marshal(map[string]Request{"request": r})
	return append(data, '\n'), hash, err
}

// Rows implements batch.Format.
func (f *Format) Rows(ctx context.Context, r io.Reader, at, length int64, each func(worker.OutputRow) error) error {
	in := bufio.NewReader(r)
	for place, first := at, true; first || place <= at+length; first = false {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil && len(text) == 0 {
			return nil
		}
		start := place
		place += int64(len(text))
		text = bytes.TrimSuffix(text, []byte("\n"))
		if first && at > 0 || len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		row, err := f.row(ctx, text)
		if err != nil {
			return err
		}
		row.Offset, row.Length = start, int64(len(text))
		if err := each(row); err != nil {
			return err
		}
	}
	return nil
}

// row reads a line. Of a damaged one it reads the request, if that is whole.
func (f *Format) row(ctx context.Context, text []byte) (row worker.OutputRow, _ error) {
	l := &line{}
	if err := json.Unmarshal(text, l); err != nil {
		row.Damaged = err
		l = &line{}
		if start, _, whole := bytes.Cut(text, []byte(`,"status"`)); whole {
			_ = json.Unmarshal(append(bytes.Clone(start), '}'), l) // what can't be read is nobody's
		}
	}
	row.Hash, row.Hi, row.Lo = l.Request.hash(), l.Request.Labels["row_hi"], l.Request.Labels["row_lo"]
	switch {
	case row.Damaged != nil:
	case l.Status != "":
		row.Err = callError(l.Status)
	case l.Response == nil:
		row.Err = &worker.CallError{Kind: worker.Failing, Detail: "the row has neither an answer nor a status"}
	case strings.ContainsRune(l.Response.Image, '\x00'):
		row.Damaged = errors.New("the image is no base64")
	default:
		answer, err := f.answer(ctx, l.Response)
		row.Answer = answer
		return row, err
	}
	return row, nil
}

func (f *Format) answer(ctx context.Context, r *response) (*worker.Answer, error) {
	a := &worker.Answer{Reason: r.Reason, FinishReason: "STOP", UsageMissing: r.Usage == nil}
	if r.Usage != nil {
		a.Usage = *r.Usage
	}
	if r.Image == "" {
		return a, nil
	}
	size := int64(len(r.Image))
	b, err := f.Budget.Reserve(ctx, size, size)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(b, r.Image); err != nil {
		b.Release()
		return nil, err
	}
	a.Image = &worker.Image{Blob: b, MimeType: "image/png", Width: 1024, Height: 1024}
	return a, nil
}

// callError is the error of a row that failed: its status is a kind's name, and words.
func callError(status string) *worker.CallError {
	name, words, _ := strings.Cut(status, ": ")
	e := &worker.CallError{Kind: worker.Failing, Detail: words}
	for _, k := range []worker.Kind{worker.Throttled, worker.Failing, worker.Rejected} {
		if k.String() == name {
			e.Kind = k
		}
	}
	if e.Kind == worker.Rejected {
		e.Reason, e.Status = jobs.ReasonRejected, 400
	}
	return e
}

// readInput returns the requests of an input file.
func readInput(data []byte) ([]Request, error) {
	var all []Request
	for n, text := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		var l map[string]Request
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		all = append(all, l["request"])
	}
	return all, nil
}
