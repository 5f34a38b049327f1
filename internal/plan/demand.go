package plan

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Demand is jobs that differ in nothing that matters to a plan but in what their prompts cost.
type Demand struct {
	Model  *jobs.Model
	Size   string
	Region string // data region; jobs.GlobalRegion: anywhere
	// Mode is Online or Batch where the jobs say so, and Auto where the plan may choose.
	Mode jobs.Mode
	// Within is how long after the beginning they must be done; 0: no deadline.
	Within time.Duration
	Jobs   int64
	// Cost is what the images of all the jobs should cost by tier, at list price.
	Cost map[string]jobs.USD
}

// batchable reports whether the jobs may go by batch.
func (d *Demand) batchable() bool {
	fits := d.Model.HasTier(jobs.TierBatch) && slices.Contains(d.Model.BatchSizes, d.Size) && (d.Within == 0 || d.Within >= jobs.BatchTime)
	return fits && d.Mode != jobs.Online
}

// Bounds of what a Counter remembers.
const (
	// maxPrices bounds the prices that are remembered: jobs whose prompts are equally long cost the same.
	maxPrices = 4096
	// maxDeadlines bounds the deadlines that are told apart. Beyond it, those that are nearest to each other count as the earlier of them.
	maxDeadlines = 24
)

// Deadlines are rounded down to deadlineStep; those more than a day away to an hour, more than two weeks to a day.
const deadlineStep = 5 * time.Minute

// Counter sums up jobs one by one, in memory that does not grow with their number. It is not safe for concurrent use.
type Counter struct {
	catalogue *jobs.Catalogue
	start     time.Time
	tiers     []string
	demands   map[demandKey]*Demand
	prices    map[priceKey][]jobs.USD // one for each tier
}

type demandKey struct {
	model, size, region string
	mode                jobs.Mode
	within              time.Duration
}

type priceKey struct {
	model, size string
	prompt      int64 // tokens
}

// NewCounter returns a Counter of jobs whose deadlines are counted from a start.
func NewCounter(c *jobs.Catalogue, start time.Time) *Counter {
	return &Counter{catalogue: c, start: start, tiers: c.Tiers(), demands: map[demandKey]*Demand{}, prices: map[priceKey][]jobs.USD{}}
}

// Add counts n jobs that are alike. Mode says how they are to be called, whatever the job says.
func (c *Counter) Add(j *jobs.Job, mode jobs.Mode, n int64) { c.add(j, mode, j.EstimatedUsage(), n) }

// AddTokens is Add for jobs whose input, texts and images together, has that many tokens.
func (c *Counter) AddTokens(j *jobs.Job, mode jobs.Mode, tokens, n int64) {
	usage := j.EstimatedUsage()
	usage.Total += tokens - usage.Prompt
	usage.Prompt = tokens
	c.add(j, mode, usage, n)
}

func (c *Counter) add(j *jobs.Job, mode jobs.Mode, usage jobs.Usage, n int64) {
	key := demandKey{j.Model.ID, j.Size, j.Region, mode, 0}
	if !j.Deadline.IsZero() {
		key.within = coarse(j.Deadline.Sub(c.start))
	}
	d := c.demands[key]
	if d == nil {
		d = &Demand{Model: j.Model, Size: j.Size, Region: j.Region, Mode: mode, Within: key.within, Cost: map[string]jobs.USD{}}
		c.demands[key] = d
	}
	d.Jobs += n
	for i, price := range c.price(j, usage) {
		d.Cost[c.tiers[i]] += jobs.USD(n) * price
	}
}

// coarse rounds a deadline down, so that few are told apart. One that has passed is the nearest there is.
func coarse(within time.Duration) time.Duration {
	step := deadlineStep
	switch {
	case within > 14*24*time.Hour:
		step = 24 * time.Hour
	case within > 24*time.Hour:
		step = time.Hour
	}
	return max(within.Truncate(step), time.Second)
}

func (c *Counter) price(j *jobs.Job, usage jobs.Usage) []jobs.USD {
	key := priceKey{j.Model.ID, j.Size, usage.Prompt}
	if known := c.prices[key]; known != nil {
		return known
	}
	all := make([]jobs.USD, len(c.tiers))
	for i, tier := range c.tiers {
		all[i] = c.catalogue.Cost(j.Model, tier, usage)
	}
	if len(c.prices) < maxPrices {
		c.prices[key] = all
	}
	return all
}

// Demands returns what was counted, the nearest deadlines first.
func (c *Counter) Demands() []Demand {
	merged := c.mergeDeadlines()
	sums := map[demandKey]*Demand{}
	for key, d := range c.demands {
		key.within = merged[key.within]
		sum := sums[key]
		if sum == nil {
			copied := *d
			copied.Within, copied.Cost = key.within, maps.Clone(d.Cost)
			sums[key] = &copied
			continue
		}
		sum.Jobs += d.Jobs
		for tier, cost := range d.Cost {
			sum.Cost[tier] += cost
		}
	}
	var all []Demand
	for _, d := range sums {
		all = append(all, *d)
	}
	slices.SortFunc(all, compareDemands)
	return all
}

func compareDemands(a, b Demand) int {
	return cmp.Or(cmp.Compare(deadlineOrder(a.Within), deadlineOrder(b.Within)), cmp.Compare(a.Model.ID, b.Model.ID), cmp.Compare(a.Size, b.Size),
		cmp.Compare(a.Region, b.Region), cmp.Compare(a.Mode, b.Mode))
}

// deadlineOrder puts jobs without a deadline last.
func deadlineOrder(within time.Duration) time.Duration {
	if within == 0 {
		return 1<<63 - 1
	}
	return within
}

// mergeDeadlines returns for each deadline the one that it counts as.
func (c *Counter) mergeDeadlines() map[time.Duration]time.Duration {
	merged := map[time.Duration]time.Duration{0: 0}
	var all []time.Duration
	for key := range c.demands {
		if _, known := merged[key.within]; !known {
			merged[key.within] = key.within
			all = append(all, key.within)
		}
	}
	slices.Sort(all)
	for len(all) > maxDeadlines {
		nearest := 1
		for i := 1; i < len(all); i++ {
			// By share and not by span: an hour is much for a deadline of two hours and little for one of a week.
			if float64(all[i])/float64(all[i-1]) < float64(all[nearest])/float64(all[nearest-1]) {
				nearest = i
			}
		}
		for from, to := range merged {
			if to == all[nearest] {
				merged[from] = all[nearest-1]
			}
		}
		all = slices.Delete(all, nearest, nearest+1)
	}
	return merged
}
