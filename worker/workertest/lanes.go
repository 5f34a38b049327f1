package workertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/googleapis/gax-go/v2"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Lanes is a worker.Lanes with one lane for everything. After a throttled answer nobody gets a permit for a while that doubles
// from a second to a minute; after a denied one the lane is shut.
type Lanes struct {
	Lane worker.Lane
	// Refuse, if set, is asked for each job; an error is what Next returns.
	Refuse func(j *jobs.Job) error

	mu      sync.Mutex
	until   time.Time
	backoff *gax.Backoff
	shut    error
	out     int
}

// Next implements worker.Lanes.
func (l *Lanes) Next(ctx context.Context, j *jobs.Job) (worker.Permit, error) {
	if l.Refuse != nil {
		if err := l.Refuse(j); err != nil {
			return nil, err
		}
	}
	for {
		wait, err := l.take()
		switch {
		case err != nil:
			return nil, err
		case wait <= 0:
			return &permit{lanes: l}, nil
		}
		if err := retry.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// take takes a permit, or says how long there is none.
func (l *Lanes) take() (wait time.Duration, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut != nil {
		return 0, fmt.Errorf("%w: %w", worker.ErrLanesShut, l.shut)
	}
	if wait = time.Until(l.until); wait <= 0 {
		l.out++
	}
	return wait, nil
}

// Out returns how many permits are neither ended nor dropped.
func (l *Lanes) Out() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out
}

type permit struct {
	lanes *Lanes
	over  bool
}

// Lane implements worker.Permit.
func (p *permit) Lane() worker.Lane { return p.lanes.Lane }

// Drop implements worker.Permit.
func (p *permit) Drop() { p.finish(func() {}) }

// End implements worker.Permit.
func (p *permit) End(err error) {
	l := p.lanes
	p.finish(func() {
		var ce *worker.CallError
		switch errors.As(err, &ce); {
		case ce == nil:
			l.backoff = nil
		case ce.Kind == worker.Denied:
			l.shut = ce
		case ce.Kind == worker.Throttled:
			if l.backoff == nil {
				l.backoff = &gax.Backoff{Initial: time.Second, Max: time.Minute, Multiplier: 2}
			}
			l.until = time.Now().Add(max(l.backoff.Pause(), ce.RetryAfter))
		}
	})
}

func (p *permit) finish(f func()) {
	p.lanes.mu.Lock()
	defer p.lanes.mu.Unlock()
	if p.over {
		panic("workertest: a permit was given back twice")
	}
	p.over = true
	p.lanes.out--
	f()
}
