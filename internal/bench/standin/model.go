package standin

import (
	"context"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ModelConfig says what a model answers, and when.
type ModelConfig struct {
	ImageBytes int
	// Latency is the mean time of a call. Calls take up to a quarter more or less, or their answers would come in waves.
	Latency time.Duration
	// Gate holds that many calls, and answers all of them at the moment at which the last has come. Later ones are not held.
	Gate int
}

// latencySpread is by which share of the mean a call takes more or less.
const latencySpread = 0.25

// ModelStats is what a model has seen.
type ModelStats struct {
	Calls      int `json:"calls"`
	InFlight   int `json:"in_flight"`
	Most       int `json:"most_in_flight"`
	Unfinished int `json:"unfinished"` // answers that could not be written to their end
	// ImageCRC32C is the checksum of the image in every answer.
	ImageCRC32C uint32 `json:"image_crc32c"`
}

// Model is an HTTP handler that answers generateContent and countTokens.
type Model struct {
	cfg   ModelConfig
	body  []byte
	Begun Meter // calls that have come

	mu    sync.Mutex
	stats ModelStats
	open  chan struct{} // closed when the gate opens
}

// NewModel prepares the answer.
func NewModel(cfg ModelConfig) (*Model, error) {
	picture, err := newImage(cfg.ImageBytes)
	if err != nil {
		return nil, err
	}
	m := &Model{cfg: cfg, body: newAnswer(picture), open: make(chan struct{})}
	m.stats.ImageCRC32C = crc32.Checksum(picture, castagnoli)
	if cfg.Gate == 0 {
		close(m.open)
	}
	return m, nil
}

// Stats returns what the model has seen.
func (m *Model) Stats() ModelStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

func (m *Model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the client has left
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	switch {
	case strings.HasSuffix(r.URL.Path, ":generateContent"):
		m.generate(w, r)
	case strings.HasSuffix(r.URL.Path, ":countTokens"):
		_, _ = io.WriteString(w, `{"totalTokens": 1}`) // a client that has left needs no answer
	default:
		http.NotFound(w, r)
	}
}

func (m *Model) generate(w http.ResponseWriter, r *http.Request) {
	m.begin()
	err := m.wait(r.Context())
	if err == nil {
		_, err = w.Write(m.body)
	}
	m.mu.Lock()
	m.stats.InFlight--
	if err != nil {
		m.stats.Unfinished++
	}
	m.mu.Unlock()
}

// begin counts a call, and opens the gate when it is the last that is held.
func (m *Model) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Calls++
	m.stats.InFlight++
	m.stats.Most = max(m.stats.Most, m.stats.InFlight)
	if m.Begun.Add(1) == m.cfg.Gate {
		close(m.open)
	}
}

// wait takes the time of a call.
func (m *Model) wait(ctx context.Context) error {
	spread := 1 + latencySpread*(2*rand.Float64()-1)
	t := time.NewTimer(time.Duration(float64(m.cfg.Latency) * spread))
	defer t.Stop()
	gate := m.open
	for range 2 {
		select {
		case <-t.C:
		case <-gate:
			gate = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
