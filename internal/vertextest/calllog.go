package vertextest

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// CallRecord is one line of the call log: one answer that the model made and
// that would be billed, or a refusal.
type CallRecord struct {
	Time     time.Time `json:"time"`   // when the model had answered
	Method   string    `json:"method"` // generateContent, predict or batch
	Project  string    `json:"project"`
	Location string    `json:"location"`
	Model    string    `json:"model"`
	Prompt   string    `json:"prompt_sha256"`
	// Context is what HashContext says of the request, if there was more to it
	// than one text.
	Context string            `json:"context_sha256,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Seed    *int32            `json:"seed,omitempty"`
	Size    string            `json:"size"`
	Ratio   string            `json:"aspect_ratio"`
	Tier    string            `json:"tier"`
	// Result is image or refused.
	Result string `json:"result"`
	// FinishReason is the finishReason, or the blockReason of a blocked prompt.
	FinishReason string `json:"finish_reason"`
	// Tokens billed: prompt, answer and thoughts.
	Tokens int `json:"tokens"`
	// Image is the SHA-256 of the first image that is not a thought; Bytes its size.
	Image string `json:"image_sha256,omitempty"`
	Bytes int    `json:"bytes"`
	// Object is the URI of the image, when it was written to Cloud Storage.
	Object    string  `json:"object,omitempty"`
	LatencyMS float64 `json:"latency_ms"` // request received to answer made
	// Delivered is whether the whole answer was written to the connection. The
	// client may still have died before it read it.
	Delivered bool `json:"delivered"`
	// Batch is the name of the batch prediction job that the answer is part of.
	Batch string `json:"batch,omitempty"`
	// Number says how often the same request came before.
	Number int `json:"number"`
}

// callLog serializes lines to a writer.
type callLog struct {
	mu sync.Mutex
	w  io.Writer
}

// write appends one line in one Write, so that lines of a shared file do not mix.
func (l *callLog) write(r CallRecord) error {
	if l.w == nil {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.w.Write(append(line, '\n'))
	return err
}

// Stats are counts since the server started.
type Stats struct {
	// Calls are generateContent and Predict calls received, good or bad.
	Calls int64
	// ByStatus counts finished calls by HTTP status, also for gRPC. 499 is a
	// client that left first; 200 includes bodies that were cut or garbled.
	ByStatus map[int]int64
	// Images and Refused are the answers of the model, as in the call log;
	// Undelivered of them did not arrive as a whole.
	Images, Refused, Undelivered int64
	// CountTokens calls, which are free.
	CountTokens int64
	// BytesSent are image bytes, before base64.
	BytesSent int64
	// InFlight are calls being served now; PeakInFlight the most at once.
	InFlight, PeakInFlight int64
	// Conns are REST connections open now; PeakConns the most at once.
	Conns, PeakConns int64
	// LogErrors are failed writes to the call log.
	LogErrors int64
}

type counters struct {
	mu sync.Mutex
	s  Stats
}

func (c *counters) update(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

func (c *counters) begin() {
	c.update(func(s *Stats) {
		s.Calls++
		s.InFlight++
		s.PeakInFlight = max(s.PeakInFlight, s.InFlight)
	})
}

func (c *counters) end(status int) {
	c.update(func(s *Stats) {
		s.InFlight--
		s.ByStatus[status]++
	})
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.s
	out.ByStatus = make(map[int]int64, len(c.s.ByStatus))
	for k, v := range c.s.ByStatus {
		out.ByStatus[k] = v
	}
	return out
}
