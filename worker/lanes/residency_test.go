package lanes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	residencySeed = 20261123
	worlds        = 1250
	jobsPerWorld  = 8
)

// A world is a set of lanes with jobs that come and go, where calls end in every way, lanes break and are shut, and time passes. It knows
// the rules by itself: what a lane's host really is, is decided here and not read from its name.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	set     *Set
	cfg     *Config
	truth   map[string]string // region of each lane's host, by the lane's name; empty: nobody knows
	buckets map[string]bool
	shut    map[string]time.Time
	waiting []*guest
	serving []*guest
	seen    *tally
}

type guest struct {
	job    *jobs.Job
	waiter *waiter
	permit worker.Permit
}

// tally shows that the test has met what it is about.
type tally struct{ strict, strictServed, served, refused, noLaneLeft, waited, spilled int }

var places = []string{jobs.GlobalRegion, west4, east1, "us-central1"}

func pickOne[T any](rng *rand.Rand, all []T) T { return all[rng.IntN(len(all))] }

// No job of a strict region ever gets a lane that leaves it, nor is it served without a bucket there; and no job is refused that a lane
// could have served, nor left waiting for ever.
func TestResidency(t *testing.T) {
	t.Parallel()
	var seen tally
	for i := range worlds {
		seed := uint64(residencySeed + i)
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, &seen)
			defer func() {
				if t.Failed() {
					t.Fatalf("seed %d; lanes %+v", seed, w.cfg.Lanes)
				}
			}()
			for range jobsPerWorld {
				w.enter()
				for range w.rng.IntN(4) {
					w.step()
				}
			}
			w.settle()
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d jobs: %+v", worlds*jobsPerWorld, seen)
	for what, n := range map[string]int{
		"strict": seen.strict, "strict and served": seen.strictServed, "refused": seen.refused, "without any lane left": seen.noLaneLeft,
		"waited": seen.waited, "not by the first lane": seen.spilled,
	} {
		if n < 100 {
			t.Errorf("only %d jobs were %s: the test misses its point", n, what)
		}
	}
}

func newWorld(t *testing.T, seed uint64, seen *tally) *world {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{t: t, rng: rng, truth: map[string]string{}, buckets: map[string]bool{}, shut: map[string]time.Time{}, seen: seen}
	w.cfg = configOf()
	w.cfg.Prefer = pickOne(rng, places)
	w.cfg.Buckets = map[string]string{}
	for range 1 + rng.IntN(16) {
		w.cfg.Lanes = append(w.cfg.Lanes, w.lane(fmt.Sprintf("l%d", len(w.cfg.Lanes))))
	}
	opts := Options{Seed: seed + 1, MaxInFlight: pickOne(rng, []int{0, 0, 2, 5}), newPacer: func(_ *LaneConfig, _ uint64, now time.Time) pacer {
		return &even{every: pickOne(rng, []time.Duration{0, 0, time.Second, 5 * time.Minute}), next: now}
	}}
	for _, place := range places[1:] {
		if rng.IntN(3) > 0 {
			w.buckets[place] = true
			w.cfg.Buckets[place] = "b"
		}
	}
	if rng.IntN(2) == 0 {
		w.cfg.Buckets = nil
		opts.Storable = func(region string) bool { return w.buckets[region] }
	}
	w.set = New(w.cfg, opts)
	for _, l := range w.set.lanes {
		if rng.IntN(5) == 0 {
			l.breaker.open(time.Now())
		}
	}
	return w
}

// lane makes a lane, which may make no sense: the Set does not rely on Parse.
func (w *world) lane(name string) LaneConfig {
	rng := w.rng
	l := at(pickOne(rng, []string{nano, nano, nano, pro}), pickOne(rng, places), pickOne(rng, []string{tierStandard, tierStandard, tierProvisioned, tierFlex, tierDedicated}), named(name), room(1+rng.IntN(3)))
	other := pickOne(rng, places[1:])
	switch rng.IntN(10) {
	case 0:
		l.Host, w.truth[name] = other+"-aiplatform.googleapis.com", other
	case 1:
		l.Host, l.HostRegion, w.truth[name] = "77."+other+"-5.prediction.vertexai.goog:443", l.Location, other
	case 2:
		l.Host, w.truth[name] = "vertex.internal", ""
	case 3:
		l.Host, l.HostRegion, w.truth[name] = "vertex.internal", other, other
	default:
		w.truth[name] = l.Location
	}
	if rng.IntN(5) == 0 {
		l.Sizes = []string{pickOne(rng, []string{"1K", "2K"})}
	}
	if rng.IntN(4) == 0 {
		price := jobs.USD(rng.Int64N(200_000_000))
		l.ImagePrice = &price
	}
	if rng.IntN(4) == 0 {
		after := time.Duration(rng.IntN(300)) * time.Second
		l.SpillAfter = &after
	}
	return l
}

// serves is the rule, told once more.
func (w *world) serves(l *LaneConfig, j *jobs.Job, at time.Time) bool {
	if l.Model != j.Model.ID || len(l.Sizes) > 0 && !slices.Contains(l.Sizes, j.Size) {
		return false
	}
	if l.Tier == tierFlex && !j.Deadline.IsZero() && j.Deadline.Sub(at) < 30*time.Minute {
		return false
	}
	return j.Region == jobs.GlobalRegion || l.Location == j.Region && w.truth[l.Name] == j.Region && w.buckets[j.Region]
}

func (w *world) enter() {
	rng := w.rng
	j := newJob(fmt.Sprint(rng.Uint64()), pickOne(rng, []string{nano, nano, nano, nano, nano, pro}), in(pickOne(rng, places)))
	j.Size = pickOne(rng, j.Model.SizeNames())
	if rng.IntN(2) == 0 {
		j.Deadline = time.Now().Add(time.Duration(rng.IntN(60)) * time.Minute)
	}
	w.seen.strict += btoi(j.Region != jobs.GlobalRegion)
	g := &guest{job: j}
	var err error
	if g.waiter, err = w.set.enter(j); err != nil {
		w.refused(g, err)
		return
	}
	w.waiting = append(w.waiting, g)
	w.look()
	w.seen.waited += btoi(slices.Contains(w.waiting, g))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// step lets something happen.
func (w *world) step() {
	rng := w.rng
	switch rng.IntN(20) {
	case 0:
		w.close(pickOne(rng, w.cfg.Lanes).Name)
	case 1, 2:
		<-time.After(time.Duration(rng.IntN(600)) * time.Second)
		synctest.Wait()
	case 3:
		if len(w.waiting) > 0 { // somebody gives up, and might just have been served
			i := rng.IntN(len(w.waiting))
			ctx, cancel := context.WithCancel(w.t.Context())
			cancel()
			_ = w.set.leave(ctx, w.waiting[i].waiter)
			w.waiting = slices.Delete(w.waiting, i, i+1)
		}
	default:
		w.end(pickOne(rng, []worker.Kind{0, worker.Throttled, worker.Failing, worker.Unanswered, worker.Unreached, worker.Rejected, worker.Rejected, worker.Rejected, worker.Interrupted, worker.Interrupted, worker.Denied}))
	}
	w.look()
}

func (w *world) close(name string) {
	w.stop(name)
	w.set.Shut(name, errors.New("the test shut it"))
}

func (w *world) stop(name string) {
	if w.shut[name].IsZero() {
		w.shut[name] = time.Now()
	}
}

// end ends one of the calls.
func (w *world) end(kind worker.Kind) {
	if len(w.serving) == 0 {
		return
	}
	i := w.rng.IntN(len(w.serving))
	g := w.serving[i]
	w.serving = slices.Delete(w.serving, i, i+1)
	switch kind {
	case 0:
		g.permit.End(nil)
	case worker.Interrupted:
		g.permit.Drop()
	case worker.Denied:
		w.stop(g.permit.Lane().Name)
		fallthrough
	default:
		g.permit.End(failed(kind, 0))
	}
}

// look looks who has been told what.
func (w *world) look() {
	w.t.Helper()
	w.waiting = slices.DeleteFunc(w.waiting, func(g *guest) bool {
		select {
		case <-g.waiter.told:
		default:
			return false
		}
		if p, err := g.waiter.outcome(); err != nil {
			w.refused(g, err)
		} else {
			g.permit = p
			w.served(g)
		}
		return true
	})
}

func (w *world) served(g *guest) {
	w.t.Helper()
	w.serving = append(w.serving, g)
	w.seen.served++
	name, began := g.permit.Lane().Name, g.permit.(*permit).began
	i := slices.IndexFunc(w.cfg.Lanes, func(l LaneConfig) bool { return l.Name == name })
	if !w.serves(&w.cfg.Lanes[i], g.job, began) {
		w.t.Errorf("job of region %s, %s %s, deadline in %s, went by lane %+v; buckets %v", g.job.Region, g.job.Model.ID, g.job.Size, g.job.Deadline.Sub(began), w.cfg.Lanes[i], w.buckets)
	}
	// What was granted before is seen before: nothing is shut while time passes.
	if at := w.shut[name]; !at.IsZero() && !began.Before(at) {
		w.t.Errorf("lane %s was shut at %s and served a job at %s", name, at, began)
	}
	w.seen.strictServed += btoi(g.job.Region != jobs.GlobalRegion)
	first := slices.IndexFunc(w.cfg.Lanes, func(l LaneConfig) bool { return w.serves(&l, g.job, began) })
	w.seen.spilled += btoi(first != i)
	onLane := 0
	for _, s := range w.serving {
		onLane += btoi(s.permit.Lane().Name == name)
	}
	if onLane > w.cfg.Lanes[i].MaxInFlight {
		w.t.Errorf("%d calls are in flight on %s", onLane, name)
	}
}

func (w *world) refused(g *guest, err error) {
	w.t.Helper()
	for i := range w.cfg.Lanes {
		if l := &w.cfg.Lanes[i]; w.shut[l.Name].IsZero() && w.serves(l, g.job, time.Now()) {
			w.t.Errorf("job of region %s was refused, though lane %s serves it: %v", g.job.Region, l.Name, err)
		}
	}
	w.seen.refused++
	switch {
	case len(w.shut) == len(w.cfg.Lanes):
		w.seen.noLaneLeft++
		if !errors.Is(err, worker.ErrLanesShut) {
			w.t.Errorf("every lane is shut, and the error is %v", err)
		}
	case !errors.Is(err, worker.ErrNoLane):
		w.t.Errorf("error %v", err)
	}
}

// settle ends all calls until nobody waits.
func (w *world) settle() {
	w.t.Helper()
	for range 100 {
		for len(w.serving) > 0 {
			w.end(0)
		}
		w.look()
		if len(w.waiting)+len(w.serving) == 0 {
			balance(w.t, w.set)
			return
		}
		<-time.After(time.Minute)
		synctest.Wait()
	}
	w.t.Errorf("%d jobs wait for ever, the first %+v", len(w.waiting), w.waiting[0].job)
}
