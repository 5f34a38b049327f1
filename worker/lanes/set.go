package lanes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes/pace"
)

// DefaultMaxInFlight is the number of calls in flight that one worker is built for.
const DefaultMaxInFlight = 3200

// Options are what a [Set] needs besides its configuration.
type Options struct {
	Log *zap.Logger // nil: none
	// MaxInFlight bounds the calls in flight over all lanes. 0 stands for DefaultMaxInFlight.
	MaxInFlight int
	// Storable reports whether a bucket for the assets of a data region is known. It must not block, and its answers must not change
	// once Next has been called. Nil: those of Config.Buckets are known.
	Storable func(region string) bool
	// Worker is this worker's id. With it the worker shares its lanes with others, as far as they hear of each other by [Set.Tell] and
	// [Set.Hear]; for the first seconds it waits until it has heard. Empty: each lane's pacer is on its own.
	Worker string
	// Seed varies the pauses, so that workers do not march in step. 0: drawn at random.
	Seed uint64

	// newPacer replaces package pace in tests.
	newPacer func(l *LaneConfig, seed uint64, now time.Time) pacer
}

// pacer says when a lane takes its next call. It is not safe for concurrent use. package pace implements it.
type pacer interface {
	Wait(now time.Time) time.Duration
	Begin(now time.Time, more bool)
	Accepted(now, began time.Time)
	Throttled(now, began time.Time, retryAfter time.Duration)
	Lost(now, began time.Time)
	Rate() float64
}

// Set hands out the right to call. It implements worker.Lanes and is safe for concurrent use. It has no goroutine, and its one timer runs
// only while somebody waits.
type Set struct {
	log      *zap.Logger
	cfg      *Config
	storable func(region string) bool
	max      int // calls in flight

	mu       sync.Mutex
	lanes    []*lane // in the order of the configuration
	byName   map[string]*lane
	groups   map[class]*group
	turns    heaped // waiters whose haste grows, by when
	waited   *simplelru.LRU[string, waited]
	inFlight int
	entered  uint64 // callers of Next so far
	timer    *time.Timer
	wake     time.Time // when the timer fires; zero when it is stopped
}

var _ worker.Lanes = (*Set)(nil)

// lane is a lane at work. The Set's lock guards it, but for cfg, key, region and spill, which never change.
type lane struct {
	cfg      *LaneConfig
	key      string // what all workers call it
	region   string // in which its calls are sure to stay; empty: none
	spill    time.Duration
	max      int
	pacer    pacer
	breaker  breaker
	inFlight int
	called   time.Time // when the last call began
	shut     error     // why it takes no calls any more
	trouble  error     // the latest error that the breaker counted
	groups   []seat    // of the groups with jobs that wait and that it serves
	share    share     // of throttled calls
}

// New returns the lanes of a configuration that [Parse] or [Default] made, and whose lanes all have a project.
func New(cfg *Config, opts Options) *Set {
	s := &Set{
		log: opts.Log, cfg: cfg, storable: opts.Storable, max: opts.MaxInFlight,
		byName: map[string]*lane{}, groups: map[class]*group{}, turns: heaped{order: byTurn, pos: turnPos},
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.storable == nil {
		s.storable = func(region string) bool { return cfg.Buckets[region] != "" }
	}
	if s.max == 0 {
		s.max = DefaultMaxInFlight
	}
	if opts.Seed == 0 {
		opts.Seed = rand.Uint64()
	}
	if opts.newPacer == nil {
		opts.newPacer = s.pacerOf(opts.Worker)
	}
	var err error
	if s.waited, err = simplelru.NewLRU[string, waited](waitedPerCall*s.max, nil); err != nil {
		panic(fmt.Sprintf("lanes: MaxInFlight %d: %v", opts.MaxInFlight, err))
	}
	now := time.Now()
	for i := range cfg.Lanes {
		l := s.newLane(&cfg.Lanes[i], opts, opts.Seed+uint64(i), now)
		s.lanes = append(s.lanes, l)
		s.byName[l.cfg.Name] = l
	}
	return s
}

// pacerOf returns what makes the pacers of a worker: those that share, if it has an id.
func (s *Set) pacerOf(id string) func(*LaneConfig, uint64, time.Time) pacer {
	return func(l *LaneConfig, seed uint64, now time.Time) pacer {
		cfg := pace.Config{MaxPerMinute: l.ceiling(), Seed: seed}
		if id == "" {
			return pace.New(cfg, now)
		}
		return pace.NewSharing(cfg, l.key(), id, l.bound(s.max), now)
	}
}

func (s *Set) newLane(cfg *LaneConfig, opts Options, seed uint64, now time.Time) *lane {
	l := &lane{
		cfg: cfg, key: cfg.key(), region: cfg.region(), spill: s.cfg.SpillAfter, max: cfg.bound(s.max),
		pacer: opts.newPacer(cfg, seed, now), breaker: breaker{jitter: rand.New(rand.NewPCG(opts.Seed, seed))},
	}
	switch {
	case cfg.SpillAfter != nil:
		l.spill = *cfg.SpillAfter
	case cfg.Tier == tierProvisioned:
		l.spill = 0 // what is paid by the call while it is full was going to be paid anyway
	}
	return l
}

// Lanes returns the lanes that take online calls, shut or not, in the order of the configuration.
func (s *Set) Lanes() []worker.Lane {
	all := make([]worker.Lane, len(s.lanes))
	for i, l := range s.lanes {
		all[i] = l.cfg.Lane
	}
	return all
}

// Next implements worker.Lanes. Jobs of equal standing are served in the order in which they came. What a job has waited before
// counts when the call that it got was throttled.
func (s *Set) Next(ctx context.Context, j *jobs.Job) (worker.Permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w, err := s.enter(j)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.told:
		return w.outcome()
	case <-ctx.Done():
		return nil, s.leave(ctx, w)
	}
}

// enter lets a job wait. It may have its permit at once.
func (s *Set) enter(j *jobs.Job) (*waiter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.entered++
	w := &waiter{job: j.ID, model: j.Model, size: j.Size, region: j.Region, deadline: j.Deadline, seq: s.entered, told: make(chan struct{})}
	w.since = now.Add(-s.waitedBefore(j.ID, now))
	if err := s.place(w, now); err != nil {
		return nil, err
	}
	s.dispatch(now)
	return w, nil
}

// leave takes away a waiter whose context has ended. What it may just have been granted goes back.
func (s *Set) leave(ctx context.Context, w *waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case w.group != nil:
		s.remove(w)
	case w.permit != nil:
		s.release(w.permit, unknown, now)
	}
	s.dispatch(now) // the timer may have nobody to wake any more
	return context.Cause(ctx)
}

// Shut takes a lane out of use for good. Jobs that wait and that no other lane serves are told. Calls in flight end as they
// would have. Unknown names are ignored.
func (s *Set) Shut(name string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byName[name]; l != nil {
		s.shut(l, why)
		s.dispatch(time.Now())
	}
}

// shut takes a lane out of use, and says so once.
func (s *Set) shut(l *lane, why error, fields ...zap.Field) {
	if l.shut != nil {
		return
	}
	l.shut = why
	left := 0
	for _, other := range s.lanes {
		if other.shut == nil {
			left++
		}
	}
	s.log.Error("lane is shut: it takes no calls until the worker is started again", append([]zap.Field{
		zap.String("lane", l.cfg.Name), zap.String("project", l.cfg.Project), zap.String("location", l.cfg.Location),
		zap.String("model", l.cfg.Model), zap.String("tier", l.cfg.Tier), zap.Error(why), zap.Int("lanes_left", left),
	}, fields...)...)
	s.reroute()
}

// Snapshot returns the state of each lane, in the order of the configuration.
func (s *Set) Snapshot() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := make([]Status, len(s.lanes))
	for i, l := range s.lanes {
		all[i] = l.status(now)
	}
	return all
}
