package vertextest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/asm/base64"
)

// newBatchCall validates the request of a row.
func (s *Server) newBatchCall(ctx context.Context, j *batchJob, request []byte) (*Call, *apiError) {
	t, e := decodeTree(request, generateContentShape())
	if e != nil {
		return nil, e
	}
	c := &Call{
		Method: "batch", Project: j.info.Project, Location: j.info.Location, Model: j.info.Model, Tier: TierBatch,
		model: j.model, thoughts: t.get("generationConfig", "thinkingConfig", "includeThoughts") == true,
	}
	if e := s.readCall(ctx, c, t); e != nil {
		return nil, e
	}
	sizes := j.model.BatchSizes
	if len(sizes) == 0 {
		sizes = []string{size1K}
	}
	if !slices.Contains(sizes, c.Size) {
		if !s.cfg.Batch.SilentSize {
			return nil, invalid("Image size %q is not supported by model %s in batch prediction. Supported values: %s.", c.Size, c.Model, strings.Join(sizes, ", "))
		}
		c.Size = size1K
	}
	c.seal(t)
	c.Number = s.seen.countContent(c.content)
	return c, nil
}

// outRow is one line of an output: head and tail are the text around the response.
type outRow struct {
	head, tail []byte
	body       *body // nil: an empty response
	escape     bool
	damage     Damage
}

// newOutRow makes the line for a request as it came, or for no answer when a is nil.
func newOutRow(request []byte, f RowFate, status string, at time.Time, a *answer) (*outRow, error) {
	echo, err := echoed(request, f)
	if err != nil {
		return nil, err
	}
	quoted, err := compactJSON(status)
	if err != nil {
		return nil, err
	}
	row := &outRow{escape: f.Escape, damage: f.Damage}
	stamp := at.UTC().Format("2006-01-02T15:04:05.000-07:00")
	if f.ResponseFirst {
		row.head = []byte(`{"response":`)
		row.tail = fmt.Appendf(nil, `,"request":%s,"processed_time":"%s","status":%s}`, echo, stamp, quoted)
	} else {
		row.head = fmt.Appendf(nil, `{"status":%s,"processed_time":"%s","request":%s,"response":`, quoted, stamp, echo)
		row.tail = []byte("}")
	}
	if a == nil {
		row.head = append(row.head, "{}"...)
		return row, nil
	}
	resp, images := a.rest(true)
	text, err := compactJSON(resp)
	if err == nil {
		text, err = sortedJSON(text)
	}
	if err != nil {
		return nil, err
	}
	row.body, err = a.cutAtMarks(text, images)
	return row, err
}

// echoed is the request as an output repeats it: with its keys in order, and
// with what the fate adds and leaves out.
func echoed(request []byte, f RowFate) ([]byte, error) {
	if !f.NoLabels && !f.Nulls {
		return sortedJSON(request)
	}
	var t map[string]any
	if err := decodeNumbers(request, &t); err != nil {
		return nil, err
	}
	if f.NoLabels {
		delete(t, "labels")
	}
	if f.Nulls {
		addNulls(t)
	}
	return compactJSON(t)
}

// addNulls spells out what a request left out.
func addNulls(t map[string]any) {
	fill := func(obj map[string]any, names ...string) {
		for _, name := range names {
			if _, ok := obj[name]; !ok {
				obj[name] = nil
			}
		}
	}
	fill(t, "systemInstruction", "safetySettings", "tools", "toolConfig", "cachedContent")
	if config, ok := t["generationConfig"].(map[string]any); ok {
		fill(config, "temperature", "topK", "stopSequences")
	}
	for _, content := range tree(t).objects("contents") {
		for _, part := range content.objects("parts") {
			fill(part, "text", "fileData", "inlineData", "functionCall")
		}
	}
}

// sortedJSON returns text on one line with the keys of its objects in order.
func sortedJSON(text []byte) ([]byte, error) {
	var v any
	if err := decodeNumbers(text, &v); err != nil {
		return nil, err
	}
	return compactJSON(v)
}

// decodeNumbers keeps numbers as they are spelled.
func decodeNumbers(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return dec.Decode(v)
}

// compactJSON marshals v on one line and leaves <, > and & alone.
func compactJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("render row: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// write writes the line without its newline, whole or damaged.
func (o *outRow) write(w io.Writer) error {
	switch {
	case o.damage == DamageGarbage:
		_, err := io.WriteString(w, `{"status":"","processed_time":<html><title>Error</title></html>`)
		return err
	case o.damage == DamageBase64 && o.image() >= 0:
		return o.whole(&spoilWriter{w: w, at: o.image()})
	case o.damage != DamageNone:
		cut := &limitWriter{w: w, left: o.length() / 2}
		if err := o.whole(cut); err != nil && cut.left > 0 {
			return err
		}
		return nil
	}
	return o.whole(w)
}

func (o *outRow) whole(w io.Writer) error {
	if _, err := w.Write(o.head); err != nil {
		return err
	}
	if o.body != nil {
		for _, s := range o.body.segments {
			if _, err := w.Write(s.text); err != nil {
				return err
			}
			if s.image == nil {
				continue
			}
			if err := writeBase64(w, s.image, o.escape); err != nil {
				return err
			}
		}
		if _, err := w.Write(o.body.last); err != nil {
			return err
		}
	}
	_, err := w.Write(o.tail)
	return err
}

// length is about how many bytes the line has.
func (o *outRow) length() int {
	n := len(o.head) + len(o.tail)
	if o.body != nil {
		n += o.body.length()
	}
	return n
}

// image returns an offset inside the base64 of the first image, or -1.
func (o *outRow) image() int {
	if o.body == nil || o.body.segments[0].image == nil {
		return -1
	}
	return len(o.head) + len(o.body.segments[0].text) + base64.StdEncoding.EncodedLen(o.body.segments[0].image.size)/2
}

// spoilWriter puts a character that base64 has not at one offset.
type spoilWriter struct {
	w  io.Writer
	at int
}

func (s *spoilWriter) Write(p []byte) (int, error) {
	if s.at >= 0 && s.at < len(p) {
		p = append([]byte(nil), p...)
		p[s.at] = '!'
	}
	s.at -= len(p)
	return s.w.Write(p)
}
