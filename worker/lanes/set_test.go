package lanes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// queue is callers of Next that wait, and what they got in the order in which they got it.
type queue struct {
	s     *Set
	start time.Time
	wg    sync.WaitGroup

	mu  sync.Mutex
	got []string // "job lane seconds", or "job error"
	all map[string]worker.Permit
}

func newQueue(s *Set) *queue {
	return &queue{s: s, start: time.Now(), all: map[string]worker.Permit{}}
}

// add lets a job wait, and returns when it does.
func (q *queue) add(ctx context.Context, j *jobs.Job) {
	q.wg.Go(func() {
		p, err := q.s.Next(ctx, j)
		q.mu.Lock()
		defer q.mu.Unlock()
		if err != nil {
			q.got = append(q.got, j.ID+" "+err.Error())
			return
		}
		q.got = append(q.got, fmt.Sprintf("%s %s %g", j.ID, p.Lane().Name, time.Since(q.start).Seconds()))
		q.all[j.ID] = p
	})
	synctest.Wait()
}

func (q *queue) end(id string, err error) {
	q.mu.Lock()
	p := q.all[id]
	q.mu.Unlock()
	p.End(err)
	synctest.Wait()
}

func (q *queue) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if diff := cmp.Diff(want, q.got); diff != "" {
		t.Errorf("at %s: %s", time.Since(q.start), diff)
	}
}

// last asserts how many are told, and how what the last one was told begins.
func (q *queue) last(t *testing.T, n int, prefix string) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.got) != n || !strings.HasPrefix(q.got[n-1], prefix) {
		t.Errorf("got %q, want %d, the last beginning with %q", q.got, n, prefix)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

func TestFirstComeFirstServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, pacers := paced(map[string]time.Duration{"global/standard": time.Second})
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		q := newQueue(s)
		for _, id := range []string{"a", "b", "c", "d"} {
			q.add(t.Context(), newJob(id, pro))
		}
		pass(10 * time.Second)
		q.want(t, "a global/standard 0", "b global/standard 1", "c global/standard 2", "d global/standard 3")
		// The last call is one for which nobody waits; at the first, nobody waited yet.
		if got := pacers["global/standard"].more; !slices.Equal(got, []bool{false, true, true, false}) {
			t.Errorf("more: %v", got)
		}
		for _, id := range []string{"a", "b", "c", "d"} {
			q.end(id, nil)
		}
		balance(t, s)
	})
}

func TestCeilings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, pacers := paced(nil)
		opts.MaxInFlight = 3
		s := New(configOf(at(pro, "global", tierStandard, room(2)), at(flash, "global", tierStandard, named("flash"))), opts)
		q := newQueue(s)
		for _, id := range []string{"a", "b", "c"} {
			q.add(t.Context(), newJob(id, pro))
		}
		q.add(t.Context(), newJob("d", flash))
		pass(time.Second)
		q.add(t.Context(), newJob("e", flash)) // the process is full
		q.want(t, "a global/standard 0", "b global/standard 0", "d flash 0")
		pass(time.Second)
		q.end("d", nil) // c came before e, but its lane is full
		q.want(t, "a global/standard 0", "b global/standard 0", "d flash 0", "e flash 2")
		q.add(t.Context(), newJob("f", flash))
		q.add(t.Context(), newJob("g", flash))
		q.add(t.Context(), newJob("h", pro))
		q.end("a", nil)
		q.want(t, "a global/standard 0", "b global/standard 0", "d flash 0", "e flash 2", "c global/standard 2")
		for _, id := range []string{"e", "b", "c", "f", "g", "h"} {
			q.end(id, nil)
		}
		balance(t, s)
		// Each call but the last two began while others waited, but a bound on calls in flight kept them back.
		for name, p := range pacers {
			if len(p.more) != 4 || slices.Contains(p.more, true) {
				t.Errorf("lane %s was told that its pace is the bound: %v", name, p.more)
			}
		}
	})
}

func TestTheLongestWaitIsServedFirstWhenTheProcessIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, _ := paced(nil)
		opts.MaxInFlight = 1
		s := New(configOf(at(pro, "global", tierStandard), at(flash, "global", tierStandard, named("flash"))), opts)
		q := newQueue(s)
		q.add(t.Context(), newJob("a", pro))
		q.add(t.Context(), newJob("b", flash))
		pass(time.Second)
		q.add(t.Context(), newJob("c", pro))
		for _, id := range []string{"a", "b", "c"} {
			q.end(id, nil)
		}
		q.want(t, "a global/standard 0", "b flash 1", "c global/standard 1")
		balance(t, s)
	})
}

func TestEndedContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, pacers := paced(map[string]time.Duration{"global/standard": time.Minute})
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		why := errors.New("held too long")
		ctx, cancel := context.WithCancelCause(t.Context())
		q := newQueue(s)
		q.add(ctx, newJob("a", pro))
		q.add(ctx, newJob("b", pro, due(time.Hour)))
		q.add(t.Context(), newJob("c", pro))
		cancel(why)
		q.want(t, "a global/standard 0", "b held too long")
		if _, err := s.Next(ctx, newJob("d", pro)); !errors.Is(err, why) {
			t.Errorf("error %v", err)
		}
		pass(time.Minute)
		q.want(t, "a global/standard 0", "b held too long", "c global/standard 60")
		q.end("a", nil)
		q.end("c", nil)
		balance(t, s)
		if n := len(pacers["global/standard"].began); n != 2 {
			t.Errorf("%d calls began", n)
		}
	})
}

// A permit that is granted at the moment at which its caller goes does not stay in flight.
func TestPermitOfSomebodyWhoHasGone(t *testing.T) {
	t.Parallel()
	opts, pacers := paced(nil)
	s := New(configOf(at(pro, "global", tierStandard, room(1))), opts)
	first := take(t, s, newJob("a", pro))
	late, err := s.enter(newJob("b", pro))
	if err != nil {
		t.Fatal(err)
	}
	next, err := s.enter(newJob("c", pro))
	if err != nil {
		t.Fatal(err)
	}
	first.End(nil) // b is granted
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("gone")
	cancel(why)
	if err := s.leave(ctx, late); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	select {
	case <-next.told: // b's permit went on to c
		next.permit.Drop()
	default:
		t.Error("the permit is lost")
	}
	balance(t, s)
	if p := pacers["global/standard"]; p.accepted != 1 || p.lost != 0 || p.throttled != 0 {
		t.Errorf("a permit that was not used told the pacer something: %+v", p)
	}
}

func TestSpill(t *testing.T) {
	const flex, std, prov = "global/flex", "global/standard", "global/provisioned"
	lanes := []LaneConfig{at(pro, "global", tierProvisioned), at(pro, "global", tierFlex), at(pro, "global", tierStandard)}
	slow := map[string]time.Duration{prov: time.Hour, flex: time.Hour}
	begin := func(t *testing.T) (*Set, *queue, map[string]*even) {
		opts, pacers := paced(slow)
		s := New(configOf(lanes...), opts)
		// Provisioned has just taken a call, and takes none for an hour.
		take(t, s, newJob("x", pro)).End(nil)
		return s, newQueue(s), pacers
	}
	t.Run("from provisioned at once", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			_, q, _ := begin(t)
			q.add(t.Context(), newJob("a", pro))
			q.want(t, "a "+flex+" 0")
		})
	})
	t.Run("from provisioned that is throttled", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			opts, _ := paced(nil)
			s := New(configOf(lanes...), opts)
			p := take(t, s, newJob("a", pro))
			if p.Lane().Name != prov {
				t.Fatalf("went by %s", p.Lane().Name)
			}
			p.End(failed(worker.Throttled, 429))
			if got := take(t, s, newJob("a", pro)).Lane().Name; got != flex {
				t.Errorf("went by %s", got)
			}
		})
	})
	t.Run("from flex after a while", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s, q, _ := begin(t)
			q.add(t.Context(), newJob("a", pro))
			q.add(t.Context(), newJob("b", pro))
			pass(time.Minute)
			q.add(t.Context(), newJob("c", pro))
			pass(time.Minute - 1)
			q.want(t, "a "+flex+" 0")
			pass(1)
			q.want(t, "a "+flex+" 0", "b "+std+" 120")
			pass(time.Minute)
			q.want(t, "a "+flex+" 0", "b "+std+" 120", "c "+std+" 180")
			for _, id := range []string{"a", "b", "c"} {
				q.end(id, nil)
			}
			balance(t, s)
		})
	})
	t.Run("at once when the deadline leaves no time for flex", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s, q, _ := begin(t)
			q.add(t.Context(), newJob("a", pro))
			q.add(t.Context(), newJob("b", pro, due(20*time.Minute)))
			q.add(t.Context(), newJob("c", pro, due(31*time.Minute)))
			q.want(t, "a "+flex+" 0", "b "+std+" 0")
			pass(time.Minute)
			q.want(t, "a "+flex+" 0", "b "+std+" 0")
			pass(1)
			q.want(t, "a "+flex+" 0", "b "+std+" 0", "c "+std+" 60.000000001")
			for _, id := range []string{"a", "b", "c"} {
				q.end(id, nil)
			}
			balance(t, s)
		})
	})
	t.Run("at once from a broken lane", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			opts, _ := paced(nil)
			s := New(configOf(lanes[1:]...), opts)
			breakLane(t, s, flex, func() *jobs.Job { return newJob("x", pro) })
			if got := take(t, s, newJob("a", pro)).Lane().Name; got != std {
				t.Errorf("went by %s", got)
			}
		})
	})
	t.Run("waiters of a lane that breaks", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			opts, _ := paced(nil)
			s := New(configOf(at(pro, "global", tierFlex, room(breakAfter)), at(pro, "global", tierStandard)), opts)
			var calls []worker.Permit
			for range breakAfter {
				calls = append(calls, take(t, s, newJob("x", pro)))
			}
			q := newQueue(s)
			q.add(t.Context(), newJob("a", pro))
			for i, p := range calls {
				if i < breakAfter-1 {
					waits(t, s, newJob("y", pro, func(j *jobs.Job) { j.Size = "2K" }))
				}
				s.byName[flex].max-- // keeps the lane full
				p.End(failed(worker.Failing, 500))
			}
			q.want(t, "a "+std+" 0")
		})
	})
	t.Run("what was waited before a throttled call counts", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			_, q, pacers := begin(t)
			pacers[flex].next = time.Now().Add(90 * time.Second)
			q.add(t.Context(), newJob("a", pro))
			pass(90 * time.Second)
			q.want(t, "a "+flex+" 90")
			q.end("a", failed(worker.Throttled, 429))
			pacers[flex].next = time.Now().Add(time.Hour)
			q.add(t.Context(), newJob("a", pro))
			q.add(t.Context(), newJob("b", pro))
			pass(30 * time.Second)
			q.want(t, "a "+flex+" 90", "a "+std+" 120")
		})
	})
	t.Run("but not for ever", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			_, q, pacers := begin(t)
			pacers[flex].next = time.Now().Add(90 * time.Second)
			q.add(t.Context(), newJob("a", pro))
			pass(90 * time.Second)
			q.end("a", failed(worker.Throttled, 429))
			pacers[flex].next = time.Now().Add(time.Hour)
			pass(waitedFor + 1)
			q.add(t.Context(), newJob("a", pro))
			pass(119 * time.Second)
			q.want(t, "a "+flex+" 90")
		})
	})
}

// A job that loses its last lane as its deadline comes near is told, though it was waiting.
func TestDeadlineTakesTheLastLane(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, _ := paced(map[string]time.Duration{"global/flex": time.Hour})
		s := New(configOf(at(pro, "global", tierFlex)), opts)
		take(t, s, newJob("x", pro)).End(nil)
		q := newQueue(s)
		q.add(t.Context(), newJob("a", pro, due(40*time.Minute)))
		pass(10*time.Minute + time.Second)
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.got) != 1 || !strings.Contains(q.got[0], "is flex, whose calls may take 30 minutes") {
			t.Errorf("got %q", q.got)
		}
		balance(t, s)
	})
}

// A lane serves those first who have no better one.
func TestHomeComesFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		name := west4 + "/standard"
		opts, pacers := paced(map[string]time.Duration{"global/standard": time.Hour, name: time.Second})
		s := New(configOf(at(nano, "global", tierStandard), at(nano, west4, tierStandard)), opts)
		take(t, s, newJob("x", nano)).End(nil)
		pacers[name].next = time.Now().Add(10 * time.Second)
		q := newQueue(s)
		q.add(t.Context(), newJob("anywhere-1", nano))
		q.add(t.Context(), newJob("anywhere-2", nano))
		pass(time.Second)
		q.add(t.Context(), newJob("strict-1", nano, in(west4)))
		q.add(t.Context(), newJob("strict-2", nano, in(west4)))
		pass(time.Minute)
		q.want(t, "strict-1 "+name+" 10", "strict-2 "+name+" 11", "anywhere-1 "+name+" 12", "anywhere-2 "+name+" 13")
	})
}

// Lanes of one price are everybody's first choice.
func TestEqualLanesServeInTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, _ := paced(nil)
		small := at(pro, "global", tierStandard, named("small"), room(1))
		small.Sizes = []string{"1K"}
		s := New(configOf(small, at(pro, "global", tierStandard, named("any"), room(1))), opts)
		q := newQueue(s)
		q.add(t.Context(), newJob("a", pro))
		q.add(t.Context(), newJob("b", pro))
		q.add(t.Context(), newJob("c", pro))
		q.add(t.Context(), newJob("d", pro, sized("2K"))) // has one lane, but came later
		q.end("b", nil)
		q.want(t, "a small 0", "b any 0", "c any 0")
		for _, id := range []string{"a", "c", "d"} {
			q.end(id, nil)
		}
		balance(t, s)
	})
}

func TestPaceCeiling(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		tier         string
		set, ceiling float64
	}{
		{tierStandard, 0, 0}, {tierStandard, 5000, 5000}, {tierProvisioned, 0, 0}, {tierDedicated, 10, 10},
		{tierFlex, 0, flexPerMinute}, {tierFlex, 5000, flexPerMinute}, {tierFlex, 60, 60},
	} {
		l := at(pro, "global", tt.tier)
		l.MaxPerMinute = tt.set
		if got := l.ceiling(); got != tt.ceiling {
			t.Errorf("%s, set to %v: %v, want %v", tt.tier, tt.set, got, tt.ceiling)
		}
	}
}

func TestShut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		opts, _ := paced(nil)
		opts.Log = zap.New(core)
		s := New(configOf(at(pro, "global", tierFlex, room(2)), at(pro, "global", tierStandard, room(1)), at(flash, "global", tierStandard, named("flash"), room(1))), opts)
		q := newQueue(s)
		q.add(t.Context(), newJob("f", flash))
		for _, id := range []string{"a", "b"} {
			q.add(t.Context(), newJob(id, pro))
		}
		q.add(t.Context(), newJob("c", pro, due(time.Minute)))
		q.add(t.Context(), newJob("d", pro))                   // waits for flex and standard
		q.add(t.Context(), newJob("e", pro, due(time.Minute))) // waits for standard
		q.add(t.Context(), newJob("g", flash))
		q.want(t, "f flash 0", "a global/flex 0", "b global/flex 0", "c global/standard 0")

		q.end("c", failed(worker.Denied, 403))
		refused := "e no lane serves the job: it asks for model gemini-3-pro-image, size 1K, any region, a deadline in less than 30 minutes; " +
			"lane global/standard is shut: denied on lane : HTTP 403: said so; lane global/flex is flex, whose calls may take 30 minutes; lane flash serves gemini-3.1-flash-image"
		q.want(t, "f flash 0", "a global/flex 0", "b global/flex 0", "c global/standard 0", refused)
		waits(t, s, newJob("c", pro)) // flex is left, and full

		q.end("a", failed(worker.Denied, 404))
		q.end("b", failed(worker.Denied, 404))
		q.last(t, 6, "d no lane serves the job")
		s.Shut("flash", errors.New("the check failed"))
		q.last(t, 7, "g every lane is shut: global/flex: denied")
		q.end("f", nil)
		s.Shut("nobody", errors.New("unknown"))
		balance(t, s)

		var lines []string
		for _, e := range logs.FilterLevelExact(zapcore.ErrorLevel).All() {
			m := e.ContextMap()
			lines = append(lines, fmt.Sprintf("%v, %v left: %v", m["lane"], m["lanes_left"], m["check"]))
		}
		want := []string{
			"global/standard, 2 left: whether this worker's identity has the permission aiplatform.endpoints.predict, as in the role roles/aiplatform.user, for model gemini-3-pro-image in location global of project p, and whether the API aiplatform.googleapis.com is enabled",
			"global/flex, 1 left: whether the lane's project, model and location are right: there is no model gemini-3-pro-image in location global of project p, or the project has no access to it",
			"flash, 0 left: <nil>",
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEndTellsThePacer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err                       error
		accepted, throttled, lost int
	}{
		{nil, 1, 0, 0},
		{failed(worker.Rejected, 400), 1, 0, 0},
		{fmt.Errorf("wrapped: %w", failed(worker.Throttled, 429)), 0, 1, 0},
		{failed(worker.Failing, 500), 0, 0, 1},
		{failed(worker.Unreached, 0), 0, 0, 1},
		{failed(worker.Unanswered, 0), 0, 0, 1},
		{failed(worker.Interrupted, 0), 0, 0, 0},
		{failed(worker.Denied, 403), 0, 0, 0},
		{errors.New("a bug"), 0, 0, 0},
	} {
		opts, pacers := paced(nil)
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		p := take(t, s, newJob("a", pro))
		p.End(tt.err)
		p.End(nil) // ends once
		p.Drop()
		got := pacers["global/standard"]
		if got.accepted != tt.accepted || got.throttled != tt.throttled || got.lost != tt.lost {
			t.Errorf("%v: %+v", tt.err, got)
		}
		balance(t, s)
	}
}

func TestRetryAfterReachesThePacer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, _ := paced(nil)
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		take(t, s, newJob("a", pro)).End(&worker.CallError{Kind: worker.Throttled, RetryAfter: 20 * time.Second})
		q := newQueue(s)
		q.add(t.Context(), newJob("b", pro))
		pass(time.Minute)
		q.want(t, "b global/standard 20")
	})
}

func TestSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		opts, _ := paced(map[string]time.Duration{"global/standard": 100 * time.Millisecond})
		cfg := configOf(at(pro, "global", tierFlex), at(pro, "global", tierStandard, room(4)), at(flash, "global", tierStandard, named("flash")))
		s := New(cfg, opts)
		s.Shut("global/flex", errors.New("no quota"))
		q := newQueue(s)
		for i := range 6 {
			q.add(t.Context(), newJob(fmt.Sprint(i), pro))
		}
		pass(time.Second)
		q.end("0", failed(worker.Throttled, 429))
		q.end("1", nil)
		q.end("2", nil)
		q.end("3", nil)
		want := []Status{
			{Lane: cfg.Lanes[0].Lane, State: Shut, Why: "no quota", MaxInFlight: 3200, Rate: 60000},
			{Lane: cfg.Lanes[1].Lane, InFlight: 0, MaxInFlight: 4, Waiting: 2, Rate: 600, Throttled: 0.25},
			{Lane: cfg.Lanes[2].Lane, MaxInFlight: 3200, Rate: 60000},
		}
		if diff := cmp.Diff(want, s.Snapshot()); diff != "" {
			t.Error(diff)
		}
		pass(2 * time.Minute)
		if got := s.Snapshot()[1]; got.Throttled != 0 || got.InFlight != 2 || got.Waiting != 0 {
			t.Errorf("later: %+v", got)
		}
		breakLane(t, s, "flash", func() *jobs.Job { return newJob("x", flash) })
		if got := s.Snapshot()[2]; got.State != Broken || got.Why != "failing on lane : HTTP 500: said so" {
			t.Errorf("broken: %+v", got)
		}
	})
}

// Thousands of waiters are served at the lane's pace, each once and in turn, by one timer.
func TestManyWaiters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 3200
		opts, pacers := paced(map[string]time.Duration{"global/standard": 4 * time.Millisecond})
		s := New(configOf(at(pro, "global", tierStandard)), opts)
		q := newQueue(s)
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprintf("%04d", i))
			j := newJob(ids[i], pro)
			q.wg.Go(func() {
				p, err := s.Next(t.Context(), j)
				if err != nil {
					t.Error(err)
					return
				}
				p.End(nil)
			})
		}
		q.wg.Wait()
		if took := time.Since(q.start); took != (n-1)*4*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if p := pacers["global/standard"]; len(p.began) != n || p.accepted != n {
			t.Errorf("%d calls began, %d ended", len(p.began), p.accepted)
		}
		balance(t, s)
	})
}
