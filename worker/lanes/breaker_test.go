package lanes

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// breakLane makes calls fail until the lane is broken.
func breakLane(t *testing.T, s *Set, name string, job func() *jobs.Job) {
	t.Helper()
	for range breakAfter {
		p := take(t, s, job())
		if p.Lane().Name != name {
			t.Fatalf("went by %s, not by %s", p.Lane().Name, name)
		}
		p.End(failed(worker.Failing, 500))
	}
	if got := s.byName[name].breaker.state; got != Broken {
		t.Fatalf("lane %s is %s after %d failures", name, got, breakAfter)
	}
}

func newBreaker() *breaker { return &breaker{jitter: rand.New(rand.NewPCG(1, 2))} }

func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	repeat := func(n int, rs ...result) (all []result) {
		for range n {
			all = append(all, rs...)
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		calls []result
		after int // calls after which it is broken; 0: never
	}{
		{"ten failures in a row", repeat(10, failing), 10},
		{"nine failures and a success", repeat(10, append(repeat(9, failing), working)...), 0},
		{"what says nothing does not break a row", append(append(repeat(9, failing), unknown), failing), 11},
		{"eight lost in a row", repeat(10, lost), 8},
		{"every third is lost", repeat(20, working, working, lost), 24},
		{"every fifth is lost", repeat(100, working, working, working, working, lost), 0},
		{"failures among successes", repeat(100, failing, working), 0},
		{"failures and losses", append(repeat(5, failing), repeat(5, lost)...), 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, broke := newBreaker(), 0
			for i, r := range tt.calls {
				if b.end(b.begin(now), r, now) {
					broke = i + 1
					break
				}
			}
			if broke != tt.after || (b.state == Broken) != (tt.after > 0) {
				t.Errorf("broke after %d calls, want %d; %s", broke, tt.after, b.state)
			}
		})
	}
}

func TestBreakerTriesAgain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	b := newBreaker()
	early := b.begin(now)
	for range breakAfter {
		b.end(b.begin(now), failing, now)
	}
	// Calls that began before the lane broke say nothing new.
	if b.end(early, working, now) || b.end(early, failing, now) || b.state != Broken {
		t.Fatalf("an early call changed the state to %s", b.state)
	}
	for i, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		pause *= time.Second
		wait := b.wait(now)
		if wait < pause/2 || wait > pause {
			t.Errorf("pause %d is %s, want %s to %s", i, wait, pause/2, pause)
		}
		now = now.Add(wait)
		if b.wait(now) != 0 {
			t.Fatal("the pause is not over at its end")
		}
		epoch := b.begin(now)
		if b.state != Probing || b.wait(now) != probePatience {
			t.Fatalf("%s, the next try in %s", b.state, b.wait(now))
		}
		r := failing
		if i%2 == 1 {
			r = lost
		}
		if !b.end(epoch, r, now) || b.state != Broken {
			t.Fatalf("after a failed try: %s", b.state)
		}
	}
	now = now.Add(b.wait(now))
	if !b.end(b.begin(now), unknown, now) || b.state != Broken || b.wait(now) != 0 {
		t.Fatalf("a try that was not made: %s, the next in %s", b.state, b.wait(now))
	}
	hangs := b.begin(now)
	now = now.Add(probePatience)
	if b.wait(now) != 0 {
		t.Fatal("a call that hangs keeps others from trying")
	}
	if !b.end(b.begin(now), working, now) || b.state != Open || b.wait(now) != 0 {
		t.Fatalf("after a try that worked: %s", b.state)
	}
	if b.end(hangs, lost, now) || b.state != Open {
		t.Fatalf("an old try changed the state to %s", b.state)
	}
	for range breakAfter {
		b.end(b.begin(now), failing, now)
	}
	if got := b.wait(now); got > firstBreak {
		t.Errorf("the first pause after a recovery is %s", got)
	}
}

// A broken lane is tried with one job at a time, and when it works again, all who wait are served.
func TestBrokenLane(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, pacers := paced(nil)
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		breakLane(t, s, "global/standard", func() *jobs.Job { return newJob("x", pro) })
		q := newQueue(s)
		q.add(t.Context(), newJob("a", pro))
		q.want(t)
		pass(firstBreak)
		if len(q.got) != 1 || s.Snapshot()[0].State != Probing {
			t.Fatalf("got %q, %+v", q.got, s.Snapshot()[0])
		}
		q.end("a", failed(worker.Unreached, 0))
		if s.Snapshot()[0].State != Broken {
			t.Fatalf("%+v", s.Snapshot()[0])
		}
		// A job that failed comes back behind the others: else it would try until its calls are used up.
		for _, id := range []string{"b", "c", "a"} {
			q.add(t.Context(), newJob(id, pro))
		}
		pass(2 * firstBreak)
		if len(q.got) != 2 || q.all["b"] == nil {
			t.Fatalf("got %q", q.got)
		}
		q.end("b", failed(worker.Throttled, 429)) // an answer, if an unfriendly one
		pass(time.Second)
		if got := s.Snapshot()[0]; len(q.got) != 4 || got.State != Open || got.Why != "" {
			t.Fatalf("got %q, %+v", q.got, got)
		}
		if p := pacers["global/standard"]; p.lost != breakAfter+1 || p.throttled != 1 {
			t.Errorf("pacer: %+v", p)
		}
		q.end("a", nil)
		q.end("c", nil)
		balance(t, s)
	})
}
