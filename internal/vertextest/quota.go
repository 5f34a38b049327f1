package vertextest

import (
	"sync"
	"time"
)

// maxBuckets bounds the quota table. A test uses a handful of lanes.
const maxBuckets = 4096

// quota is a token bucket for each (project, location, model, tier).
type quota struct {
	now   func() time.Time
	burst time.Duration

	mu      sync.Mutex
	rpm     float64
	tiers   map[string]float64
	buckets map[quotaKey]*bucket
}

type quotaKey struct{ project, location, model, tier string }

type bucket struct {
	tokens float64
	at     time.Time
}

func newQuota(cfg *Config, now func() time.Time) *quota {
	return &quota{
		now: now, burst: cfg.QuotaBurst, rpm: cfg.RequestsPerMinute, tiers: cfg.TierRequestsPerMinute,
		buckets: map[quotaKey]*bucket{},
	}
}

func (q *quota) set(rpm float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rpm = rpm
}

// take reports whether a call of c's lane may pass now.
func (q *quota) take(c *Call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	rpm, ok := q.tiers[c.Tier]
	if !ok {
		rpm = q.rpm
	}
	if rpm == 0 {
		return true
	}
	perSecond := rpm / 60
	limit := max(1, perSecond*q.burst.Seconds())
	now := q.now()
	key := quotaKey{c.Project, c.Location, c.Model, c.Tier}
	b := q.buckets[key]
	if b == nil {
		if len(q.buckets) >= maxBuckets {
			clear(q.buckets)
		}
		b = &bucket{tokens: limit, at: now}
		q.buckets[key] = b
	}
	b.tokens = min(limit, b.tokens+now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
