package workertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
)

// Regions of jobs that must stay in one. Nothing serves the last.
const (
	europe   = "europe-west4"
	america  = "us-central1"
	unserved = "europe-north1"
)

const (
	proModel   = "gemini-3-pro-image"
	flashModel = "gemini-2.5-flash-image"
)

// lanesFile is the lanes that every simulated worker has. Two of pro's lanes are one quota each of two projects.
const lanesFile = `
spill_after: 30s
buckets:
  europe-west4: assets-europe-west4
  us-central1: assets-us-central1
lanes:
  - {name: pro-bought, model: gemini-3-pro-image, location: global, tier: provisioned}
  - {name: pro-flex, model: gemini-3-pro-image, location: global, tier: flex}
  - {name: pro-standard, model: gemini-3-pro-image, location: global, tier: standard}
  - {name: pro-second, project: second, model: gemini-3-pro-image, location: global, tier: standard}
  - {name: flash-global, model: gemini-2.5-flash-image, location: global, tier: standard}
  - {name: flash-europe, model: gemini-2.5-flash-image, location: europe-west4, tier: standard}
  - {name: flash-america, model: gemini-2.5-flash-image, location: us-central1, tier: standard}
  - {name: pro-batch, model: gemini-3-pro-image, location: global, tier: batch}
  - {name: flash-batch, model: gemini-2.5-flash-image, location: global, tier: batch}
  - {name: flash-batch-europe, model: gemini-2.5-flash-image, location: europe-west4, tier: batch}
`

// endpoint is a lane as the service behind it is, whatever workers believe.
type endpoint struct {
	lane  worker.Lane
	share float64 // of its hidden quota, as a multiple of the day's average rate of online jobs
	spill bool    // whether jobs wait for a cheaper lane first: who waits does not say that this one is wanted
	// straight says that the model writes its images to the bucket itself, where it is told to.
	straight bool
	slowest  time.Duration // of its calls
}

// What the services are like, in the order of the file. Quotas have to make up for the hours that services are down.
var endpointTraits = []endpoint{
	{share: 0.5, slowest: time.Minute},
	{share: 0.9, slowest: 2 * time.Minute},
	{share: 0.9, slowest: time.Minute, spill: true},
	{share: 0.9, slowest: time.Minute, straight: true, spill: true},
	{share: 0.15, slowest: time.Minute},
	{share: 0.24, slowest: time.Minute, straight: true},
	{share: 0.15, slowest: time.Minute},
}

// deniedLane is the number of the lane that is denied to everybody for a while. Its jobs have others.
const deniedLane = 3

// openLanes reads the lanes and what is behind them.
func openLanes(c *jobs.Catalogue) (*lanes.Config, []endpoint) {
	cfg, err := lanes.Parse("lanes.yaml", []byte(lanesFile), c)
	if err == nil {
		err = cfg.SetProject("first")
	}
	if err != nil || len(cfg.Lanes) != len(endpointTraits) {
		panic(fmt.Sprintf("workertest: the simulated lanes: %v", err))
	}
	all := slices.Clone(endpointTraits)
	for i := range all {
		all[i].lane = cfg.Lanes[i].Lane
	}
	return cfg, all
}

// endpointOf returns the number of the service that a call by a lane reaches.
func (s *sim) endpointOf(l worker.Lane) int {
	return slices.IndexFunc(s.endpoints, func(e endpoint) bool { return e.lane.Name == l.Name })
}

// lanePlan is what happens to one lane on the day.
type lanePlan struct {
	storms      []span // of throttling
	denied      span
	down        span
	unreachable bool // while it is down; otherwise it fails
}

func (cfg Config) planLanes(r *rand.Rand, p *plan) {
	day := cfg.day()
	broken := r.IntN(len(endpointTraits))
	for i := range endpointTraits {
		var l lanePlan
		for range stormsPerDay {
			from := time.Duration(r.Float64() * float64(day))
			l.storms = append(l.storms, span{from, from + min(10*time.Minute, day/40)})
		}
		from := time.Duration(r.Float64() * 0.9 * float64(day))
		if cfg.Faults&LaneDenied != 0 && i == deniedLane {
			l.denied = span{from, from + day/12}
		}
		from = time.Duration(r.Float64() * 0.9 * float64(day))
		l.unreachable = r.IntN(2) == 0
		if cfg.Faults&LaneDown != 0 && i == broken {
			l.down = span{from, from + min(20*time.Minute, day/20)}
		}
		p.lanes = append(p.lanes, l)
	}
}

// quota is the hidden, changing rate of calls of one lane, shared by all workers. sim.mu guards it.
type quota struct {
	tokens float64
	at     time.Duration
	books  QuotaBooks
	// Of the samples since the last one without demand.
	taken  float64
	since  time.Duration
	wanted bool
}

// rate is how many calls a second a lane takes now.
func (s *sim) rate(lane int) float64 {
	now := s.now()
	online := max(1-s.cfg.Batch, 0.2) // of all jobs; some of the others become online ones
	average := online * float64(s.cfg.Jobs) / s.cfg.day().Seconds()
	rate := s.endpoints[lane].share * average * (0.6 + 0.8*s.dice.roll(saltQuota, uint64(now/(30*time.Minute)), uint64(lane)))
	for _, storm := range s.plan.lanes[lane].storms {
		if storm.has(now) {
			rate /= 10
		}
	}
	return max(rate, 1.0/20)
}

// take takes one call from a lane's quota, if there is one left. The caller holds sim.mu.
func (s *sim) take(lane int) bool {
	q, now, rate := &s.quotas[lane], s.now(), s.rate(lane)
	burst := max(rate*10, 4) // ten seconds' worth
	q.tokens = min(burst, q.tokens+rate*(now-q.at).Seconds())
	q.at = now
	q.books.Asked++
	if q.tokens < 1 {
		q.books.Throttled++
		return false
	}
	q.tokens--
	q.taken++
	return true
}

// sampleEvery is how often the demand for each lane is looked at.
const sampleEvery = 10 * time.Second

// watchQuotas counts how much of each lane's quota is used while jobs wait for it in most workers: each has a part of it, and what one leaves is
// found by others only slowly. It asks the workers' lanes who waits; no invariant rests on that.
func (s *sim) watchQuotas() {
	waiting, alive := make([]int, len(s.quotas)), 0
	s.mu.Lock()
	all := slices.Clone(s.processes[s.firstAlive():])
	s.mu.Unlock()
	for _, p := range all {
		if p.dead() || p.over() {
			continue
		}
		alive++
		for i, status := range p.lanes.Snapshot() {
			if status.State != lanes.Shut && status.Waiting > 0 {
				waiting[i]++
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.quotas {
		q := &s.quotas[i]
		wanted := 2*waiting[i] > alive && !s.endpoints[i].spill && !s.down(svcModel) && !s.plan.lanes[i].down.has(s.now()) && !s.plan.lanes[i].denied.has(s.now())
		if wanted && q.wanted {
			// The first minute of a demand is for finding the rate.
			if s.now()-q.since > time.Minute {
				q.books.Used += q.taken
				q.books.Wanted += s.rate(i) * sampleEvery.Seconds()
			}
		} else {
			q.since = s.now()
		}
		q.wanted, q.taken = wanted, 0
	}
}

// firstAlive returns the number of a process before which all have ended. The caller holds mu.
func (s *sim) firstAlive() int {
	for s.ended < len(s.processes) && (s.processes[s.ended].dead() || s.processes[s.ended].over()) {
		s.ended++
	}
	return s.ended
}

// guarded is a process's lanes, with the checkers looking on. What breaks them on purpose is within.
type guarded struct {
	*process
	lanes worker.Lanes
}

// Next implements worker.Lanes.
func (g guarded) Next(ctx context.Context, j *jobs.Job) (worker.Permit, error) {
	s := g.sim
	inner, err := g.lanes.Next(ctx, j)
	if errors.Is(err, worker.ErrLanesShut) {
		s.mu.Lock()
		g.life.stopping = true // by itself
		s.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	lane := s.endpointOf(inner.Lane())
	s.audit.permitted(g.process, lane)
	s.mu.Unlock()
	p := &watchedPermit{process: g.process, Permit: inner, lane: lane}
	if s.cfg.sabotage == leakyPermits && s.pick(s.number(j.ID)) {
		return leakedPermit{p}, nil
	}
	if err := g.gate(); err != nil {
		p.Drop()
		return nil, err
	}
	return p, nil
}

// watchedPermit is a permit, with the checkers looking on.
type watchedPermit struct {
	*process
	worker.Permit
	lane int
	over bool
}

// End implements worker.Permit.
func (p *watchedPermit) End(err error) {
	p.finish(err)
	p.Permit.End(err)
}

// Drop implements worker.Permit.
func (p *watchedPermit) Drop() {
	p.finish(nil)
	p.Permit.Drop()
}

func (p *watchedPermit) finish(err error) {
	p.sim.mu.Lock()
	defer p.sim.mu.Unlock()
	if p.over {
		p.sim.audit.violate(bounded, "%s gave a permit for lane %s back twice", p.name, p.sim.endpoints[p.lane].lane.Name)
	}
	p.over = true
	p.sim.audit.permitOver(p.process, p.lane, err)
}

// leakedPermit never comes back.
type leakedPermit struct{ worker.Permit }

// End implements worker.Permit.
func (leakedPermit) End(error) {}

// Drop implements worker.Permit.
func (leakedPermit) Drop() {}

// brokenLanes are lanes with something broken on purpose.
type brokenLanes struct {
	*process
	set *lanes.Set
}

// Next implements worker.Lanes.
func (b brokenLanes) Next(ctx context.Context, j *jobs.Job) (worker.Permit, error) {
	s := b.sim
	switch s.cfg.sabotage {
	case roamingLanes:
		anywhere := *j
		anywhere.Region = jobs.GlobalRegion
		return b.set.Next(ctx, &anywhere)
	case restlessLanes:
		// Whoever asked for a pause is called all the same.
		s.mu.Lock()
		lane := slices.IndexFunc(b.life.pauses, func(p span) bool { return p.from < s.now() && s.now() < p.to })
		s.mu.Unlock()
		if lane >= 0 && s.endpoints[lane].lane.Model == j.Model.ID && j.Region == jobs.GlobalRegion && !strings.Contains(s.endpoints[lane].lane.Location, "-") {
			return looseLane{s.endpoints[lane].lane}, nil
		}
	}
	return b.set.Next(ctx, j)
}

// looseLane is a permit that nobody counts.
type looseLane struct{ lane worker.Lane }

// Lane implements worker.Permit.
func (l looseLane) Lane() worker.Lane { return l.lane }

// End implements worker.Permit.
func (looseLane) End(error) {}

// Drop implements worker.Permit.
func (looseLane) Drop() {}

// ---- checkers. The caller holds sim.mu.

// permitted sees p get the right to call a lane.
func (a *audit) permitted(p *process, lane int) {
	p.life.permits++
	if p.life.permits > a.s.cfg.Concurrency {
		a.violate(bounded, "%s has %d permits, with room for %d calls", p.name, p.life.permits, a.s.cfg.Concurrency)
	}
	if p.life.pauses == nil {
		p.life.pauses = make([]span, len(a.s.endpoints))
	}
	// At the instant itself the permit may have been there first.
	if pause, now := p.life.pauses[lane], a.s.now(); pause.from < now && now < pause.to {
		a.violate(bounded, "%s calls lane %s, which asked for a pause of %s only %s ago",
			p.name, a.s.endpoints[lane].lane.Name, pause.to-pause.from, (now - pause.from).Round(time.Millisecond))
	}
}

// longestPause bounds the pauses that a worker grants a service that asks for one.
const longestPause = time.Minute

// permitOver sees p give the right back, with how its call ended.
func (a *audit) permitOver(p *process, lane int, err error) {
	p.life.permits--
	var ce *worker.CallError
	if errors.As(err, &ce) && ce.RetryAfter > 0 {
		now := a.s.now()
		pause := span{now, now + min(ce.RetryAfter, longestPause)}
		if pause.to > p.life.pauses[lane].to {
			p.life.pauses[lane] = pause
		}
	}
}

// checkLane holds a call to the data region and the model of its job.
func (a *audit) checkLane(p *process, n, lane int, l worker.Lane) {
	want := a.s.region(n)
	switch e := a.s.endpoints[lane].lane; {
	case e != l:
		a.violate(rightRow, "%s calls lane %s as %+v, which is %+v", p.name, e.Name, l, e)
	case want != jobs.GlobalRegion && e.Location != want:
		a.violate(residency, "%s calls lane %s in %s for %s, which must stay in %s", p.name, e.Name, e.Location, jobID(n), want)
	case e.Model != a.s.modelOf(n):
		a.violate(rightRow, "%s calls %s for %s, which asks for %s", p.name, e.Model, jobID(n), a.s.modelOf(n))
	}
	a.s.books.Calls[lane]++
}

const (
	// resendAfter is when the owner of a dead letter that should have been served sends it again.
	resendAfter = 30 * time.Minute
	// restartAfter is when somebody restarts a worker that turns jobs away because its lanes are shut.
	restartAfter = 10 * time.Minute
)

// turnedAway sees a message given up for want of a lane that another worker has.
func (a *audit) turnedAway(p *process, msg *message) {
	s := a.s
	s.books.TurnedAway++
	if p.life.denied == 0 {
		a.violate(conservation, "%s turned %s away although nobody denied it a lane", p.name, jobID(int(msg.job)))
	}
	if !p.life.alarmed {
		p.life.alarmed = true
		time.AfterFunc(restartAfter, func() {
			if !p.dead() && !p.over() {
				p.stop(false)
			}
		})
	}
	s.queue.resending++
	topic, n := msg.topic, int(msg.job)
	time.AfterFunc(resendAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queue.resending--
		s.queue.accept(valid, topic, n)
	})
}

// longestHold is how long a process may keep a message while all services work: the worker's own bound of ten minutes for the wait, one
// call, and what its end takes when answers are slow or lost.
const longestHold = 10*time.Minute + callTimeout + 5*time.Minute

// handled sees a process let go of a message that it had for a while.
func (a *audit) handled(p *process, m int, held span) {
	s := a.s
	length := held.to - held.from
	s.books.LongestHold = max(s.books.LongestHold, length)
	if length <= longestHold || p.life.killed || meetsAny(p.life.freezes, held.from, held.to) {
		return
	}
	for _, outages := range s.plan.outages {
		if meetsAny(outages, held.from, held.to) {
			return
		}
	}
	for _, c := range p.partitions {
		if c.meets(held.from, held.to) {
			return
		}
	}
	a.violate(bounded, "%s kept message %s of %s for %s", p.name, messageID(m), s.about(m), length.Round(time.Second))
}

// about says what a message is about. The caller holds mu.
func (s *sim) about(m int) string {
	msg := &s.queue.messages[m]
	if msg.topic == handoffs {
		return string(s.handoffData(int(msg.job)))
	}
	return jobID(int(msg.job))
}
