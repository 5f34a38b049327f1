package pace

import (
	"math"
	"time"
)

// How a lane is divided.
const (
	// A slot is long enough for the report on the turn before to arrive in it, and for
	// slotCalls calls, so that what is lost between two turns is little. maxSlot bounds
	// how long jobs wait for their turn.
	minSlot   = 16 * time.Second
	maxSlot   = 64 * time.Second
	slotCalls = 20.0
	// turnShare is the part of a worker's calls in flight that one turn may take: calls
	// of earlier turns are still under way.
	turnShare = 0.5
	// seatRate is what a seat should have, in calls a second. Fewer seats are throttled
	// less. With more of them turns come sooner, and throttles that have nothing to do
	// with the rate, which a seat bears like a worker alone, cost the lane less.
	seatRate = 6.0
	// ceilingRoom is how much more than their rate seats must be allowed by the workers'
	// configured ceilings. With less, it is the ceiling that binds: there must be more.
	ceilingRoom = 1.1
	// levelling is the part of the way to the mean rate that a worker goes with each
	// look at the others.
	levelling = 0.4
	// planLag is how long before it comes into force a plan is told.
	planLag = 12 * time.Second
)

// advance puts the plan into force whose time has come. A worker that has heard
// nothing for too long calls as it would alone, at its share.
func (s *Sharing) advance(now time.Time) {
	m := s.moment(now)
	if s.next.From != 0 && s.next.From <= m {
		s.change(now, s.next)
		s.next = Plan{}
	}
	if !s.plan.together() && m.sub(s.clock) > blindAfter {
		s.change(now, Plan{From: m})
		s.next = Plan{}
	}
}

// change puts a plan into force.
func (s *Sharing) change(now time.Time, p Plan) {
	if p == s.plan {
		return
	}
	switch old := s.plan; {
	case p.together() && !old.together():
		list, _ := s.members(s.moment(now))
		if b := s.best(-1); b.Rate > 0 {
			s.law.resume(b.Rate*float64(old.Seats)/float64(max(1, len(list))), b.Growth, b.Quiet, now, now)
		}
		s.turn = turn{}
	case old.together() && !p.together():
		s.turnsSince = p.From
	}
	s.turn.holding = false
	s.plan, s.spare, s.view.fresh = p, false, false
}

// follow takes over the leader's plan, or makes it. The leader is the first of the
// members. It alone decides, since others may see a rate or a number of members that
// differs just enough for another plan.
func (s *Sharing) follow(now time.Time, first bool) {
	m := s.moment(now)
	list, me := s.members(m)
	if len(list) == 0 {
		return
	}
	s.level(list, me)
	if me == 0 {
		s.lead(m, list)
		return
	}
	switch leader := list[0]; {
	case leader.Next.From > m:
		s.change(now, leader.Plan)
		s.next = leader.Next
	case leader.Next.From != 0:
		s.change(now, leader.Next)
		s.next = Plan{}
	default:
		s.change(now, leader.Plan)
		s.next = Plan{}
	}
	if first && s.plan.together() {
		s.begin(list)
	}
}

// begin gives a newcomer its share of what the others have found.
func (s *Sharing) begin(list []*peer) {
	sum := 0.0
	for _, p := range list {
		sum += p.Rate
	}
	s.law.rate = min(max(s.law.rate, sum/float64(len(list)+1)), s.law.ceiling)
	s.law.growth = 0
}

// level moves this worker's rate towards the mean of all who call together, so that
// they come to equal shares sooner than by what throttles tell. Reports are seconds
// old: while anybody searches, they say nothing about now.
func (s *Sharing) level(list []*peer, me int) {
	if !s.plan.together() || me < 0 || len(list) < 2 || s.law.growth > calm {
		return
	}
	sum := 0.0
	for _, p := range list {
		if p.Growth > calm || !p.Plan.together() {
			return
		}
		sum += math.Log(p.Rate)
	}
	towards := sum/float64(len(list)) - math.Log(list[me].Rate) // of the same age as the others' reports
	s.law.rate = min(max(s.law.rate*math.Exp(levelling*towards), minFloor), s.law.ceiling)
}

// lead decides whether the lane is to be shared in another way.
func (s *Sharing) lead(m Moment, list []*peer) {
	if s.next.From != 0 {
		return
	}
	spare := 0
	for _, p := range list {
		if p.Spare {
			spare++
		}
	}
	p := s.plan
	switch n := len(list); {
	case s.plan.together() && n < 2: // nobody to share with
	case !s.plan.together() && 2*spare > n: // there are too few jobs for it to matter
		p = Plan{}
	default:
		p.Seats, p.Slot = s.fit(s.total(list), n)
	}
	if p.Seats == s.plan.Seats && p.Slot == s.plan.Slot {
		return
	}
	p.From = slotStart(m.add(planLag).slot(minSlot)+1, minSlot)
	s.next = p
}

// total is what the lane gives in calls a second.
func (s *Sharing) total(list []*peer) float64 {
	if s.plan.together() {
		return takenOf(list)
	}
	sum := 0.0
	for q := range s.plan.Seats {
		sum += s.best(q).Rate
	}
	return sum
}

// fit returns the seats and the slots for a lane of so many calls a second and n
// members; no seats when all may as well call together. It keeps what is nearly
// right, because each change costs a few calls.
func (s *Sharing) fit(total float64, n int) (seats int, slot time.Duration) {
	total = max(total, minFloor)
	want := total / seatRate
	least := max(total*minSlot.Seconds()/(turnShare*s.capacity), ceilingRoom*total/s.law.ceiling)
	seats, slot = s.plan.Seats, s.plan.Slot
	if x := float64(seats); x < max(least, 0.6*want) || x > max(1.4*least, 1.2*want, 1) {
		seats = max(1, int(0.9*want), int(math.Ceil(1.2*least)))
	}
	if seats >= n {
		return 0, 0
	}
	rate := total / float64(seats)
	calls := rate * slot.Seconds()
	if slot == 0 || calls < 0.6*slotCalls && slot < maxSlot || calls > 3*slotCalls && slot > minSlot {
		for slot = minSlot; slot < maxSlot && rate*slot.Seconds() < slotCalls; slot *= 2 {
		}
	}
	return seats, slot
}
