package pace

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// fleet is workers that hear each other's reports at once and without loss, all five seconds.
type fleet struct {
	now     time.Time
	ahead   time.Duration // of the shared clock
	workers []*Sharing
	waiting []bool
	deaf    []bool
}

func newFleet(n int) *fleet { return newBoundedFleet(n, 0) }

// newBoundedFleet is a fleet whose workers have a configured ceiling.
func newBoundedFleet(n int, perMinute float64) *fleet {
	f := &fleet{now: epoch, ahead: 7 * time.Minute}
	for i := range n {
		f.workers = append(f.workers, NewSharing(Config{Seed: uint64(i), MaxPerMinute: perMinute}, "lane", fmt.Sprintf("w%d", i), 3200, f.now))
		f.waiting, f.deaf = append(f.waiting, true), append(f.deaf, false)
	}
	return f
}

func (f *fleet) clock() Moment { return MomentOf(f.now.Add(f.ahead)) }

// gossip lets all tell and hear.
func (f *fleet) gossip() {
	var all []Peer
	for i, w := range f.workers {
		all = append(all, Peer{fmt.Sprintf("w%d", i), f.clock(), w.Report(f.now, f.waiting[i])})
	}
	for i, w := range f.workers {
		if !f.deaf[i] {
			w.Hear(f.now, f.clock(), all)
		}
	}
}

// run plays for a time in steps of 20 ms. Each worker calls when it may, and take says which calls the service takes.
func (f *fleet) run(d time.Duration, take func(worker int) bool) {
	const step = 20 * time.Millisecond
	for end := f.now.Add(d); f.now.Before(end); f.now = f.now.Add(step) {
		if f.now.Sub(epoch)%reportEvery == 0 {
			f.gossip()
		}
		for i, w := range f.workers {
			if f.waiting[i] && w.Wait(f.now) == 0 {
				w.Begin(f.now, true)
				if take(i) {
					w.Accepted(f.now, f.now)
				} else {
					w.Throttled(f.now, f.now, 0)
				}
			}
		}
	}
}

const reportEvery = 5 * time.Second

// bucket takes so many calls a second.
func (f *fleet) bucket(perSecond float64) func(int) bool {
	tokens, at := 1.0, f.now
	return func(int) bool {
		tokens = min(max(1, perSecond/4), tokens+perSecond*f.now.Sub(at).Seconds())
		at = f.now
		if tokens < 1 {
			return false
		}
		tokens--
		return true
	}
}

func TestTurnsAreSharedOut(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 7, 20} {
		f := newFleet(n)
		took := make([]float64, n)
		take := f.bucket(1)
		f.run(2*time.Minute, take)
		plan := f.workers[0].plan
		if plan.Seats != 1 {
			t.Fatalf("%d workers on a lane of one call a second follow %+v, want one seat", n, plan)
		}
		slots := map[int64]int{}
		f.run(time.Duration(n)*plan.Slot*2, func(i int) bool {
			took[i]++
			slots[f.clock().slot(plan.Slot)] |= 1 << i
			return take(i)
		})
		for i, w := range f.workers {
			if w.plan != plan {
				t.Errorf("%d workers: w%d follows %+v, w0 %+v", n, i, w.plan, plan)
			}
			if mean := 2 * plan.Slot.Seconds(); took[i] < 0.6*mean || took[i] > 1.5*mean {
				t.Errorf("%d workers: w%d made %.0f calls, the mean is %.0f", n, i, took[i], mean)
			}
		}
		for slot, who := range slots {
			if who&(who-1) != 0 {
				t.Errorf("%d workers: in slot %d several of them called: %b", n, slot, who)
			}
		}
	}
}

func TestSeatsAreTakenOnceEach(t *testing.T) {
	t.Parallel()
	f := newFleet(9)
	f.run(2*time.Minute, f.bucket(20))
	plan := f.workers[0].plan
	if plan.Seats < 2 || plan.Seats > 5 {
		t.Fatalf("a lane of 20 calls a second has %d seats, want 2 to 5", plan.Seats)
	}
	had := make([]int, 9)
	for range 18 {
		f.now = f.now.Add(plan.Slot)
		f.gossip()
		seats := map[int]bool{}
		for i, w := range f.workers {
			w.Wait(f.now)
			if q := w.view.seat; q >= 0 {
				if seats[q] {
					t.Fatalf("seat %d is taken twice", q)
				}
				seats[q] = true
				had[i]++
			}
		}
		if len(seats) != plan.Seats {
			t.Fatalf("%d seats are taken, want %d", len(seats), plan.Seats)
		}
	}
	for i, n := range had {
		if n != 2*plan.Seats {
			t.Errorf("w%d had %d turns in 18 slots, want %d", i, n, 2*plan.Seats)
		}
	}
}

// A worker whose beats stop loses its turns to the others, and one without jobs does so at once.
func TestWhoIsGoneHasNoTurns(t *testing.T) {
	t.Parallel()
	f := newFleet(3)
	f.run(3*time.Minute, f.bucket(1))
	f.waiting[1] = false
	f.run(time.Minute, f.bucket(1))
	w := f.workers[0]
	w.look(f.clock())
	if w.view.members != 2 {
		t.Errorf("%d members, want the 2 that have jobs", w.view.members)
	}
	for _, age := range []time.Duration{staleAfter - time.Second, staleAfter + time.Second} {
		all := []Peer{
			{"w0", f.clock(), w.Report(f.now, true)},
			{"w2", f.clock().add(-age), f.workers[2].Report(f.now, true)},
		}
		w.Hear(f.now, f.clock(), all)
		list, me := w.members(f.clock())
		if want := map[bool]int{true: 2, false: 1}[age < staleAfter]; len(list) != want || me < 0 {
			t.Errorf("w2 was heard of %v ago: %d members, want %d", age, len(list), want)
		}
	}
}

func TestNobodyWantsTurnsWhereJobsAreFew(t *testing.T) {
	t.Parallel()
	f := newFleet(3)
	f.run(3*time.Minute, f.bucket(1))
	for _, w := range f.workers {
		if w.plan.together() {
			t.Fatal("no turns are taken on a narrow lane")
		}
		w.spare = true
	}
	for range 12 {
		f.now = f.now.Add(reportEvery)
		f.gossip()
		for _, w := range f.workers {
			w.advance(f.now)
			w.spare = true
		}
	}
	sum := 0.0
	for i, w := range f.workers {
		if !w.plan.together() {
			t.Errorf("w%d still takes turns, by %+v", i, w.plan)
		}
		sum += w.Rate()
	}
	if sum < 40 || sum > 70 {
		t.Errorf("together they would make %.0f calls a minute, want about the lane's 60", sum)
	}
}

func TestNewcomerBeginsWithItsShare(t *testing.T) {
	t.Parallel()
	w := NewSharing(Config{}, "lane", "new", 3200, epoch)
	if got := w.Wait(epoch); got != firstHearing {
		t.Errorf("before it has heard of the others it waits %v, want %v", got, firstHearing)
	}
	clock := MomentOf(epoch)
	var all []Peer
	for i := range 4 {
		all = append(all, Peer{fmt.Sprintf("w%d", i), clock, Report{Rate: 10, Wants: true, Since: clock.add(-time.Hour)}})
	}
	w.Hear(epoch, clock, all)
	if got := w.Rate(); got < 479 || got > 481 {
		t.Errorf("begins with %.0f calls a minute beside four of 600, want 480", got)
	}
	alone := NewSharing(Config{}, "lane", "new", 3200, epoch)
	if got := alone.Wait(epoch.Add(firstHearing)); got > time.Second {
		t.Errorf("who hears nothing for %v waits %v more", firstHearing, got)
	}
}

// A ceiling is each worker's own. Turns must not make it the lane's.
func TestCeilingsAddUp(t *testing.T) {
	t.Parallel()
	f := newBoundedFleet(4, 30)
	calls := 0
	count := func(int) bool { calls++; return true }
	f.run(5*time.Minute, count)
	calls = 0
	f.run(5*time.Minute, count)
	if calls < 500 || calls > 605 {
		t.Errorf("four workers of 30 calls a minute make %d in five minutes, want 600", calls)
	}
}

// A worker that goes deaf keeps to its turns for a while, and then calls as it would alone, at its share.
func TestDeaf(t *testing.T) {
	t.Parallel()
	f := newFleet(4)
	f.run(3*time.Minute, f.bucket(2))
	f.deaf[2] = true
	take := f.bucket(2)
	f.run(blindAfter-10*time.Second, take)
	w := f.workers[2]
	if w.plan != f.workers[0].plan {
		t.Errorf("deaf, it follows %+v, the others %+v", w.plan, f.workers[0].plan)
	}
	f.run(15*time.Second, take)
	if !w.plan.together() {
		t.Error("deaf for long, it still counts on the others")
	}
	if got := w.Rate(); got > 80 {
		t.Errorf("deaf for long, it takes %.0f calls a minute of 120 that four share", got)
	}
}

func TestFewJobsNeedNoTurn(t *testing.T) {
	t.Parallel()
	f := newFleet(3)
	f.waiting[0] = false
	f.run(3*time.Minute, f.bucket(1))
	w := f.workers[0]
	if w.plan.together() {
		t.Fatal("no turns are taken on a narrow lane")
	}
	if got := w.Wait(f.now); got != 0 {
		t.Fatalf("a single job waits %v", got)
	}
	w.Begin(f.now, false)
	if got := w.Wait(f.now); got == 0 {
		t.Error("and the next one does not wait at all")
	}
	if w.turn.under != (Plan{}) {
		t.Error("what a call out of turn teaches is told as the lane's rate")
	}
}

// Whatever is heard and told in whatever order, the invariants of the limiter hold.
func TestSharingInvariants(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		cfg, ceiling := Config{Seed: seed}, math.Inf(1)
		if seed%3 == 0 {
			cfg.MaxPerMinute = 10 + 1000*rng.Float64()
			ceiling = cfg.MaxPerMinute
		}
		now := epoch
		s := NewSharing(cfg, "lane", "w0", 1+rng.IntN(3200), now)
		for range 1500 {
			switch event := tellAny(rng, s, now, callEvents+3); {
			case event == callEvents:
				clock := MomentOf(now.Add(time.Duration(rng.IntN(3)-1) * time.Second))
				s.Hear(now, clock, hearsay(rng, clock, s.Report(now, rng.IntN(3) > 0)))
			case event > callEvents:
				now = now.Add(time.Duration(math.Exp(26 * rng.Float64())))
			}
			if w := s.Wait(now); w < 0 || w > maxWait {
				t.Fatalf("seed %d: Wait is %v", seed, w)
			}
			if r := s.law.Rate(); !(r > 0) || r > ceiling*(1+1e-9) || math.IsInf(s.Rate(), 0) || !(s.Rate() >= 0) {
				t.Fatalf("seed %d: the rate is %v, the share %v, the ceiling %v", seed, r, s.Rate(), ceiling)
			}
			if r := s.Report(now, true); !r.Valid(s.moment(now).add(skew)) && s.heard {
				t.Fatalf("seed %d: what it tells is not valid: %+v", seed, r)
			}
		}
	}
}

// hearsay is valid reports of some workers with nothing else to be said for them, and maybe the worker's own.
func hearsay(rng *rand.Rand, clock Moment, own Report) []Peer {
	var all []Peer
	if rng.IntN(4) > 0 {
		all = append(all, Peer{"w0", clock, own})
	}
	ago := func() Moment { return clock.add(-time.Duration(rng.IntN(100)) * time.Second) }
	plan := func() Plan {
		return Plan{rng.IntN(4), minSlot << rng.IntN(3), ago().add(30 * time.Second)}
	}
	for i := range rng.IntN(6) {
		p := Peer{fmt.Sprintf("w%d", i+1), ago(), Report{
			Rate: math.Exp(12*rng.Float64() - 6), Growth: 0.3 * rng.Float64(), Quiet: 1000 * rng.Float64(), Taken: 100 * rng.Float64(), Seat: rng.IntN(4),
			Under: plan(), Last: ago(), Plan: plan(), Next: plan(), Wants: rng.IntN(3) > 0, Since: ago(), Spare: rng.IntN(3) == 0,
		}}
		if p.Valid(clock) {
			all = append(all, p)
		}
	}
	return all
}

func TestReportsFromOutside(t *testing.T) {
	t.Parallel()
	clock := MomentOf(epoch)
	turns := Plan{2, 32 * time.Second, clock.add(-time.Minute)}
	good := Report{Rate: 2, Growth: 0.1, Quiet: 3, Taken: 1.5, Seat: 1, Under: turns, Last: clock, Plan: turns, Next: Plan{From: clock.add(20 * time.Second)}, Wants: true, Since: clock.add(-time.Hour),
		Excess: 1.5, Edge: 2.5, Calls: 1234.5, Throttles: -1.25, Ease: clock}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || back != good {
		t.Errorf("through JSON: %+v, %v, want %+v", back, err, good)
	}
	if len(text) > 400 {
		t.Errorf("a report takes %d bytes: %s", len(text), text)
	}
	for name, spoil := range map[string]func(*Report){
		"":                 func(*Report) {},
		"no rate":          func(r *Report) { r.Rate = 0 },
		"rate":             func(r *Report) { r.Rate = 1e9 },
		"negative growth":  func(r *Report) { r.Growth = -1 },
		"growth":           func(r *Report) { r.Growth = 5 },
		"not a number":     func(r *Report) { r.Quiet = math.NaN() },
		"taken":            func(r *Report) { r.Taken = math.Inf(1) },
		"seat":             func(r *Report) { r.Seat = -1 },
		"seats":            func(r *Report) { r.Plan.Seats = 1 << 40 },
		"negative seats":   func(r *Report) { r.Under.Seats = -1 },
		"no slot":          func(r *Report) { r.Plan.Slot = 0 },
		"odd slot":         func(r *Report) { r.Plan.Slot = 17 * time.Second },
		"plan in a year":   func(r *Report) { r.Next.From = clock.add(365 * 24 * time.Hour) },
		"plan before 1970": func(r *Report) { r.Next.From = -1 },
		"last in an hour":  func(r *Report) { r.Last = clock.add(time.Hour) },
		"excess":           func(r *Report) { r.Excess = math.Inf(1) },
		"edge":             func(r *Report) { r.Edge = math.NaN() },
		"negative calls":   func(r *Report) { r.Calls = -1 },
		"throttles":        func(r *Report) { r.Throttles = math.NaN() },
		"fewer throttles":  func(r *Report) { r.Throttles = -1e9 },
		"slow in a day":    func(r *Report) { r.Ease = clock.add(24 * time.Hour) },
		"since tomorrow":   func(r *Report) { r.Since = clock.add(24 * time.Hour) },
	} {
		r := good
		spoil(&r)
		if got := r.Valid(clock); got != (name == "") {
			t.Errorf("%q: valid is %v", name, got)
		}
	}
}
