package vertextest

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuotaSpacesCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{RequestsPerMinute: 600, QuotaBurst: 250 * time.Millisecond, TierRequestsPerMinute: map[string]float64{TierFlex: 60}}
		q := newQuota(&cfg, time.Now)
		c := &Call{Project: "p", Location: "global", Model: "m", Tier: TierStandard}
		passed := func(c *Call, for_ time.Duration) int {
			n := 0
			for end := time.Now().Add(for_); time.Now().Before(end); time.Sleep(time.Millisecond) { // virtual time
				if q.take(c) {
					n++
				}
			}
			return n
		}
		// 10 a second; the bucket holds 2.5 at the start.
		if n := passed(c, time.Second); n < 11 || n > 13 {
			t.Errorf("%d calls in the first second, want 10 and the burst", n)
		}
		if n := passed(c, 10*time.Second); math.Abs(float64(n-100)) > 1 {
			t.Errorf("%d calls in ten seconds, want 100", n)
		}
		time.Sleep(time.Hour)
		if n := passed(c, 5*time.Millisecond); n != 2 {
			t.Errorf("%d calls at once after an idle hour, want 2: unused quota is not saved", n)
		}
		// Lanes have their own buckets, tiers their own rates.
		other := *c
		other.Location = "us-central1"
		if !q.take(&other) {
			t.Error("another location shares the quota")
		}
		flex := *c
		flex.Tier = TierFlex
		if n := passed(&flex, 10*time.Second); n < 10 || n > 11 {
			t.Errorf("%d flex calls in ten seconds, want 10", n)
		}
		q.set(60)
		passed(c, time.Second)
		if n := passed(c, 20*time.Second); math.Abs(float64(n-20)) > 1 {
			t.Errorf("%d calls in 20 s after the quota fell to one a second", n)
		}
		q.set(0)
		if n := passed(c, 100*time.Millisecond); n != 100 {
			t.Errorf("%d of 100 calls passed without a quota", n)
		}
	})
}

func TestQuotaTableIsBounded(t *testing.T) {
	t.Parallel()
	q := newQuota(&Config{RequestsPerMinute: 1}, time.Now)
	for i := range 2*maxBuckets + 10 {
		q.take(&Call{Project: string(rune(i))})
	}
	if n := len(q.buckets); n > maxBuckets {
		t.Errorf("%d buckets", n)
	}
}

func TestSeenIsBounded(t *testing.T) {
	t.Parallel()
	s := &seen{content: map[uint64]uint32{}}
	for i := range uint64(maxSeen) {
		s.content[i|1<<63] = 1
	}
	if n := s.countContent([32]byte{1}); n != 0 || len(s.content) != 1 {
		t.Errorf("number %d, table of %d; want a new table", n, len(s.content))
	}
}
