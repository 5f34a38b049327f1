package pace

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// Who takes part.
const (
	// wantsAfter is how many reports in a row must find jobs waiting before a worker
	// takes part: a short wait is no want.
	wantsAfter = 2
	// joinLag is how long after its first report that says so a worker takes part. By
	// then all have heard it, so that all count it in from the same slot on. Reports
	// are heard within ten seconds, but for lost ones.
	joinLag = 12 * time.Second
	// staleAfter is the age of a worker's latest report from which on it is left out:
	// eight missed ones. Storage loses several in a row, and whoever leaves out one
	// that the others count takes turns at the wrong time.
	staleAfter = 40 * time.Second
	// hearGap is how old the latest look at the others may be before their age counts
	// no further: it is this worker that is deaf then.
	hearGap = 15 * time.Second
	// blindAfter is how old it may be before this worker paces itself alone.
	blindAfter = 2 * time.Minute
	// firstHearing bounds the wait for the first look at the others.
	firstHearing = 5 * time.Second
	// alone is how long a worker that does not take part leaves between two calls out
	// of turn.
	alone = 30 * time.Second
	// skew bounds how far a report may be ahead of this worker's idea of the shared
	// clock.
	skew = 10 * time.Second
	// takenTime is the time constant of Taken: short enough to tell what the lane gives
	// now, long enough for a few calls.
	takenTime = 30 * time.Second
)

// Sharing paces the calls of one worker on a lane that it shares with others of
// which it hears: see the package's doc. Until it has heard of others it is a
// [Limiter]. It is not safe for concurrent use.
type Sharing struct {
	law      *Limiter
	lane, id string
	capacity float64 // calls in flight
	started  time.Time

	// local and clock are the same moment on this worker's clock and on the shared
	// one, as of the latest look at the others.
	local time.Time
	clock Moment
	heard bool
	peers []peer // all that were heard of, this worker too, in the lane's order

	plan, next Plan
	ease       Moment        // when all call more slowly, or did
	easeGap    time.Duration // to the next such time
	turnsSince Moment        // when the members last began to take turns

	wanted int // reports in a row that found jobs waiting, up to wantsAfter
	wants  bool
	since  Moment
	spare  bool

	taken   float64 // calls of the last takenTime, fading
	takenAt time.Time

	turn turn
	view view
}

// turn is this worker's latest turn.
type turn struct {
	under   Plan // zero: the law's state is no turn's
	slot    int64
	seat    int
	began   time.Time
	base    Peer // whose state it began with
	holding bool
}

// view is what a slot looks like. It is worked out once a slot and look.
type view struct {
	fresh    bool
	slot     int64
	members  int
	seat     int   // of this worker, -1 for none
	nextTurn int64 // the slot of its next turn
}

type peer struct {
	Peer
	order uint64
}

// NewSharing returns the pacer of the worker with that id on that lane. All
// workers must name the lane alike. capacity is how many calls the worker may have
// in flight there.
func NewSharing(cfg Config, lane, id string, capacity int, now time.Time) *Sharing {
	return &Sharing{
		law: New(cfg, now), lane: lane, id: id, capacity: float64(max(capacity, 1)), started: now, takenAt: now,
		// Jobs that wait when a worker starts have waited before.
		wanted: wantsAfter - 1,
	}
}

// order is a worker's place on this lane. Each lane has an order of its own, so
// that not the same worker leads all.
func (s *Sharing) order(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.lane + "\x00" + id))
	x := h.Sum64()
	x ^= x >> 33 // FNV's high bits hardly depend on the last bytes
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// now is the moment on the shared clock. Only spans are taken from the worker's
// clock, which may be set at any time.
func (s *Sharing) moment(now time.Time) Moment { return s.clock.add(now.Sub(s.local)) }

func (s *Sharing) at(m Moment) time.Time { return s.local.Add(m.sub(s.clock)) }

// Report returns what the others are to be told. waiting: jobs wait for the lane.
func (s *Sharing) Report(now time.Time, waiting bool) Report {
	if waiting {
		s.wanted = min(s.wanted+1, wantsAfter)
	} else {
		s.wanted = max(s.wanted-1, 0)
	}
	was := s.wants
	s.wants = s.wanted == wantsAfter || was && s.wanted > 0
	if s.wants && (!was || s.since == 0) {
		s.since = 0
		if s.heard { // else the shared clock is not known yet
			s.since = s.moment(now)
		}
	}
	s.fade(now)
	r := s.state()
	r.Last = min(r.Last, max(0, s.moment(now))) // the idea of the shared clock may just have been corrected
	return r
}

func (s *Sharing) state() Report {
	return Report{
		Rate: s.law.rate, Growth: s.law.growth, Quiet: s.law.quiet, Taken: s.takenRate(), Seat: s.turn.seat, Under: s.turn.under,
		Last: s.lastCall(), Plan: s.plan, Next: s.next, Wants: s.wants, Since: s.since, Spare: s.spare,
		Excess: tidy(s.law.back.excess), Edge: tidy(s.law.back.edge), Calls: tidy(s.law.back.calls), Throttles: tidy(s.law.back.throttles), Ease: s.ease,
	}
}

// lastCall is when the last call began, 0 as long as the shared clock is not known.
func (s *Sharing) lastCall() Moment {
	switch {
	case !s.heard:
		return 0
	case s.law.resumed():
		return s.turn.base.Last // what it knows is as old as that
	default:
		return max(0, s.moment(s.law.last))
	}
}

// Hear takes in the latest reports of all workers, which may include this one's
// own. clock is the moment on the shared clock.
func (s *Sharing) Hear(now time.Time, clock Moment, all []Peer) {
	first := !s.heard
	s.heard, s.local, s.clock = true, now, clock
	s.peers = s.peers[:0]
	for _, p := range all {
		s.peers = append(s.peers, peer{p, s.order(p.ID)})
	}
	slices.SortFunc(s.peers, func(a, b peer) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.ID, b.ID)) })
	s.view.fresh = false
	s.advance(now)
	s.follow(now, first)
	s.rebase(now)
	s.learn(now)
}

// members returns who takes part at a moment, in the lane's order, and this
// worker's place among them, -1 for none. All who have heard the same come to the
// same.
func (s *Sharing) members(m Moment) (list []*peer, me int) {
	me = -1
	seen := min(m, s.clock.add(hearGap))
	for i := range s.peers {
		p := &s.peers[i]
		if !p.Wants || p.Since == 0 || p.Since.add(joinLag) > m || seen.sub(p.At) >= staleAfter {
			continue
		}
		if p.ID == s.id {
			me = len(list)
		}
		list = append(list, p)
	}
	return list, me
}

// look works out the slot that a moment lies in.
func (s *Sharing) look(m Moment) {
	v := &s.view
	i := m.slot(s.plan.Slot)
	if v.fresh && i == v.slot {
		return
	}
	list, me := s.members(slotStart(i, s.plan.Slot))
	*v = view{fresh: true, slot: i, members: len(list), seat: -1, nextTurn: i + 1}
	if me < 0 {
		return
	}
	n, k := int64(len(list)), int64(s.plan.Seats)
	seat := func(i int64) int64 { return ((int64(me)-i%n*k)%n + n) % n }
	if q := seat(i); q < k {
		v.seat = int(q)
	}
	for v.nextTurn < i+n && seat(v.nextTurn) >= k {
		v.nextTurn++
	}
}

// Wait is as [Limiter.Wait]. Out of turn it is the time until the next turn.
func (s *Sharing) Wait(now time.Time) time.Duration {
	if !s.heard && now.Sub(s.started) < firstHearing {
		return firstHearing - max(0, now.Sub(s.started))
	}
	s.advance(now)
	if s.plan.together() {
		return s.law.Wait(now)
	}
	m := s.moment(now)
	s.look(m)
	if s.view.seat >= 0 {
		s.enter(now)
		if w := s.law.Wait(now); m.add(w) < slotStart(s.view.slot+1, s.plan.Slot) {
			return w
		}
	} else if !s.wants && now.Sub(s.law.last) >= alone {
		return 0 // one job now and then need not wait for a turn
	}
	return min(max(time.Millisecond, slotStart(s.view.nextTurn, s.plan.Slot).sub(m)), maxWait)
}

// best is the latest state of a seat, -1 for any, as the present plan would have
// it. Its rate is 0 when nobody has taken a turn yet.
func (s *Sharing) best(seat int) Peer {
	var best, other Peer
	weigh := func(p Peer) {
		if p.Under.together() || p.Last < s.turnsSince {
			return
		}
		same := p.Under == s.plan && p.Seat == seat
		p.Rate *= float64(p.Under.Seats) / float64(max(1, s.plan.Seats))
		if p.Last > other.Last {
			other = p
		}
		if same && p.Last > best.Last {
			best = p
		}
	}
	weigh(Peer{ID: s.id, At: s.clock, Report: s.state()})
	for i := range s.peers {
		if p := &s.peers[i]; p.ID != s.id {
			weigh(p.Peer)
		}
	}
	if best.Rate == 0 {
		return other
	}
	return best
}

// enter begins a turn with what was learned in the turns before.
func (s *Sharing) enter(now time.Time) {
	t := &s.turn
	again := t.holding && t.seat == s.view.seat && t.under == s.plan && t.slot >= s.view.slot-1
	if again {
		t.slot = s.view.slot
		return
	}
	b := s.best(s.view.seat)
	if b.Rate == 0 {
		list, _ := s.members(s.moment(now))
		b.Rate, b.Growth = max(takenOf(list)/float64(s.plan.Seats), minFloor), stepGrowth
	}
	*t = turn{under: s.plan, slot: s.view.slot, seat: s.view.seat, began: now, base: b, holding: true}
	s.spare = false
	s.law.resume(b.Rate, b.Growth, b.Quiet, now, s.firstCall(now))
	s.law.back.excess, s.law.back.edge = b.Excess, b.Edge
}

// firstCall is when the first call of a turn may begin: an interval after the last
// one of the turn before, in so far as that is known.
func (s *Sharing) firstCall(now time.Time) time.Time {
	b := &s.turn.base
	begin := slotStart(s.turn.slot, s.plan.Slot)
	first := b.Last.addSeconds(1 / b.Rate)
	if b.At < begin { // it may have called since
		part := 1.0 // of an interval
		if b.Rate > keepsOne {
			part = 0.5 // one too early does no harm
		}
		first = max(first, begin.addSeconds(part/b.Rate))
	}
	if t := s.at(first); t.After(now) {
		return t
	}
	return now
}

// rebase takes in what was learned at the end of the turn before, which reaches
// this worker only when its own has begun.
func (s *Sharing) rebase(now time.Time) {
	t := &s.turn
	if !t.holding || t.under != s.plan {
		return
	}
	ended := slotStart(t.slot, s.plan.Slot).add(time.Second) // clocks differ a little
	for i := range s.peers {
		p := &s.peers[i]
		if p.ID == s.id || p.Under != s.plan || p.Seat != t.seat || p.Last > ended || p.Last < t.base.Last || p.At <= t.base.At {
			continue
		}
		if !s.law.cut.After(t.began) && t.base.Rate > 0 {
			s.law.rate = min(max(s.law.rate*p.Rate/t.base.Rate, minFloor), s.law.ceiling)
			s.law.growth = p.Growth
			s.law.quiet = max(0, s.law.quiet+p.Quiet-t.base.Quiet)
		}
		t.base = p.Peer
		if s.law.resumed() {
			s.law.next = s.firstCall(now)
			s.law.last = s.law.next.Add(-seconds(1 / s.law.rate))
		}
	}
}

// Begin is as [Limiter.Begin].
func (s *Sharing) Begin(now time.Time, more bool) {
	if !s.plan.together() && s.view.seat < 0 {
		s.turn.under, s.turn.holding = Plan{}, false // out of turn: what it learns is nobody's
	}
	s.spare = s.spare || !more
	s.fade(now)
	s.taken++
	s.law.Begin(now, more)
}

// Accepted is as [Limiter.Accepted].
func (s *Sharing) Accepted(now, began time.Time) { s.law.Accepted(now, began) }

// Lost is as [Limiter.Lost].
func (s *Sharing) Lost(now, began time.Time) { s.law.Lost(now, began) }

// Throttled is as [Limiter.Throttled].
func (s *Sharing) Throttled(now, began time.Time, retryAfter time.Duration) {
	s.fade(now)
	s.taken = max(0, s.taken-1)
	s.law.Throttled(now, began, retryAfter)
}

// Rate is what this worker gets of the lane, in calls a minute: its own rate, or
// its share over all turns.
func (s *Sharing) Rate() float64 {
	if s.plan.together() || s.view.members == 0 {
		return s.law.Rate()
	}
	return 60 * s.best(-1).Rate * float64(s.plan.Seats) / float64(s.view.members)
}

func (s *Sharing) fade(now time.Time) {
	s.taken *= math.Exp(-max(0, now.Sub(s.takenAt).Seconds()) / takenTime.Seconds())
	s.takenAt = now
}

// takenRate is Taken. A worker that has just started has had less time.
func (s *Sharing) takenRate() float64 {
	age := max(time.Second, s.takenAt.Sub(s.started))
	return min(s.taken/(takenTime.Seconds()*(1-math.Exp(-age.Seconds()/takenTime.Seconds()))), maxRate)
}

func takenOf(list []*peer) float64 {
	sum := 0.0
	for _, p := range list {
		sum += p.Taken
	}
	return sum
}
