package workertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
)

// Errors of requests. Only errUnavailable may pass by itself.
var (
	errKilled      = errors.New("the process is dead")
	errUnavailable = errors.New("service unavailable")
	errPrecond     = errors.New("precondition failed")
)

func transient(err error) bool {
	return errors.Is(err, errUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// process is one life of a worker: from its start to its stop or its death. Everything that the worker does to the world goes
// through request, which is where a dead process loses its effect and a frozen one stands still.
type process struct {
	sim    *sim
	id     int // among all processes of the day
	name   string
	skew   time.Duration
	budget *blob.Budget
	cancel context.CancelFunc
	hurry  chan struct{}
	killed chan struct{}
	ended  chan error
	gone   chan struct{} // closed when it has ended
	lanes  *lanes.Set

	ports portState

	// What follows is guarded by sim.mu.
	frozenUntil time.Time
	partitions  []partition
	deniedUntil time.Time
	life        life // what the checkers know of it
	leased      map[int]int
	held        [topics]int // messages in hand
}

type partition struct {
	svc service
	span
}

func (s *sim) newProcess(slot int) *process {
	s.mu.Lock()
	id := len(s.processes)
	p := &process{
		sim: s, id: id, name: fmt.Sprintf("w%d-%d", slot, id), hurry: make(chan struct{}), killed: make(chan struct{}),
		ended: make(chan error, 1), gone: make(chan struct{}), budget: blob.NewBudget(s.cfg.budgetBytes()), leased: map[int]int{},
	}
	p.ports = newPortState()
	p.lanes = lanes.New(s.lanes, lanes.Options{Log: p.log(), MaxInFlight: s.cfg.Concurrency, Seed: s.dice.bits(saltQuota, uint64(id), 1) | 1})
	if s.cfg.sabotage == boundlessImages {
		p.budget = blob.NewBudget(1 << 30)
	}
	if s.cfg.Faults&Skew != 0 {
		p.skew = s.dice.between(saltSkew, uint64(id), 0, -5*time.Minute, 5*time.Minute)
	}
	p.life.open = map[int]struct{}{}
	s.processes = append(s.processes, p)
	s.bucket.beats = append(s.bucket.beats, 0)
	s.mu.Unlock()
	return p
}

func (p *process) log() *zap.Logger { return p.sim.cfg.Log.With(zap.String("worker", p.name)) }

// run begins the process's life.
func (p *process) run() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	s := p.sim
	log := p.log()
	ledger := watched{newLedgerPort(p)}
	var w *worker.Worker
	beside := p.serveBatches(func() *worker.Worker { return w }, ledger, log)
	w = worker.New(worker.Config{ID: p.name, Version: "simulated", Catalogue: s.catalogue, Log: log, Hurry: p.hurry, Beside: beside}, worker.Ports{
		Queue: subscriber{p, onlineJobs, s.cfg.Concurrency}, Controls: controls{p}, Ledger: ledger,
		Lanes: guarded{p, brokenLanes{p, p.lanes}}, Model: model{p},
		Assets: assets{p}, Lineage: rows{p}, Results: results{p},
	})
	go func() {
		err := w.Run(ctx)
		cancel()
		s.addStats(w.Stats())
		close(p.gone)
		p.ended <- err
	}()
}

// kill ends the process as SIGKILL does. What is on the wire may still take effect.
func (p *process) kill() {
	s := p.sim
	s.mu.Lock()
	s.audit.killed(p)
	s.mu.Unlock()
	close(p.killed)
	p.cancel()
	s.queue.lapse(p, true)
}

// freeze stops the process for a while, as SIGSTOP and SIGCONT do.
func (p *process) freeze(d time.Duration) {
	s := p.sim
	s.mu.Lock()
	p.frozenUntil = time.Now().Add(d)
	s.audit.frozen(p, d)
	s.mu.Unlock()
	s.queue.lapse(p, false)
}

func (p *process) stop(hard bool) {
	p.sim.mu.Lock()
	p.life.stopping = true
	p.sim.mu.Unlock()
	p.cancel()
	if hard {
		time.AfterFunc(3*time.Second, func() { close(p.hurry) })
	}
}

func (p *process) dead() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

// over reports whether the process has ended.
func (p *process) over() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// gate returns when the process may run, or that it never will again.
func (p *process) gate() error {
	for {
		if p.dead() {
			return errKilled
		}
		p.sim.mu.Lock()
		wait := time.Until(p.frozenUntil)
		p.sim.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		if err := p.pause(context.Background(), wait); err != nil {
			return err
		}
	}
}

// pause waits, unless the process dies or ctx ends before.
func (p *process) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.killed:
		return errKilled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// requestTimeout ends a request that nobody answers.
	requestTimeout = 10 * time.Second
	// longestAnswer is how long a slow answer takes at most.
	longestAnswer = 25 * time.Second
)

// request is one request to a service: effect is what it does there, at one instant. about says what the request is about, so that its
// faults follow from the seed.
func (p *process) request(ctx context.Context, svc service, about uint64, effect func() error) error {
	if err := p.gate(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, d := p.sim, p.sim.dice
	s.mu.Lock()
	down := s.down(svc) || p.cutOff(svc)
	n := s.countRequest(about)
	s.mu.Unlock()
	about = about<<8 | uint64(svc)
	latency := d.between(saltLatency, about, n, 5*time.Millisecond, 80*time.Millisecond)
	slow, lost := 0.005, 0.01
	if s.cfg.harsh {
		slow, lost = 0.1, 0.3
	}
	late := time.Duration(0) // how long the answer takes after the effect
	if s.may(SlowAnswer) && d.roll(saltSlow, about, n) < slow {
		// The request or its answer is slow; what an answer says may be old by the time it comes.
		late = d.between(saltSlow, about, n+1<<32, time.Second, longestAnswer)
		if d.roll(saltSlow, about, n+2<<32) < 0.5 {
			latency, late = late, 0
		}
	}
	if down {
		if d.roll(saltDown, about, n) < 0.3 {
			latency = requestTimeout // a connection that nobody answers
		}
		if err := p.pause(ctx, latency); err != nil {
			return err
		}
		return p.answer(errUnavailable)
	}
	before := s.may(FailBefore) && d.roll(saltBefore, about, n) < 0.01
	if err := p.pause(ctx, latency); err != nil {
		if !before && d.roll(saltWire, about, n) < 0.5 {
			_ = effect() // it was on the wire
		}
		return err
	}
	if before {
		return p.answer(errUnavailable)
	}
	err := effect()
	lostAnswer := s.may(LostAnswer) && d.roll(saltLost, about, n) < lost
	if late > 0 || lostAnswer {
		if err := p.pause(ctx, max(late, latency)); err != nil {
			return err
		}
	}
	if lostAnswer {
		return p.answer(errUnavailable)
	}
	return p.answer(err)
}

// answer hands an answer to the process, once it runs.
func (p *process) answer(err error) error {
	if gone := p.gate(); gone != nil {
		return gone
	}
	return err
}

// cutOff reports whether this process can't reach a service. The caller holds sim.mu.
func (p *process) cutOff(svc service) bool {
	now := p.sim.now()
	for _, c := range p.partitions {
		if c.svc == svc && c.has(now) {
			return true
		}
	}
	return false
}

// mutex is a lock that may be held while time passes: waiting for it lets the bubble's clock go on, which waiting for a sync.Mutex does
// not.
type mutex chan struct{}

func newMutex() mutex { return make(mutex, 1) }

func (m mutex) lock(ctx context.Context) error {
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m mutex) unlock() { <-m }

// portState is what the ports of one process remember.
type portState struct {
	asking mutex            // of controls
	known  map[string]known // guarded by asking
}

type known struct {
	control worker.Control
	at      time.Time
}

func newPortState() portState { return portState{asking: newMutex(), known: map[string]known{}} }
