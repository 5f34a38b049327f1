package lanes

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	pro   = "gemini-3-pro-image"
	nano  = "gemini-2.5-flash-image" // the one that is served in regions
	lite  = "gemini-3.1-flash-lite-image"
	flash = "gemini-3.1-flash-image"
	west4 = "europe-west4"
	east1 = "us-east1"
)

var catalogue = jobs.DefaultCatalogue()

// at returns a lane, named after its location and tier.
func at(model, location, tier string, change ...func(*LaneConfig)) LaneConfig {
	l := LaneConfig{Lane: worker.Lane{Name: location + "/" + tier, Project: "p", Location: location, Model: model, Tier: tier}}
	for _, f := range change {
		f(&l)
	}
	return l
}

func named(name string) func(*LaneConfig) { return func(l *LaneConfig) { l.Name = name } }
func room(calls int) func(*LaneConfig)    { return func(l *LaneConfig) { l.MaxInFlight = calls } }
func priced(nano jobs.USD) func(*LaneConfig) {
	return func(l *LaneConfig) { l.ImagePrice = &nano }
}

func spilling(after time.Duration) func(*LaneConfig) {
	return func(l *LaneConfig) { l.SpillAfter = &after }
}

func dedicated(location string, change ...func(*LaneConfig)) LaneConfig {
	l := at(nano, location, tierDedicated, change...)
	l.Endpoint, l.Host = "e1", "e1."+location+"-1.prediction.vertexai.goog"
	return l
}

func configOf(lanes ...LaneConfig) *Config {
	return &Config{Lanes: lanes, Prefer: jobs.GlobalRegion, SpillAfter: DefaultSpillAfter, Catalogue: catalogue, Buckets: map[string]string{west4: "b-eu", east1: "b-us"}}
}

func newJob(id, model string, change ...func(*jobs.Job)) *jobs.Job {
	j := &jobs.Job{ID: id, Model: catalogue.Model(model), Size: "1K", Region: jobs.GlobalRegion}
	for _, f := range change {
		f(j)
	}
	return j
}

func in(region string) func(*jobs.Job)  { return func(j *jobs.Job) { j.Region = region } }
func sized(size string) func(*jobs.Job) { return func(j *jobs.Job) { j.Size = size } }
func due(in time.Duration) func(*jobs.Job) {
	return func(j *jobs.Job) { j.Deadline = time.Now().Add(in) }
}

// even is a pacer that takes a call every so often, and none before a time that a test may set.
type even struct {
	every     time.Duration
	next      time.Time
	began     []time.Time
	more      []bool
	accepted  int
	throttled int
	lost      int
}

func (e *even) Wait(now time.Time) time.Duration { return max(0, e.next.Sub(now)) }

func (e *even) Begin(now time.Time, more bool) {
	e.began, e.more = append(e.began, now), append(e.more, more)
	e.next = now.Add(e.every)
}

func (e *even) Accepted(_, _ time.Time) { e.accepted++ }

func (e *even) Throttled(now, _ time.Time, after time.Duration) {
	e.throttled++
	e.next = now.Add(max(after, time.Second))
}

func (e *even) Lost(_, _ time.Time) { e.lost++ }
func (e *even) Rate() float64       { return float64(time.Minute) / float64(max(e.every, time.Millisecond)) }

// paced returns options whose pacers are even, by the name of the lane. The pacers of lanes that are not named take calls at any time.
func paced(every map[string]time.Duration) (Options, map[string]*even) {
	all := map[string]*even{}
	return Options{Seed: 1, newPacer: func(l *LaneConfig, _ uint64, now time.Time) pacer {
		e := &even{every: every[l.Name], next: now}
		all[l.Name] = e
		return e
	}}, all
}

// take gets a permit that must be there at once.
func take(t *testing.T, s *Set, j *jobs.Job) worker.Permit {
	t.Helper()
	p, err := try(s, j)
	if err != nil {
		t.Fatalf("job %s got no permit: %v", j.ID, err)
	}
	return p
}

// try gets a permit if there is one at once.
func try(s *Set, j *jobs.Job) (worker.Permit, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w, err := s.enter(j)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.told:
		return w.outcome()
	default:
		cancel(fmt.Errorf("job %s has to wait", j.ID))
		return nil, s.leave(ctx, w)
	}
}

// waits asserts that there is no permit at once.
func waits(t *testing.T, s *Set, j *jobs.Job) {
	t.Helper()
	if p, err := try(s, j); err == nil {
		t.Fatalf("job %s got a permit for lane %s at once", j.ID, p.Lane().Name)
	}
}

func failed(kind worker.Kind, status int) error {
	return &worker.CallError{Kind: kind, Status: status, Detail: "said so"}
}

// balance asserts that nobody waits and nothing is in flight, and that the timer is stopped.
func balance(t *testing.T, s *Set) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight != 0 || len(s.turns.all) != 0 {
		t.Errorf("%d calls are in flight and %d waiters have turns", s.inFlight, len(s.turns.all))
	}
	for _, l := range s.lanes {
		if l.inFlight != 0 || len(l.groups) != 0 {
			t.Errorf("lane %s has %d calls in flight and %d groups", l.cfg.Name, l.inFlight, len(l.groups))
		}
	}
	if !s.wake.IsZero() || s.timer != nil && s.timer.Stop() {
		t.Error("the timer runs though nobody waits")
	}
}
