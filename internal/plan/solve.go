package plan

import (
	"math"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
)

// ways are what a solution may use.
type ways struct {
	lane  func(*Lane) bool
	batch bool // by choice; jobs that ask for batch go there in any case
	// deadlines: whether they are kept. Otherwise every job has until the limit.
	deadlines bool
	limit     time.Duration // until which online calls begin, from the moment when workers are there and know their lanes
	percent   int           // of the lanes' rates
}

// solution says how many jobs of each demand go where.
type solution struct {
	online [][]int64 // by demand and lane
	batch  []int64
	late   []int64 // that no way is left for
	cost   int64   // what is paid for it, in nano-dollars; of a batch a little more, so that lanes are taken that cost as much
}

func (s *solution) lateJobs() (n int64) {
	for _, l := range s.late {
		n += l
	}
	return n
}

// solve finds the cheapest way to do as many jobs as possible.
func (r *Request) solve(w ways) *solution {
	cuts := r.cuts(w)
	lanes := len(r.Lanes)
	// Nodes: the source, the sink, the demands, and each lane's time up to each cut.
	slot := func(lane, cut int) int { return 2 + len(r.Demands) + lane*len(cuts) + cut }
	n := newNetwork(slot(lanes, 0))
	const source, sink = 0, 1
	for i := range r.Lanes {
		l := &r.Lanes[i]
		before := int64(0)
		for k, cut := range cuts {
			until := r.capacity(l, cut, w.percent)
			n.connect(slot(i, k), sink, until-before, 0)
			before = until
			if k > 0 { // who has time until a cut may be served before
				n.connect(slot(i, k), slot(i, k-1), endless, 0)
			}
		}
	}
	s := &solution{batch: make([]int64, len(r.Demands)), late: make([]int64, len(r.Demands))}
	online, batch, all := make([][]int, len(r.Demands)), make([]int, len(r.Demands)), make([]int, len(r.Demands))
	for g := range r.Demands {
		d := &r.Demands[g]
		all[g] = n.connect(source, 2+g, d.Jobs, 0)
		online[g], batch[g] = make([]int, lanes), -1
		for i := range r.Lanes {
			l := &r.Lanes[i]
			online[g][i] = -1
			if k := slices.Index(cuts, r.window(d, l, w)); k >= 0 && l.serves(d) && w.lane(l) {
				online[g][i] = n.connect(2+g, slot(i, k), endless, unitCost(l, d))
			}
		}
		if r.mayBatch(d) && (w.batch || d.Mode == jobs.Batch) {
			batch[g] = n.connect(2+g, sink, endless, int64(d.Cost[jobs.TierBatch])/d.Jobs+1)
		}
	}
	_, s.cost = n.fill(source, sink)
	for g := range r.Demands {
		s.online = append(s.online, make([]int64, lanes))
		for i, arc := range online[g] {
			if arc >= 0 {
				s.online[g][i] = n.flowed(arc)
			}
		}
		if batch[g] >= 0 {
			s.batch[g] = n.flowed(batch[g])
		}
		s.late[g] = r.Demands[g].Jobs - n.flowed(all[g])
	}
	return s
}

// unitCost is what a job's image costs by a lane, on average over the demand. Exact sums come later.
func unitCost(l *Lane, d *Demand) int64 {
	if l.prepaid() {
		return 0
	}
	return int64(l.bill(d)) / d.Jobs
}

// mayBatch reports whether jobs may go by batch: there is a batch lane for their model, their deadline leaves the time, and there are enough of them.
func (r *Request) mayBatch(d *Demand) bool {
	fits := func(d *Demand) bool {
		return d.batchable() && slices.ContainsFunc(r.Batch, func(l Lane) bool {
			return l.Model == d.Model.ID && (d.Region == jobs.GlobalRegion || d.Region == l.Region) && (len(l.Sizes) == 0 || slices.Contains(l.Sizes, d.Size))
		})
	}
	if !fits(d) || d.Mode == jobs.Batch {
		return fits(d)
	}
	together := int64(0)
	for i := range r.Demands {
		if o := &r.Demands[i]; o.Model == d.Model && o.Region == d.Region && fits(o) {
			together += o.Jobs
		}
	}
	return together >= submit.MinBatchJobs
}

// window is how long a lane may begin calls for jobs, from the moment when workers are there and know their lanes.
func (r *Request) window(d *Demand, l *Lane, w ways) time.Duration {
	if !w.deadlines || d.Within == 0 {
		return w.limit
	}
	left := d.Within
	if l.Tier == tierFlex {
		left -= flexBound
	}
	left -= r.StartUp + settling + r.tail(l, d)
	return min(w.limit, max(0, time.Duration(float64(left)*(1-r.Reserve))).Truncate(time.Second))
}

// tail is how long the last calls take: more than the mean, since the last of many calls are the long ones.
func (r *Request) tail(l *Lane, d *Demand) time.Duration { return 2 * l.callTime(d.Size) }

// cuts are the ends of all windows, in order.
func (r *Request) cuts(w ways) (all []time.Duration) {
	for g := range r.Demands {
		for i := range r.Lanes {
			if at := r.window(&r.Demands[g], &r.Lanes[i], w); at > 0 {
				all = append(all, at)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// capacity is how many jobs a lane does in a time. Some need more than one call.
func (r *Request) capacity(l *Lane, time time.Duration, percent int) int64 {
	return int64(math.Floor(l.PerMinute * float64(percent) / 100 * time.Minutes() / (1 + r.Retries)))
}

// horizon is a time in which even the slowest lane does all jobs.
func (r *Request) horizon() time.Duration {
	slowest, total := math.Inf(1), int64(0)
	for i := range r.Lanes {
		if rate := r.Lanes[i].PerMinute; rate > 0 {
			slowest = min(slowest, rate)
		}
	}
	for i := range r.Demands {
		total += r.Demands[i].Jobs
	}
	minutes := float64(total)*(1+r.Retries)/slowest + 1
	return min(time.Duration(minutes*float64(time.Minute)), maxHorizon).Round(time.Second)
}

// maxHorizon keeps times within what time.Duration holds.
const maxHorizon = 100 * 365 * 24 * time.Hour

// quickest shortens a solution: it returns the one with the smallest limit that is still as good, and the ways with that limit.
func (r *Request) quickest(w ways, good func(*solution) bool) (*solution, ways) {
	low, high := time.Duration(0), w.limit // low is not enough, high is
	best := r.solve(w)
	for high-low > time.Second {
		w.limit = (low + (high-low)/2).Truncate(time.Second)
		if w.limit <= low {
			break
		}
		if s := r.solve(w); good(s) {
			best, high = s, w.limit
		} else {
			low = w.limit
		}
	}
	w.limit = high
	return best, w
}
