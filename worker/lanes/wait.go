package lanes

import (
	"container/heap"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// waiter is a caller of Next. The Set's lock guards it until told is closed.
type waiter struct {
	job      string
	model    *jobs.Model
	size     string
	region   string
	deadline time.Time

	since time.Time // since when it waits; earlier waits count
	seq   uint64    // breaks ties
	turn  time.Time // when its haste grows; zero: never

	group          *group // in which it waits; nil when it does not
	place, turnsAt int    // in the group's heap and in the Set's

	told   chan struct{} // closed when it has a permit or an error
	permit *permit
	err    error
}

func (w *waiter) outcome() (worker.Permit, error) {
	if w.err != nil {
		return nil, w.err
	}
	return w.permit, nil
}

// before reports whether w has waited longer than o.
func (w *waiter) before(o *waiter) bool {
	if !w.since.Equal(o.since) {
		return w.since.Before(o.since)
	}
	return w.seq < o.seq
}

// heaped is a heap of waiters that can be taken out of its middle.
type heaped struct {
	all   []*waiter
	order func(a, b *waiter) bool
	pos   func(*waiter) *int
}

var _ heap.Interface = (*heaped)(nil)

func bySince(a, b *waiter) bool { return a.before(b) }
func byTurn(a, b *waiter) bool  { return a.turn.Before(b.turn) }
func placePos(w *waiter) *int   { return &w.place }
func turnPos(w *waiter) *int    { return &w.turnsAt }

// Len, Less and Swap implement heap.Interface.
func (h *heaped) Len() int           { return len(h.all) }
func (h *heaped) Less(i, j int) bool { return h.order(h.all[i], h.all[j]) }
func (h *heaped) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	*h.pos(h.all[i]), *h.pos(h.all[j]) = i, j
}

// Push implements heap.Interface.
func (h *heaped) Push(x any) {
	w := x.(*waiter)
	*h.pos(w) = len(h.all)
	h.all = append(h.all, w)
}

// Pop implements heap.Interface.
func (h *heaped) Pop() any {
	last := len(h.all) - 1
	w := h.all[last]
	h.all[last] = nil
	h.all = h.all[:last]
	return w
}

// first returns the first waiter, or nil.
func (h *heaped) first() *waiter {
	if len(h.all) == 0 {
		return nil
	}
	return h.all[0]
}

// group is the jobs of one class that wait, and the lanes that serve them.
type group struct {
	class   class
	options []option
	waiters heaped // who has waited longest comes first
}

// seat is a lane's place among the options of a group.
type seat struct {
	group *group
	place int
}

// join puts the group on the lists of its lanes, once somebody waits in it.
func (g *group) join() {
	for i, o := range g.options {
		o.lane.groups = append(o.lane.groups, seat{g, i})
	}
}

// group returns the group of a class.
func (s *Set) group(k class) *group {
	g := s.groups[k]
	if g == nil {
		g = &group{class: k, waiters: heaped{order: bySince, pos: placePos}}
		g.options = options(s.cfg, s.lanes, k, s.storableAt(k))
		s.groups[k] = g
	}
	return g
}

func (s *Set) storableAt(k class) bool { return !k.strict() || s.storable(k.region) }

// place puts a waiter into the group of its class, as its deadline has it now. It returns an error when no lane serves it.
func (s *Set) place(w *waiter, now time.Time) error {
	h, next := hasteOf(w.deadline, now)
	g := s.group(class{w.model, w.size, w.region, h})
	if len(g.options) == 0 {
		return s.noLane(g.class)
	}
	if g.waiters.Len() == 0 {
		g.join()
	}
	w.group = g
	heap.Push(&g.waiters, w)
	if w.turn = next; !next.IsZero() {
		heap.Push(&s.turns, w)
	}
	return nil
}

// noLane is the error for jobs of a class that no lane serves.
func (s *Set) noLane(k class) error {
	for _, l := range s.lanes {
		if l.shut == nil {
			return refusal(s.lanes, k, s.storableAt(k))
		}
	}
	return allShut(s.lanes)
}

// remove takes a waiter out of its group.
func (s *Set) remove(w *waiter) {
	g := w.group
	heap.Remove(&g.waiters, w.place)
	if !w.turn.IsZero() {
		heap.Remove(&s.turns, w.turnsAt)
		w.turn = time.Time{}
	}
	w.group = nil
	if g.waiters.Len() == 0 {
		for _, o := range g.options {
			o.lane.forget(g)
		}
	}
}

// forget takes a group off the lane's list. The order of the list means nothing.
func (l *lane) forget(g *group) {
	for i, other := range l.groups {
		if other.group == g {
			last := len(l.groups) - 1
			l.groups[i], l.groups[last] = l.groups[last], seat{}
			l.groups = l.groups[:last]
			return
		}
	}
}

// fail tells a waiter that it can't be served.
func (w *waiter) fail(err error) {
	w.err = err
	close(w.told)
}

// reroute works out anew which lanes serve which jobs, after one has been shut. Jobs that none serves any more are told.
func (s *Set) reroute() {
	for _, l := range s.lanes {
		l.groups = nil
	}
	for _, g := range s.groups {
		g.options = options(s.cfg, s.lanes, g.class, s.storableAt(g.class))
		if len(g.options) == 0 {
			s.failAll(g)
		}
		if g.waiters.Len() > 0 {
			g.join()
		}
	}
}

// failAll tells all jobs of a group that no lane serves them any more.
func (s *Set) failAll(g *group) {
	if g.waiters.Len() == 0 {
		return
	}
	err := s.noLane(g.class)
	for w := g.waiters.first(); w != nil; w = g.waiters.first() {
		s.remove(w)
		w.fail(err)
	}
}

// resettle works out anew who waits for what, after a lane broke or works again.
func (s *Set) resettle() {
	for _, g := range s.groups {
		settle(g.options, g.class.haste)
	}
}

// waited is how long a job has waited for a call that was not served, and until when that counts.
type waited struct {
	span  time.Duration
	until time.Time
}

const (
	// waitedPerCall is how many waits are remembered for each call that may be in flight. A job comes back at once, so that there
	// are fewer than calls, and those of jobs that never came back; what is forgotten only waits its turn again.
	waitedPerCall = 2
	// waitedFor is how long a wait is remembered. A throttled job comes back at once, but for a look at its bucket.
	waitedFor = time.Minute
)

// waitedBefore returns how long a job has waited before.
func (s *Set) waitedBefore(job string, now time.Time) time.Duration {
	before, ok := s.waited.Peek(job)
	if !ok {
		return 0
	}
	s.waited.Remove(job)
	if now.After(before.until) {
		return 0
	}
	return before.span
}
