package vertextest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/asm/base64"
)

// A body is JSON with holes where images go: the small remainder is marshalled
// as a whole, the images are encoded into the connection piece by piece.
type body struct {
	segments []segment
	last     []byte // what is sent after the call is on record
}

type segment struct {
	text  []byte
	image *imageFile // after text; nil in the last segment
}

type restBlob struct {
	MIMEType string `json:"mimeType"`
	Data     string `json:"data"`
}

// restBlobSwapped has its keys in the other order, which JSON allows.
type restBlobSwapped struct {
	Data     string `json:"data"`
	MIMEType string `json:"mimeType"`
}

type restFile struct {
	MIMEType string `json:"mimeType"`
	FileURI  string `json:"fileUri"`
}

type restPart struct {
	Thought          bool      `json:"thought,omitempty"`
	Text             string    `json:"text,omitempty"`
	InlineData       any       `json:"inlineData,omitempty"`
	FileData         *restFile `json:"fileData,omitempty"`
	ThoughtSignature string    `json:"thoughtSignature,omitempty"`
}

type restContent struct {
	Role  string     `json:"role"`
	Parts []restPart `json:"parts"`
}

type restCandidate struct {
	Content       *restContent   `json:"content,omitempty"`
	FinishReason  string         `json:"finishReason,omitempty"`
	FinishMessage string         `json:"finishMessage,omitempty"`
	SafetyRatings []safetyRating `json:"safetyRatings,omitempty"`
}

type restFeedback struct {
	BlockReason        string `json:"blockReason"`
	BlockReasonMessage string `json:"blockReasonMessage,omitempty"`
}

type restResponse struct {
	Candidates     []restCandidate `json:"candidates,omitempty"`
	PromptFeedback *restFeedback   `json:"promptFeedback,omitempty"`
	UsageMetadata  *usage          `json:"usageMetadata,omitempty"`
	ModelVersion   string          `json:"modelVersion"`
	CreateTime     string          `json:"createTime"`
	ResponseID     string          `json:"responseId"`
}

// renderJSON puts a into the words of a REST answer.
func renderJSON(a *answer, escape bool) (*body, error) {
	resp, images := a.rest(escape)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(resp); err != nil {
		return nil, fmt.Errorf("render answer: %w", err)
	}
	text := buf.Bytes()
	if escape {
		// Raw newlines stand only between tokens, so any white space may replace them.
		text = bytes.ReplaceAll(text, []byte("\n"), []byte(" \r\n\t"))
	}
	return a.cutAtMarks(text, images)
}

// mark stands for image i until the text is cut there. No text holds one: the
// response id is random.
func (a *answer) mark(i int) string { return "<" + a.responseID + ":" + strconv.Itoa(i) + ">" }

// rest returns a as REST spells it, with a mark for each of the images.
func (a *answer) rest(swapped bool) (resp restResponse, images []*imageFile) {
	resp = restResponse{
		UsageMetadata: a.usage, ModelVersion: a.model, ResponseID: a.responseID,
		CreateTime: a.createTime.Format("2006-01-02T15:04:05.000000Z"),
	}
	if a.blockReason != "" {
		resp.PromptFeedback = &restFeedback{a.blockReason, a.blockMessage}
		return resp, nil
	}
	candidate := restCandidate{FinishReason: a.finishReason, FinishMessage: a.finishMessage, SafetyRatings: a.ratings}
	if len(a.parts) > 0 {
		candidate.Content = &restContent{Role: "model"}
	}
	for _, p := range a.parts {
		part := restPart{Thought: p.thought, Text: p.text, ThoughtSignature: p.signature}
		switch {
		case p.uri != "":
			part.FileData = &restFile{p.image.mime, p.uri}
		case p.image != nil:
			part.InlineData = restBlob{p.image.mime, a.mark(len(images))}
			if swapped {
				part.InlineData = restBlobSwapped{a.mark(len(images)), p.image.mime}
			}
			images = append(images, p.image)
		}
		candidate.Content.Parts = append(candidate.Content.Parts, part)
	}
	resp.Candidates = []restCandidate{candidate}
	return resp, images
}

// cutAtMarks makes a body of text, which ends with the object's brace.
func (a *answer) cutAtMarks(text []byte, images []*imageFile) (*body, error) {
	end := bytes.LastIndexByte(text, '}')
	b := &body{last: text[end:]}
	text = text[:end]
	for i, img := range images {
		before, after, ok := bytes.Cut(text, []byte(a.mark(i)))
		if !ok {
			return nil, fmt.Errorf("render answer: mark %d is missing", i)
		}
		b.segments = append(b.segments, segment{before, img})
		text = after
	}
	b.segments = append(b.segments, segment{text: text})
	return b, nil
}

// length is about how many bytes the body has.
func (b *body) length() int {
	n := 0
	for _, s := range b.segments {
		n += len(s.text)
		if s.image != nil {
			n += base64.StdEncoding.EncodedLen(s.image.size)
		}
	}
	return n
}

// delivery writes one body to one client.
type delivery struct {
	ctx    context.Context
	w      io.Writer
	flush  func() error
	body   *body
	escape bool
}

// blockSize is how many image bytes are encoded at a time: a multiple of 3, so
// that only the end of an image is padded, and about 64 KiB when encoded.
const blockSize = 48 << 10

// blocks are buffers for one image block and its encoding.
var blocks = sync.Pool{New: func() any { return new([2*blockSize + blockSize]byte) }}

// whole writes everything but the last bytes.
func (d delivery) whole() error {
	for i, s := range d.body.segments {
		if _, err := d.w.Write(s.text); err != nil {
			return err
		}
		if i == 0 {
			// The first bytes leave at once, as from a front end that streams.
			if err := d.flush(); err != nil {
				return err
			}
		}
		if s.image != nil {
			if err := writeBase64(d.w, s.image, d.escape); err != nil {
				return err
			}
		}
	}
	return d.flush()
}

// writeBase64 encodes the pieces of img as one base64 text.
func writeBase64(w io.Writer, img *imageFile, escape bool) error {
	buf := blocks.Get().(*[3 * blockSize]byte)
	defer blocks.Put(buf)
	raw, encoded := buf[:0:blockSize], buf[blockSize:]
	emit := func() error {
		text := encoded[:base64.StdEncoding.EncodedLen(len(raw))]
		base64.StdEncoding.Encode(text, raw)
		raw = raw[:0]
		if escape {
			text = escaped(text)
		}
		_, err := w.Write(text)
		return err
	}
	for _, piece := range img.pieces {
		for len(piece) > 0 {
			n := copy(raw[len(raw):cap(raw)], piece)
			raw, piece = raw[:len(raw)+n], piece[n:]
			if len(raw) == cap(raw) {
				if err := emit(); err != nil {
					return err
				}
			}
		}
	}
	return emit()
}

// escaped writes base64 text as JSON allows and few do: \/ and \u for the
// characters that have another spelling, and a newline every 76 characters,
// which base64 decoders skip.
func escaped(text []byte) []byte {
	const line = 76
	out := make([]byte, 0, len(text)*5/4)
	for i, c := range text {
		if i > 0 && i%line == 0 {
			out = append(out, `\n`...)
		}
		switch {
		case c == '/':
			out = append(out, `\/`...)
		case c == '+' || c == '=' || i%line == 0:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return out
}

// cut writes about half and leaves the rest out.
func (d delivery) cut() error {
	limit := &limitWriter{w: d.w, left: d.body.length() / 2}
	half := delivery{ctx: d.ctx, w: limit, flush: d.flush, body: d.body, escape: d.escape}
	if err := half.whole(); err != nil && limit.left > 0 {
		return err
	}
	return d.flush()
}

// garbage writes half of the body and then something that is not JSON.
func (d delivery) garbage() error {
	if err := d.cut(); err != nil {
		return err
	}
	if _, err := io.Copy(d.w, strings.NewReader("\x00}]<html><title>Error</title></html>\n")); err != nil {
		return err
	}
	return d.flush()
}

// slowSteps is in how many pieces a slow body comes.
const slowSteps = 20

// slow spreads the body over total.
func (d delivery) slow(total time.Duration) error {
	w := &slowWriter{delivery: d, step: max(1, d.body.length()/slowSteps), wait: total / slowSteps}
	s := delivery{ctx: d.ctx, w: w, flush: d.flush, body: d.body, escape: d.escape}
	return s.whole()
}

// limitWriter passes the first bytes and fails after them.
type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p[:min(len(p), l.left)])
	l.left -= n
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// slowWriter waits and flushes after each step bytes.
type slowWriter struct {
	delivery
	step, since int
	wait        time.Duration
}

func (s *slowWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, err := s.w.Write(p[:min(len(p), s.step-s.since)])
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
		if s.since += n; s.since < s.step {
			continue
		}
		s.since = 0
		if err := s.flush(); err != nil {
			return written, err
		}
		if err := sleep(s.ctx, s.wait); err != nil {
			return written, err
		}
	}
	return written, nil
}
