package vertextest

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
)

const (
	// maxBuckets bounds the quota table. A test uses a handful of lanes.
	maxBuckets = 4096

	// growthWindow is over how long the admitted rate is averaged that QuotaGrowth
	// lets grow. With a minute the bound per minute is also the head start.
	growthWindow = time.Minute
)

// QuotaStep is a change of the quota at a fixed time.
type QuotaStep struct {
	// After is the time since [Start].
	After time.Duration
	// RequestsPerMinute from then on; 0: no quota.
	RequestsPerMinute float64
	// Tier whose own quota changes. Empty: Config.RequestsPerMinute.
	Tier string
}

// quota is a token bucket for each (project, location, model, tier). The rate
// at which it fills is the configured one, as changed by steps, by the noise of
// other tenants and by the bound on growth.
type quota struct {
	now    func() time.Time
	start  time.Time
	burst  time.Duration
	seed   uint64
	noise  float64
	period time.Duration
	growth float64

	mu      sync.Mutex
	rpm     float64
	tiers   map[string]float64
	steps   []QuotaStep // still to come, in order
	buckets map[quotaKey]*bucket
}

type quotaKey struct{ project, location, model, tier string }

type bucket struct {
	tokens   float64
	at       time.Time
	admitted float64 // requests per minute, averaged over growthWindow
}

func newQuota(cfg *Config, now func() time.Time) *quota {
	q := &quota{
		now: now, start: now(), burst: cfg.QuotaBurst, seed: cfg.Seed, noise: cfg.QuotaNoise, period: cfg.QuotaNoisePeriod,
		growth: cfg.QuotaGrowth, rpm: cfg.RequestsPerMinute, tiers: map[string]float64{}, buckets: map[quotaKey]*bucket{},
	}
	for tier, rpm := range cfg.TierRequestsPerMinute {
		q.tiers[tier] = rpm
	}
	q.steps = append(q.steps, cfg.QuotaSteps...)
	return q
}

// set changes the quota of tier, or with "" of all tiers without their own,
// and drops the steps that would change it again.
func (q *quota) set(tier string, rpm float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var left []QuotaStep
	for _, s := range q.steps {
		if s.Tier != tier {
			left = append(left, s)
		}
	}
	q.steps = left
	q.change(tier, rpm)
}

func (q *quota) change(tier string, rpm float64) {
	if tier == "" {
		q.rpm = rpm
	} else {
		q.tiers[tier] = rpm
	}
}

// has reports whether tier has a quota of its own, that is for the provisioned
// tier whether throughput was bought.
func (q *quota) has(tier string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.tiers[tier]
	return ok
}

// take reports whether a call of c's lane may pass now in the given tier.
func (q *quota) take(c *Call, tier string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for len(q.steps) > 0 && now.Sub(q.start) >= q.steps[0].After {
		q.change(q.steps[0].Tier, q.steps[0].RequestsPerMinute)
		q.steps = q.steps[1:]
	}
	rpm, ok := q.tiers[tier]
	if !ok {
		rpm = q.rpm
	}
	if rpm == 0 {
		return true
	}
	key := quotaKey{c.Project, c.Location, c.Model, tier}
	rpm *= q.share(key, now)
	b, fresh := q.bucket(key, now)
	elapsed := now.Sub(b.at)
	b.at = now
	b.admitted *= math.Exp(-elapsed.Seconds() / growthWindow.Seconds())
	if q.growth > 0 {
		rpm = min(rpm, b.admitted+q.growth)
	}
	perSecond := rpm / 60
	limit := max(1, perSecond*q.burst.Seconds())
	b.tokens = min(limit, b.tokens+elapsed.Seconds()*perSecond)
	if fresh {
		b.tokens = limit
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	b.admitted += 1 / growthWindow.Minutes()
	return true
}

func (q *quota) bucket(key quotaKey, now time.Time) (b *bucket, fresh bool) {
	if b = q.buckets[key]; b != nil {
		return b, false
	}
	if len(q.buckets) >= maxBuckets {
		clear(q.buckets)
	}
	b = &bucket{at: now}
	q.buckets[key] = b
	return b, true
}

// share is how much of the quota other tenants leave: 1 more or less noise, a
// line between random points one period apart.
func (q *quota) share(key quotaKey, now time.Time) float64 {
	if q.noise == 0 {
		return 1
	}
	at := now.Sub(q.start).Seconds() / q.period.Seconds()
	i, part := math.Modf(at)
	point := func(i float64) float64 {
		name := key.project + "\x00" + key.location + "\x00" + key.model + "\x00" + key.tier
		return 2*newDice(q.seed, binary.BigEndian.AppendUint64([]byte(name), uint64(i)), 0).unit("noise") - 1
	}
	return 1 + q.noise*(point(i)*(1-part)+point(i+1)*part)
}
