package pacesim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Scenario is what the service does and who calls it.
type Scenario struct {
	Name     string
	Duration time.Duration
	// Steps of the hidden quota, in order. The first one is at 0.
	Steps []Step
	// Noise is the share, 0 to 1, by which other tenants move the quota up and
	// down, on lines between random points NoisePeriod apart.
	Noise       float64
	NoisePeriod time.Duration
	// Growth bounds the admitted rate: its average over the last minute plus so
	// many calls a minute. 0: no bound.
	Growth float64
	// Contended is the share of calls, 0 to 1, that are throttled whatever the rate.
	// They use no quota.
	Contended float64
	// Latencies of accepted and of throttled calls, uniform between both, of which
	// Reach is the way to the service.
	Call, Throttle, Reach [2]time.Duration

	Workers int
	// Stagger starts the workers at random times in the first so long.
	Stagger time.Duration
	// From lets the worker with this index begin only later; Until lets it stop.
	From, Until map[int]time.Duration
	// Jobs is how many jobs there are, shared evenly. 0: more than can be done.
	Jobs int
	// Places for jobs in each worker. 0: twice what the highest quota needs.
	Places int
	// Killed lets workers that stop leave their last report behind.
	Killed  bool
	Reports Reports
	// Phases in which fewer jobs arrive than the quota allows.
	Phases []Phase
}

// Phase is a time in which jobs arrive at a rate instead of waiting in a heap.
type Phase struct {
	From, To  time.Duration
	PerMinute float64
}

const (
	evWake    = iota // a worker may begin a call
	evReach          // a call reaches the service
	evAnswer         // an accepted call ends
	evRefusal        // a throttled call ends
	evRetry          // a job's own back-off ends
	evStart          // a worker starts
	evArrive         // a job arrives
	evPhase          // a phase begins or ends
	evReport         // a worker writes a report
	evLook           // a worker lists the reports
)

type event struct {
	at      time.Duration
	seq     uint64 // makes the order of events at the same time definite
	began   time.Duration
	worker  int32
	attempt int16
	kind    uint8
}

type worker struct {
	pacer  Pacer
	until  time.Duration
	active bool
	jobs   int     // not yet begun
	held   int     // places taken
	ready  []int16 // held jobs whose back-off ended, by attempts so far
	wake   time.Duration

	id      string
	clock   time.Duration // how far it takes the shared clock to be ahead
	reports []written
}

type run struct {
	sc      *Scenario
	alg     Algorithm
	service *service
	rng     *rand.Rand
	places  int
	workers []*worker
	events  heap
	seq     uint64
	phase   *Phase
	out     *Result
}

// Run plays a scenario.
func Run(sc Scenario, alg Algorithm, seed uint64) *Result {
	r := &run{
		sc: &sc, alg: alg, service: newService(&sc, seed),
		rng: rand.New(rand.NewPCG(seed, 0x70616365)), places: sc.places(alg.Places),
	}
	r.out = newResult(&sc, alg.Name, r.service.capacity())
	for i := range sc.Workers {
		r.workers = append(r.workers, &worker{id: fmt.Sprintf("w%d", i), until: math.MaxInt64})
		at := sc.From[i] + time.Duration(r.rng.Float64()*float64(sc.Stagger))
		if u, ok := sc.Until[i]; ok {
			r.workers[i].until = u
		}
		r.push(event{at: at, kind: evStart, worker: int32(i)})
	}
	for i := range sc.Phases {
		r.push(event{at: sc.Phases[i].From, kind: evPhase})
		r.push(event{at: sc.Phases[i].To, kind: evPhase})
	}
	for len(r.events) > 0 {
		e := r.events.pop()
		if e.at >= sc.Duration {
			break
		}
		r.play(e)
	}
	return r.out
}

func (r *run) push(e event) {
	r.seq++
	e.seq = r.seq
	r.events.push(e)
}

// clock is virtual time, as a time of the clock.
func (r *run) clock(at time.Duration) time.Time { return time.Unix(0, int64(at)) }

func (r *run) play(e event) {
	w := r.workers[e.worker]
	switch e.kind {
	case evStart:
		w.active = true
		w.pacer = r.alg.New(w.id, r.places, uint64(e.worker)+r.rng.Uint64(), r.clock(e.at))
		w.jobs = math.MaxInt32
		if r.sc.Jobs > 0 {
			w.jobs = r.sc.Jobs / r.sc.Workers
		}
		if r.phase != nil {
			w.jobs = 0
		}
		r.share(w, e)
	case evReport:
		r.report(w, e)
		return
	case evLook:
		if !r.look(w, e) {
			return
		}
	case evWake:
		if e.at != w.wake {
			return // another wake-up has replaced this one
		}
		w.wake = 0
	case evAnswer:
		w.held--
		r.out.finished(e.at)
		w.pacer.Accepted(r.clock(e.at), r.clock(e.began))
	case evRefusal:
		w.pacer.Throttled(r.clock(e.at), r.clock(e.began))
		r.again(w, e)
	case evRetry:
		w.ready = append(w.ready, e.attempt)
	case evReach:
		r.reach(e)
		return
	case evArrive:
		r.arrive(e)
		return
	case evPhase:
		r.changePhase(e.at)
		return
	}
	r.pump(w, e)
}

// again puts a throttled job back.
func (r *run) again(w *worker, e event) {
	if !r.alg.Backoff {
		w.held--
		w.jobs++
		return
	}
	r.backoff(e)
}

// backoff is Google's advice: 1 s, doubled up to 60 s, with full jitter over the
// upper half.
func (r *run) backoff(e event) {
	d := min(60, math.Pow(2, float64(min(e.attempt, 10))))
	d *= 0.5 + 0.5*r.rng.Float64()
	r.push(event{at: e.at + seconds(d), kind: evRetry, worker: e.worker, attempt: e.attempt + 1})
}

// pump begins as many calls of w as may begin now.
func (r *run) pump(w *worker, e event) {
	rejecter, _ := w.pacer.(Rejecter)
	for w.active && e.at < w.until {
		fresh := w.held < r.places && w.jobs > 0
		if len(w.ready) == 0 && !fresh {
			return
		}
		now := r.clock(e.at)
		if ok, again := w.pacer.Ready(now); !ok {
			if at := e.at + again; again > 0 && (w.wake == 0 || at < w.wake || w.wake <= e.at) {
				w.wake = at
				r.push(event{at: at, kind: evWake, worker: e.worker})
			}
			return
		}
		call := event{at: e.at, began: e.at, worker: e.worker}
		if n := len(w.ready); n > 0 {
			call.attempt = w.ready[n-1]
			w.ready = w.ready[:n-1]
		} else {
			w.jobs--
			w.held++
		}
		if rejecter != nil && rejecter.Reject(now) {
			r.backoff(call)
			continue
		}
		r.call(w, call)
	}
}

func (r *run) call(w *worker, call event) {
	w.pacer.Begin(r.clock(call.at), w.held < r.places && w.jobs > 0 || len(w.ready) > 0)
	call.kind = evReach
	call.at += r.between(r.sc.Reach)
	r.push(call)
}

// reach is the service's decision.
func (r *run) reach(call event) {
	if r.service.take(call.at) {
		r.out.accepted(call.at, int(call.worker))
		call.kind = evAnswer
		call.at = max(call.at, call.began+r.between(r.sc.Call))
	} else {
		r.out.throttled(call.at)
		call.kind = evRefusal
		call.at = max(call.at, call.began+r.between(r.sc.Throttle))
	}
	r.push(call)
}

// arrive gives a job to a random worker and plans the next one.
func (r *run) arrive(e event) {
	if r.phase == nil || r.phase.To <= e.at {
		return
	}
	r.push(event{at: e.at + seconds(r.rng.ExpFloat64()*60/r.phase.PerMinute), kind: evArrive})
	e.worker = int32(r.rng.IntN(len(r.workers)))
	if w := r.workers[e.worker]; w.active {
		w.jobs++
		r.pump(w, e)
	}
}

func (r *run) changePhase(at time.Duration) {
	r.phase = nil
	for i := range r.sc.Phases {
		if p := &r.sc.Phases[i]; p.From <= at && at < p.To {
			r.phase = p
			r.push(event{at: at, kind: evArrive})
		}
	}
	for i, w := range r.workers {
		if !w.active {
			continue
		}
		w.jobs = math.MaxInt32
		if r.phase != nil {
			w.jobs = 0
		}
		r.pump(w, event{at: at, worker: int32(i)})
	}
}

func (r *run) between(b [2]time.Duration) time.Duration {
	return b[0] + time.Duration(r.rng.Float64()*float64(b[1]-b[0]))
}

// places is how many jobs a worker holds at most, of an algorithm that is used with at least so many.
func (sc *Scenario) places(least int) int {
	if sc.Places > 0 {
		return sc.Places
	}
	highest := 0.0
	for _, s := range sc.Steps {
		highest = max(highest, s.PerMinute)
	}
	mean := (sc.Call[0] + sc.Call[1]).Seconds() / 2
	return max(8, least, int(math.Ceil(2*highest/60*mean/float64(sc.Workers))))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// heap is a binary heap of events, the earliest first.
type heap []event

func (h heap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *heap) push(e event) {
	*h = append(*h, e)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s.less(i, up) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *heap) pop() event {
	s := *h
	top := s[0]
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return top
		}
		if down+1 < n && s.less(down+1, down) {
			down++
		}
		if !s.less(down, i) {
			return top
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
}
