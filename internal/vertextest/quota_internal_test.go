package vertextest

import (
	"math"
	"slices"
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
				if q.take(c, c.Tier) {
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
		if !q.take(&other, TierStandard) {
			t.Error("another location shares the quota")
		}
		flex := *c
		flex.Tier = TierFlex
		if n := passed(&flex, 10*time.Second); n < 10 || n > 11 {
			t.Errorf("%d flex calls in ten seconds, want 10", n)
		}
		q.set("", 60)
		passed(c, time.Second)
		if n := passed(c, 20*time.Second); math.Abs(float64(n-20)) > 1 {
			t.Errorf("%d calls in 20 s after the quota fell to one a second", n)
		}
		q.set("", 0)
		if n := passed(c, 100*time.Millisecond); n != 100 {
			t.Errorf("%d of 100 calls passed without a quota", n)
		}
	})
}

// admitted asks every 25 ms for d and returns how many calls passed in each minute.
func admitted(q *quota, c *Call, minutes int) []int {
	out := make([]int, minutes)
	for i := range out {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(25 * time.Millisecond) { // virtual time
			if q.take(c, c.Tier) {
				out[i]++
			}
		}
	}
	return out
}

func TestQuotaGrowthIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(&Config{RequestsPerMinute: 600, QuotaGrowth: 100, QuotaBurst: 250 * time.Millisecond}, time.Now)
		c := &Call{Project: "p", Model: "m", Tier: TierStandard}
		got := admitted(q, c, 10)
		for i := 1; i < len(got); i++ {
			if grown := got[i] - got[i-1]; grown > 105 || got[i] > 602 {
				t.Errorf("%v admitted by minute: grew by %d, want at most 100 and up to 600", got, grown)
			}
		}
		if got[0] > 160 || got[9] < 590 {
			t.Errorf("%v admitted by minute: want about 150 at first and 600 in the end", got)
		}
		time.Sleep(10 * time.Minute) // idle: the ramp begins again
		if again := admitted(q, c, 1); again[0] > 160 {
			t.Errorf("%d in the first minute after a pause", again[0])
		}
	})
}

func TestQuotaNoise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{RequestsPerMinute: 1200, QuotaNoise: 0.5, QuotaNoisePeriod: time.Minute, QuotaBurst: 250 * time.Millisecond, Seed: 7}
		c := &Call{Project: "p", Model: "m", Tier: TierStandard}
		got := admitted(newQuota(&cfg, time.Now), c, 12)
		lowest, highest, sum := got[0], got[0], 0
		for _, n := range got {
			lowest, highest, sum = min(lowest, n), max(highest, n), sum+n
		}
		if lowest < 598 || highest > 1802 || lowest > 1100 || highest < 1300 {
			t.Errorf("%v admitted by minute: want 600 to 1800, spread", got)
		}
		if mean := sum / len(got); mean < 1000 || mean > 1400 {
			t.Errorf("mean %d, want about 1200", mean)
		}
		again := admitted(newQuota(&cfg, time.Now), c, 12)
		if !slices.Equal(got, again) {
			t.Errorf("%v and %v: the same seed has other noise", got, again)
		}
		cfg.Seed++
		if other := admitted(newQuota(&cfg, time.Now), c, 12); slices.Equal(got, other) {
			t.Error("another seed has the same noise")
		}
	})
}

func TestQuotaSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(&Config{
			RequestsPerMinute: 60, QuotaBurst: 250 * time.Millisecond, TierRequestsPerMinute: map[string]float64{TierFlex: 30},
			QuotaSteps: []QuotaStep{{time.Minute, 600, ""}, {2 * time.Minute, 120, TierFlex}, {2 * time.Minute, 300, ""}, {4 * time.Minute, 60, ""}},
		}, time.Now)
		got := admitted(q, &Call{Tier: TierStandard}, 3)
		for i, want := range []int{60, 600, 300} {
			if got[i] < want-2 || got[i] > want+2 {
				t.Errorf("%v admitted by minute, want 60, 600, 300", got)
			}
		}
		if got := admitted(q, &Call{Tier: TierFlex}, 1); got[0] < 118 || got[0] > 122 {
			t.Errorf("%d flex calls in a minute, want 120", got[0])
		}
		q.set("", 900) // by hand, for good
		if got := admitted(q, &Call{Tier: TierStandard}, 2); got[1] < 898 {
			t.Errorf("%v admitted by minute, want 900", got)
		}
	})
}

func TestQuotaTableIsBounded(t *testing.T) {
	t.Parallel()
	q := newQuota(&Config{RequestsPerMinute: 1}, time.Now)
	for i := range 2*maxBuckets + 10 {
		q.take(&Call{Project: string(rune(i))}, TierStandard)
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
