package lanes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// company is workers that hear each other every five seconds, on a service with a hidden quota.
type company struct {
	sets []*Set
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex
	free      time.Time
	served    []int
	throttled int
	together  int // calls that began within a second of another worker's
	last      int
	at        time.Time
}

func newCompany(t *testing.T, n int, gap time.Duration) *company {
	ctx, stop := context.WithCancel(t.Context())
	c := &company{stop: stop, served: make([]int, n), last: -1}
	for i := range n {
		c.sets = append(c.sets, New(configOf(at(pro, "global", tierStandard)), Options{Worker: fmt.Sprintf("w%d", i), Seed: uint64(i + 1)}))
	}
	c.wg.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			c.gossip()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	for i, s := range c.sets {
		for k := range 30 {
			c.wg.Go(func() { c.work(ctx, i, s, k, gap) })
		}
	}
	return c
}

func (c *company) gossip() {
	var said []Said
	for i, s := range c.sets {
		if text := s.Tell(); text != "" {
			said = append(said, Said{fmt.Sprintf("w%d", i), time.Now().Add(time.Hour), text}) // the shared clock is an hour ahead
		}
	}
	for _, s := range c.sets {
		s.Hear(time.Now(), time.Now().Add(time.Hour), said)
	}
}

// work makes calls one after the other.
func (c *company) work(ctx context.Context, i int, s *Set, k int, gap time.Duration) {
	for n := 0; ctx.Err() == nil; n++ {
		p, err := s.Next(ctx, newJob(fmt.Sprintf("%d-%d-%d", i, k, n), pro))
		if err != nil {
			return
		}
		if c.call(i, gap) {
			p.End(nil)
		} else {
			p.End(failed(worker.Throttled, 429))
		}
	}
}

// call reports whether the service takes a call now.
func (c *company) call(i int, gap time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.last != i && now.Sub(c.at) < gap/2 {
		c.together++
	}
	c.last, c.at = i, now
	if now.Before(c.free) {
		c.throttled++
		return false
	}
	c.free = now.Add(gap)
	c.served[i]++
	return true
}

// Workers on a narrow lane that hear of each other take turns, and share it evenly with few answers of 429.
func TestWorkersTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t, 4, time.Second)
		pass(2 * time.Minute)
		c.mu.Lock()
		c.served, c.throttled, c.together = make([]int, 4), 0, 0
		c.mu.Unlock()
		pass(17 * time.Minute)
		c.stop()
		c.wg.Wait()
		sum := 0
		for i, n := range c.served {
			sum += n
			if n < 200 || n > 310 {
				t.Errorf("w%d had %d calls served of about 1,000 that four share", i, n)
			}
		}
		if sum < 940 || c.throttled > 60 {
			t.Errorf("%d calls served of 1,020, and %d answers of 429", sum, c.throttled)
		}
		if c.together > 20 {
			t.Errorf("%d calls were begun right after another worker's: nobody waits for a turn", c.together)
		}
		for _, s := range c.sets {
			synctest.Wait()
			balance(t, s)
		}
	})
}

func TestWithoutAnIDNothingIsTold(t *testing.T) {
	t.Parallel()
	s := New(configOf(at(pro, "global", tierStandard)), Options{Seed: 1})
	p, err := s.Next(t.Context(), newJob("a", pro))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Tell(); got != "" {
		t.Errorf("tells %s", got)
	}
	s.Hear(time.Now(), time.Now(), []Said{{"w", time.Now(), "{}"}})
	p.End(nil)
}

// Only lanes in use are told of, by what they are and not by their name, and never more than storage keeps.
func TestTell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var many []LaneConfig
		for i := range 40 {
			many = append(many, at(pro, "global", tierStandard, named(fmt.Sprintf("lane-%d", i)), func(l *LaneConfig) { l.Project = fmt.Sprintf("p%d", i) }))
		}
		s := New(configOf(many...), Options{Worker: "w1", Seed: 1})
		if got := s.Tell(); got != "" {
			t.Errorf("unused lanes are told of: %s", got)
		}
		s.Hear(time.Now(), time.Now(), nil)
		pass(time.Second) // by then each lane takes a call
		var permits []worker.Permit
		for i := range 40 {
			permits = append(permits, take(t, s, newJob(fmt.Sprint(i), pro)))
		}
		got := s.Tell()
		var back told
		if err := json.Unmarshal([]byte(got), &back); err != nil || len(back.Lanes) != maxTold {
			t.Errorf("tells of %d lanes, %v, want %d", len(back.Lanes), err, maxTold)
		}
		if len(got) > maxToldBytes || strings.Contains(got, "lane-") {
			t.Errorf("tells %d bytes: %s", len(got), got)
		}
		for _, p := range permits {
			p.End(nil)
		}
		pass(toldFor)
		if got := s.Tell(); got != "" {
			t.Errorf("lanes that were not used for %v are told of: %s", toldFor, got)
		}
	})
}

func TestLanesAreTheSameByWhatTheyAre(t *testing.T) {
	t.Parallel()
	a, b := at(pro, "global", tierStandard, named("a")), at(pro, "global", tierStandard, named("b"), room(3))
	if a.key() != b.key() {
		t.Error("one lane has two keys, by its name or its bounds")
	}
	for _, other := range []LaneConfig{
		at(pro, "global", tierFlex), at(flash, "global", tierStandard), at(nano, west4, tierStandard), at(pro, "global", tierStandard, func(l *LaneConfig) { l.Project = "q" }),
	} {
		if other.key() == a.key() {
			t.Errorf("%s has the key of another lane", other.Name)
		}
	}
}

// What other workers store may be anything.
func TestHearsay(t *testing.T) {
	t.Parallel()
	s := New(configOf(at(pro, "global", tierStandard)), Options{Worker: "w1", Seed: 1})
	now := time.Now()
	key := s.lanes[0].key
	var said []Said
	for i, text := range []string{
		"", "{", "null", `{"v":1}`, `{"v":1,"l":null}`, `{"v":2,"l":{"` + key + `":{"r":1}}}`, `{"v":1,"l":{"` + key + `":{"r":-1}}}`, `{"v":1,"l":{"` + key + `":{"r":1e300}}}`,
		`{"v":1,"l":{"` + key + `":{"r":1,"w":true,"b":1,"p":{"k":1}}}}`, `{"v":1,"l":{"` + key + `":7}}`, strings.Repeat("x", 1<<20),
	} {
		said = append(said, Said{fmt.Sprint("w", i), now, text})
	}
	s.Hear(now, now, said)
	s.Hear(now, now, make([]Said, 5000))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p, err := s.Next(ctx, &jobs.Job{ID: "j", Model: catalogue.Model(pro), Size: "1K", Region: jobs.GlobalRegion})
	if err != nil {
		t.Fatal(err)
	}
	p.End(nil)
}
