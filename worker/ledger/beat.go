package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
)

// A worker's sign of life is a new generation of its object `workers/<id>`. Others take it for dead when they have watched that
// object for deadAfter, without a gap, and seen no new generation. So nobody compares clocks: each measures a span by its own,
// and it does not matter how far apart they are.
const (
	// beatEvery is far above Cloud Storage's limit of one write a second to an object, and costs nine cents a day and worker. The look
	// at the others costs as much again.
	beatEvery = 5 * time.Second
	// beatTime bounds one beat, and one look at the others. Under load a small write can take seconds; one that takes longer than
	// this is as good as missed.
	beatTime = 8 * time.Second
	// deadAfter is four missed beats. A starved CPU delays a beat by seconds; what a killed worker held waits this long.
	deadAfter = 20 * time.Second
	// watchGap is the longest pause between two looks at the others that still counts as watching. After an outage of Cloud
	// Storage, everybody's object is old and nobody is dead: watching begins anew.
	watchGap = beatEvery + beatTime
	// freshFor is how long after a beat this worker can be sure that nobody takes it for dead: deadAfter, less the time from
	// that certainty to the first byte of a paid call.
	freshFor = deadAfter / 2
	// goneTime bounds the last operation of a worker, taking itself off the list.
	goneTime = 5 * time.Second

	workersPrefix = "workers/"
)

// pulse is this worker's own signs of life.
type pulse struct {
	mu     sync.Mutex
	last   time.Time     // when the last beat that was written began; zero: none yet
	series int64         // of beats without a gap in which others could have taken this worker for dead
	beaten chan struct{} // closed, and replaced, at each beat
}

func newPulse() pulse { return pulse{beaten: make(chan struct{})} }

// unbroken reports whether others can't have taken this worker for dead since that series of beats began.
func (p *pulse) unbroken(series int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isFresh() && p.series == series
}

func (p *pulse) isFresh() bool { return !p.last.IsZero() && time.Since(p.last) < freshFor }

// beat notes a sign of life that was written; began is when the writing began.
func (p *pulse) beat(began time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !began.After(p.last) {
		return // overtaken by a later one
	}
	if p.last.IsZero() || began.Sub(p.last) >= freshFor {
		p.series++
	}
	p.last = began
	close(p.beaten)
	p.beaten = make(chan struct{})
}

// await returns the series of beats when the pulse is fresh, or ctx's cause when that ends first.
func (p *pulse) await(ctx context.Context) (series int64, err error) {
	for {
		p.mu.Lock()
		fresh, series, next := p.isFresh(), p.series, p.beaten
		p.mu.Unlock()
		if fresh {
			return series, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// peers is what this worker has seen of the others.
type peers struct {
	mu     sync.Mutex
	looked time.Time // at the last look that succeeded
	seen   map[string]sighting
}

// sighting is the generation of a worker's object, and the end of the first look that found it, without a gap since.
type sighting struct {
	generation int64
	since      time.Time
}

// look takes in what a look at all workers' objects found. What it found was true at some moment between its beginning and its end, so
// silence is counted from the end of the first look to the beginning of the last.
func (p *peers) look(began, ended time.Time, found map[string]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gap := began.Sub(p.looked) > watchGap
	seen := make(map[string]sighting, len(found))
	for id, generation := range found {
		s, known := p.seen[id]
		if !known || gap || s.generation != generation {
			s = sighting{generation, ended}
		}
		seen[id] = s
	}
	p.seen, p.looked = seen, began
}

// silent returns the generation at which a worker has been watched long enough without a sign of life, if it has.
func (p *peers) silent(id string) (generation int64, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, known := p.seen[id]
	return s.generation, known && p.looked.Sub(s.since) >= deadAfter
}

// LastBeat returns when the last sign of life began that was written; the zero time when there was none yet.
func (l *Ledger) LastBeat() time.Time {
	l.pulse.mu.Lock()
	defer l.pulse.mu.Unlock()
	return l.pulse.last
}

// Beat implements worker.Ledger.
func (l *Ledger) Beat(ctx context.Context) {
	// Apart, and each beat for itself, so that neither a slow look at the others nor a slow beat delays the next sign of life.
	var loops sync.WaitGroup
	loops.Go(func() {
		every(ctx, beatEvery, func(ctx context.Context) { loops.Go(func() { l.beat(ctx) }) })
	})
	loops.Go(func() {
		l.awaitClock(ctx)
		every(ctx, beatEvery, l.lookAround)
	})
	loops.Wait()
	l.leave(context.WithoutCancel(ctx))
}

// every calls f at once and then in intervals, until ctx ends. A call that takes longer delays the next.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// beat gives one sign of life. One that fails is not repeated before the next is due.
func (l *Ledger) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	began := time.Now()
	text := strconv.AppendInt(nil, began.Unix(), 10) // for people; nobody reads it
	attrs, err := gcs.PutWith(ctx, l.bucket.Object(workersPrefix+l.worker), "text/plain", l.tell(), text)
	if err != nil {
		return
	}
	l.clock.add(began, time.Now(), attrs.Updated)
	l.pulse.beat(began)
}

// lookAround looks at all workers' objects. A look that fails leaves a gap.
func (l *Ledger) lookAround(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	began := time.Now()
	query := &storage.Query{Prefix: workersPrefix}
	if err := query.SetAttrSelection([]string{"Name", "Generation", "Updated", "Metadata"}); err != nil {
		panic(fmt.Sprintf("ledger: %v", err)) // the names are constants
	}
	found := map[string]int64{}
	var said []Said
	for it := l.bucket.Objects(ctx, query); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			l.peers.look(began, time.Now(), found)
			l.hear(said)
			return
		}
		if err != nil {
			return
		}
		id := attrs.Name[len(workersPrefix):]
		found[id] = attrs.Generation
		if text := attrs.Metadata[tellKey]; text != "" {
			said = append(said, Said{id, attrs.Updated, text})
		}
	}
}

// leave takes this worker off the list of the living.
func (l *Ledger) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	// If it fails, the others find out by watching.
	_ = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		return l.bucket.Object(workersPrefix + l.worker).Delete(ctx)
	})
}

// gone reports whether a worker that holds a claim is taken for dead. The claim must have been read before.
func (l *Ledger) gone(ctx context.Context, id string) (bool, error) {
	if id == l.worker {
		return false, nil
	}
	generation, silent := l.peers.silent(id)
	// What was seen may be seconds old, and the worker may have come back and made this very claim since. A worker claims only
	// after a fresh sign of life, so a look after the claim was read can tell. One that has no object has left, or is long dead and
	// was swept away: it gives its first sign before its first claim, and leaves after its last.
	attrs, err := l.bucket.Object(workersPrefix + id).Attrs(ctx)
	switch {
	case gcs.NotFound(err):
		return true, nil
	case err != nil:
		return false, err
	}
	return silent && attrs.Generation == generation, nil
}
