package ledger_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/worker/ledger"
)

// gossip tells a text and keeps what it heard.
type gossip struct {
	text string

	mu    sync.Mutex
	heard map[string]ledger.Said
	clock time.Duration // ahead of the local one
	more  chan struct{} // has room for one
}

func newGossip(text string) *gossip {
	return &gossip{text: text, heard: map[string]ledger.Said{}, more: make(chan struct{}, 1)}
}

func (g *gossip) Tell() string { return g.text }

func (g *gossip) Hear(now, clock time.Time, said []ledger.Said) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock = clock.Sub(now)
	for _, s := range said {
		g.heard[s.Worker] = s
	}
	select {
	case g.more <- struct{}{}:
	default:
	}
}

// await waits until somebody was heard.
func (g *gossip) await(t *testing.T, id string) ledger.Said {
	t.Helper()
	for {
		g.mu.Lock()
		s, ok := g.heard[id]
		g.mu.Unlock()
		if ok {
			return s
		}
		select {
		case <-g.more:
		case <-t.Context().Done():
			t.Fatalf("nothing was heard of %s", id)
		}
	}
}

func TestWorkersHearEachOther(t *testing.T) {
	t.Parallel()
	client := gcstest.Open(t, bucket, nil)
	ctx, stop := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	defer beating.Wait()
	defer stop()
	all := map[string]*gossip{}
	for i := range 3 {
		id := fmt.Sprintf("w%d", i)
		all[id] = newGossip(`{"from": "` + id + `"}`)
		l := ledger.New(client, bucket, id, ledger.Share(all[id]))
		beating.Go(func() { l.Beat(ctx) })
	}
	silent := ledger.New(client, bucket, "silent")
	beating.Go(func() { silent.Beat(ctx) })
	began := time.Now()
	for id, g := range all {
		for other := range all {
			s := g.await(t, other)
			if s.Text != `{"from": "`+other+`"}` {
				t.Errorf("%s heard %q of %s", id, s.Text, other)
			}
			if age := began.Sub(s.At); age > time.Minute || age < -time.Minute {
				t.Errorf("%s heard that %s told %v ago", id, other, age)
			}
		}
		g.mu.Lock()
		if _, ok := g.heard["silent"]; ok {
			t.Error("a worker was heard that tells nothing")
		}
		if g.clock > time.Second || g.clock < -time.Second {
			t.Errorf("%s takes the storage's clock for %v ahead, in the same process", id, g.clock)
		}
		g.mu.Unlock()
	}
}

func TestClockTakesTheQuickestWrite(t *testing.T) {
	t.Parallel()
	start := time.Now()
	ahead := func(points ...[2]int) time.Duration {
		at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
		var writes []ledger.Write
		for i, p := range points { // how long it took, and how far ahead its stamp was of its middle
			began := 5000 * i
			writes = append(writes, ledger.Write{Began: at(began), Ended: at(began + p[0]), Stamp: at(began + p[0]/2 + p[1])})
		}
		return ledger.Ahead(writes, at(100_000))
	}
	if got := ahead([2]int{100, 60_000}); got != time.Minute {
		t.Errorf("one write: %v ahead, want a minute", got)
	}
	if got := ahead([2]int{2000, 60_900}, [2]int{20, 60_001}, [2]int{400, 59_850}); got != 60_001*time.Millisecond {
		t.Errorf("three writes: %v ahead, want that of the one that took 20 ms", got)
	}
	old := [][2]int{{1, 1000}}
	for range 12 {
		old = append(old, [2]int{50, 3000})
	}
	if got := ahead(old...); got != 3*time.Second {
		t.Errorf("after a clock was set: %v ahead, want 3s once the old write is forgotten", got)
	}
}
