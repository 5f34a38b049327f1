package telemetry

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// silenceLimit is how long the ledger's heartbeat may fail before the process counts as broken. A restart throws away the images that wait
// for the storage to come back, and mends only what is wrong with this process; an outage of Cloud Storage it doesn't mend. So the limit is
// longer than outages that pass by themselves, and longer than a job is held.
const silenceLimit = 30 * time.Minute

// Health is what probes ask of a process. It begins as starting: alive and not ready. It is safe for concurrent use.
type Health struct {
	mu        sync.Mutex
	phase     string
	ready     bool
	over      bool
	since     time.Time        // when it became ready
	heartbeat func() time.Time // nil: nobody knows
}

// NewHealth returns the health of a process that is starting.
func NewHealth() *Health { return &Health{phase: "starting"} }

// Ready says that the start-up checks have passed and work begins. From now on heartbeat, which may be nil, tells when the last sign
// of life was written to the ledger; zero: none yet.
func (h *Health) Ready(heartbeat func() time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase, h.ready, h.heartbeat, h.since = "ready", true, heartbeat, time.Now()
}

// Stopping says that no more work is taken.
func (h *Health) Stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase, h.ready = "stopping", false
}

// Over says that the work has ended, whatever the reason.
func (h *Health) Over() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase, h.ready, h.over = "over", false, true
}

// alive returns an error that says why the process should be replaced.
func (h *Health) alive() (phase string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return h.phase, fmt.Errorf("the work is over")
	}
	if h.heartbeat == nil {
		return h.phase, nil
	}
	last := h.heartbeat()
	if last.Before(h.since) {
		last = h.since
	}
	if silent := time.Since(last); silent > silenceLimit {
		return h.phase, fmt.Errorf("no heartbeat could be written for %s", silent.Round(time.Second))
	}
	return h.phase, nil
}

// serveLive answers 503 when the process should be replaced.
func (h *Health) serveLive(w http.ResponseWriter, _ *http.Request) {
	phase, err := h.alive()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "alive:", phase)
}

// serveReady answers 503 while the process takes no work.
func (h *Health) serveReady(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	phase, ready := h.phase, h.ready
	h.mu.Unlock()
	if !ready {
		http.Error(w, phase, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, phase)
}
