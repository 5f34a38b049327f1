package lanes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Callers come, go, call, give up and are turned away from all sides, in real time: bounds hold, and nothing is left behind.
func TestManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	const (
		callers = 100
		calls   = 50
	)
	opts, _ := paced(map[string]time.Duration{"global/flex": 100 * time.Microsecond})
	opts.MaxInFlight = 40
	s := New(configOf(
		at(pro, "global", tierFlex, room(20), spilling(time.Millisecond)), at(pro, "global", tierStandard, room(30)),
		at(nano, "global", tierStandard, named("nano"), room(5)), at(nano, west4, tierStandard, room(5)), at(nano, east1, tierStandard, room(5)),
	), opts)
	var inFlight, most, served, gone, refused atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for i := range calls {
				j := newJob(fmt.Sprint(c, i), pickOne(rng, []string{pro, nano}))
				if j.Model.ID == nano {
					j.Region = pickOne(rng, []string{jobs.GlobalRegion, west4, east1})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.Int64N(int64(20*time.Millisecond))))
				p, err := s.Next(ctx, j)
				cancel()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					gone.Add(1)
				case errors.Is(err, worker.ErrNoLane):
					refused.Add(1)
				case err != nil:
					t.Error(err)
				default:
					served.Add(1)
					most.Store(max(most.Load(), inFlight.Add(1)))
					if rng.IntN(4) == 0 {
						<-time.After(time.Duration(rng.Int64N(int64(time.Millisecond))))
					}
					inFlight.Add(-1)
					p.End(pickOne(rng, []error{nil, nil, nil, failed(worker.Throttled, 429), failed(worker.Failing, 500), failed(worker.Interrupted, 0)}))
				}
				if c == 0 && i == calls/2 {
					s.Shut(east1+"/standard", errors.New("half way"))
				}
				s.Snapshot()
			}
		})
	}
	wg.Wait()
	balance(t, s)
	if most.Load() > int64(opts.MaxInFlight) {
		t.Errorf("%d calls were in flight, %d are allowed", most.Load(), opts.MaxInFlight)
	}
	if served.Load() == 0 || gone.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d served, %d gone, %d refused: the test misses its point", served.Load(), gone.Load(), refused.Load())
	}
}

// BenchmarkSet is one call's way through Next and End, with 3,200 callers of whom all but those in flight wait.
func BenchmarkSet(b *testing.B) {
	var many []LaneConfig
	for i := range maxLanes {
		many = append(many, at(pro, "global", tierStandard, named(fmt.Sprintf("l%d", i)), room(4)))
	}
	for _, tt := range []struct {
		name  string
		cfg   *Config
		jobs  []*jobs.Job
		pacer pacer
	}{
		{"one lane", configOf(at(pro, "global", tierStandard, room(1000))), []*jobs.Job{newJob("a", pro)}, free{}},
		{"the default lanes and all classes", Default("p", "", catalogue), everyClass(), free{}},
		{"256 lanes", configOf(many...), []*jobs.Job{newJob("a", pro)}, free{}},
		{"one lane at 1000 calls a second", configOf(at(pro, "global", tierStandard)), []*jobs.Job{newJob("a", pro)}, &even{every: time.Millisecond}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			opts, _ := paced(nil)
			opts.MaxInFlight = 1000
			opts.Storable = func(string) bool { return true }
			opts.newPacer = func(*LaneConfig, uint64, time.Time) pacer { return tt.pacer }
			s := New(tt.cfg, opts)
			b.ReportAllocs()
			before := processorTime(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for c := range 3200 {
				wg.Go(func() {
					j := tt.jobs[c%len(tt.jobs)]
					for left.Add(-1) >= 0 {
						p, err := s.Next(b.Context(), j)
						if err != nil {
							b.Error(err)
							return
						}
						p.End(nil)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime is what this process has used of the processors, which a busy machine does not change much.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// everyClass is a job of each model, size and region.
func everyClass() (all []*jobs.Job) {
	for _, id := range catalogue.ModelIDs() {
		m := catalogue.Model(id)
		for _, size := range m.SizeNames() {
			for _, region := range m.Locations {
				if region == jobs.GlobalRegion || region == west4 || region == east1 {
					all = append(all, newJob("a", id, sized(size), in(region)))
				}
			}
		}
	}
	return all
}

// free is a pacer that does not pace.
type free struct{}

func (free) Wait(time.Time) time.Duration              { return 0 }
func (free) Begin(time.Time, bool)                     {}
func (free) Accepted(_, _ time.Time)                   {}
func (free) Throttled(_, _ time.Time, _ time.Duration) {}
func (free) Lost(_, _ time.Time)                       {}
func (free) Rate() float64                             { return 0 }

// With the real pacer, jobs get through a service with a hidden quota, though some answers are 429.
func TestRealPace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const (
			count = 300
			gap   = 100 * time.Millisecond // the quota: 600 a minute, and nothing saved up
		)
		s := New(configOf(at(pro, "global", tierStandard)), Options{Seed: 1})
		var mu sync.Mutex
		var free time.Time
		accepts := func() bool {
			mu.Lock()
			defer mu.Unlock()
			if time.Now().Before(free) {
				return false
			}
			free = time.Now().Add(gap)
			return true
		}
		start := time.Now()
		var wg sync.WaitGroup
		var throttled atomic.Int64
		for i := range count {
			wg.Go(func() {
				for {
					p, err := s.Next(t.Context(), newJob(fmt.Sprint(i), pro))
					if err != nil {
						t.Error(err)
						return
					}
					if accepts() {
						<-time.After(10 * time.Second)
						p.End(nil)
						return
					}
					throttled.Add(1)
					p.End(failed(worker.Throttled, 429))
				}
			})
		}
		wg.Wait()
		// The pacer's own tests say how near it comes to the quota; here it must only get through.
		if took := time.Since(start); took > 15*time.Minute || throttled.Load() > count {
			t.Errorf("%d jobs took %s and %d answers of 429", count, took, throttled.Load())
		}
		t.Logf("%s, %d answers of 429", time.Since(start), throttled.Load())
		balance(t, s)
	})
}
