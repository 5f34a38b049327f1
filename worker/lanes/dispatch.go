package lanes

import "time"

// never is a wait that only an event ends.
const never = time.Duration(-1)

// dispatch hands out whatever may be handed out now, and sets the timer for what comes next. It is called after each event:
// somebody came or went, a call ended, a lane changed, or the timer fired. It costs a look at each lane that somebody waits for.
func (s *Set) dispatch(now time.Time) {
	s.hasten(now)
	for {
		l, w, wake := s.pick(now)
		if w == nil {
			s.arm(now, wake)
			return
		}
		s.grant(l, w, now)
	}
}

// hasten moves the waiters whose deadline presses more than before.
func (s *Set) hasten(now time.Time) {
	for w := s.turns.first(); w != nil && !w.turn.After(now); w = s.turns.first() {
		s.remove(w)
		if err := s.place(w, now); err != nil {
			w.fail(err)
		}
	}
}

// pick returns who is to be served next and by which lane: who has waited longest of those that may be served at all. If there is
// nobody, it returns when there may be; the zero time stands for never.
func (s *Set) pick(now time.Time) (best *lane, first *waiter, wake time.Time) {
	if next := s.turns.first(); next != nil {
		wake = next.turn
	}
	if s.inFlight >= s.max {
		return nil, nil, wake
	}
	rank := 0 // of best among the lanes of first
	for _, l := range s.lanes {
		if len(l.groups) == 0 {
			continue
		}
		w, place, at := l.candidate(now)
		wait := l.wait(now)
		if w == nil || wait != 0 {
			if ready := now.Add(wait); wait != never {
				wake = earlier(wake, later(ready, at))
			}
			continue
		}
		if first == nil || w == first && place < rank || w != first && w.before(first) {
			best, first, rank = l, w, place
		}
	}
	return best, first, wake
}

// earlier returns the earlier of two times, where zero stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// wait returns how long the lane takes no further call. A shut lane is nobody's option.
func (l *lane) wait(now time.Time) time.Duration {
	if l.inFlight >= l.max {
		return never
	}
	return max(l.pacer.Wait(now), l.breaker.wait(now), 0)
}

// candidate returns who is to have the lane's next call, and the lane's place among that job's lanes: those first for whom it is the first
// choice, then whoever has waited longest. If there is nobody yet, it returns when there will be. Somebody must be waiting for the lane.
func (l *lane) candidate(now time.Time) (best *waiter, place int, at time.Time) {
	home := false
	for _, seat := range l.groups {
		w := seat.group.waiters.first()
		o := &seat.group.options[seat.place]
		if may := w.since.Add(o.after); may.After(now) {
			at = earlier(at, may)
			continue
		}
		if best == nil || o.home && !home || o.home == home && w.before(best) {
			best, place, home = w, seat.place, o.home
		}
	}
	if best != nil {
		at = now
	}
	return best, place, at
}

// grant gives a waiter its permit.
func (s *Set) grant(l *lane, w *waiter, now time.Time) {
	s.remove(w)
	l.inFlight++
	s.inFlight++
	l.called = now
	l.pacer.Begin(now, s.more(l, now))
	w.permit = &permit{set: s, lane: l, job: w.job, began: now, waited: now.Sub(w.since), epoch: l.breaker.begin(now)}
	close(w.told)
}

// more reports whether nothing but its pace keeps a lane from another call. Neither too little demand nor a bound on the calls in flight
// says anything about what the service would take.
func (s *Set) more(l *lane, now time.Time) bool {
	if len(l.groups) == 0 || l.inFlight >= l.max || s.inFlight >= s.max {
		return false
	}
	another, _, _ := l.candidate(now)
	return another != nil
}

// arm sets the timer, or stops it when there is nothing to wait for.
func (s *Set) arm(now, wake time.Time) {
	if s.wake.Equal(wake) {
		return
	}
	s.wake = wake
	switch {
	case wake.IsZero():
		s.timer.Stop()
	case s.timer == nil:
		s.timer = time.AfterFunc(wake.Sub(now), s.ring)
	default:
		s.timer.Reset(wake.Sub(now))
	}
}

// ring is called by the timer.
func (s *Set) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake = time.Time{}
	s.dispatch(time.Now())
}
