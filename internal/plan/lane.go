package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/worker/lanes"
)

// Tiers that a plan has to tell apart.
const (
	tierProvisioned = "provisioned"
	tierFlex        = "flex"
)

const (
	// AssumedRate is the images a minute of a lane of which nothing is known, as jobs/submit has it: a project with some history. A new one
	// may get 5.
	AssumedRate = submit.DefaultOnlineRate
	// flexPerMinute is what Vertex takes at most of one project in the flex tier, for each model.
	flexPerMinute = 3000
	// flexBound is how long a flex call may take. A job whose deadline is nearer does not go by flex.
	flexBound = 30 * time.Minute
	// flexSlower is how many times as long as others a flex call takes, where nothing is known. Google promises half an hour and no more.
	flexSlower = 2
)

// assumedCallTimes are how long calls take by size, where nothing is known. They are field reports: 7 to 60 s.
var assumedCallTimes = map[string]time.Duration{"512": 15 * time.Second, "1K": 20 * time.Second, "2K": 35 * time.Second, "4K": 60 * time.Second}

// AssumedCallTime is how long a call for an image of that size takes where nothing is known.
func AssumedCallTime(size string) time.Duration { return assumedCallTimes[size] }

// Source says where a rate comes from.
type Source string

// Sources.
const (
	Given   Source = "given"   // on the command line
	Learned Source = "learned" // from workers
	Assumed Source = "assumed"
	Unknown Source = "unknown" // the lane is not counted on
)

// Lane is a way to get calls served, as a plan sees it: with the quota of all workers together.
type Lane struct {
	Name     string
	Model    string
	Location string
	Tier     string
	// Region is the data region that a call is sure to stay in; empty: none.
	Region     string
	Sizes      []string  // that it serves; empty: all of the model
	ImagePrice *jobs.USD // what an image costs, where the catalogue's list price does not hold
	// PerMinute is how many images it makes a minute, for all workers together.
	PerMinute float64
	Source    Source        // of PerMinute
	CallTime  time.Duration // mean; 0: AssumedCallTime of the size, for flex flexSlower times that
	// What each worker keeps to; 0: no bound.
	WorkerPerMinute float64
	WorkerInFlight  int
}

// FromConfig returns the lanes of a configuration: those for online calls, and those of tier batch. None has a rate yet.
func FromConfig(cfg *lanes.Config) (online, batch []Lane) {
	convert := func(list []lanes.LaneConfig) (all []Lane) {
		for _, l := range list {
			lane := Lane{
				Name: l.Name, Model: l.Model, Location: l.Location, Tier: l.Tier, Sizes: l.Sizes, ImagePrice: l.ImagePrice, Source: Unknown,
				WorkerPerMinute: l.MaxPerMinute, WorkerInFlight: l.MaxInFlight,
			}
			// The reader of the configuration has seen to it that a lane's host is where the lane is.
			if l.Location != jobs.GlobalRegion {
				lane.Region = l.Location
			}
			all = append(all, lane)
		}
		return all
	}
	return convert(cfg.Lanes), convert(cfg.Batch)
}

// Home returns which lanes jobs go to first: those at the preferred location, or where their data region is, endpoints of one's own, and all of a model
// that has none of these.
func Home(all []Lane, prefer string, demands []Demand) func(*Lane) bool {
	first := func(l *Lane) bool {
		return l.Location == prefer || l.Tier == jobs.TierDedicated ||
			slices.ContainsFunc(demands, func(d Demand) bool { return d.Model.ID == l.Model && d.Region == l.Region })
	}
	return func(l *Lane) bool {
		return first(l) || !slices.ContainsFunc(all, func(o Lane) bool { return o.Model == l.Model && first(&o) })
	}
}

// Rates are what is known of the lanes.
type Rates struct {
	// Named are images a minute by the name of a lane or by a tier; PerMinute is for lanes that are not named and that nothing has been learned
	// of; 0: AssumedRate.
	Named     map[string]float64
	PerMinute float64
	// CallTimes are by the name of a lane or by a tier; CallTime is for the others; 0: as learned, or else assumed.
	CallTimes map[string]time.Duration
	CallTime  time.Duration
	Learned   map[string]LearnedLane
}

// LearnedLane is what workers have learned of a lane.
type LearnedLane struct {
	PerMinute float64       // images a minute of all workers together
	CallTime  time.Duration // mean; 0: no call has ended
}

// Apply gives each lane its rate and its length of calls: what is said of it by name, else by tier, else what was learned of it, else what is
// said of all, else what is assumed. What is not said by name or learned is only for lanes that jobs go to first, as home says: jobs rarely
// go elsewhere, and a catalogue with fourteen locations is no fourteen times the quota. Names that no lane has are an error.
func (r *Rates) Apply(all []Lane, home func(*Lane) bool) error {
	names, tiers := map[string]bool{}, map[string]bool{}
	for i := range all {
		names[all[i].Name], tiers[all[i].Tier] = true, true
	}
	for _, name := range slices.Sorted(maps.Keys(r.said())) {
		if !names[name] && !tiers[name] {
			return fmt.Errorf("%q is no lane and no tier; there are the lanes %s, of the tiers %s", name,
				strings.Join(slices.Sorted(maps.Keys(names)), ", "), strings.Join(slices.Sorted(maps.Keys(tiers)), ", "))
		}
	}
	for i := range all {
		l := &all[i]
		r.rate(l, home(l))
		if l.Tier == tierFlex {
			l.PerMinute = min(l.PerMinute, flexPerMinute)
		}
		l.CallTime = r.callTime(l)
	}
	return nil
}

// said are the names that something is said of.
func (r *Rates) said() map[string]bool {
	all := map[string]bool{}
	for name := range r.Named {
		all[name] = true
	}
	for name := range r.CallTimes {
		all[name] = true
	}
	return all
}

func (r *Rates) rate(l *Lane, home bool) {
	byName, named := r.Named[l.Name]
	byTier, tiered := r.Named[l.Tier]
	learned, known := r.Learned[l.Name]
	switch {
	case named:
		l.PerMinute, l.Source = byName, Given
	case tiered && home:
		l.PerMinute, l.Source = byTier, Given
	case known:
		l.PerMinute, l.Source = learned.PerMinute, Learned
	case !home:
		l.PerMinute, l.Source = 0, Unknown
	case r.PerMinute > 0:
		l.PerMinute, l.Source = r.PerMinute, Given
	default:
		l.PerMinute, l.Source = AssumedRate, Assumed
	}
}

func (r *Rates) callTime(l *Lane) time.Duration {
	for _, name := range []string{l.Name, l.Tier} {
		if t := r.CallTimes[name]; t > 0 {
			return t
		}
	}
	if t := r.Learned[l.Name].CallTime; t > 0 && r.CallTime == 0 {
		return t
	}
	return r.CallTime
}

// callTime is how long the lane's calls for a size take.
func (l *Lane) callTime(size string) time.Duration {
	switch t := AssumedCallTime(size); {
	case l.CallTime > 0:
		return l.CallTime
	case l.Tier == tierFlex:
		return flexSlower * t
	default:
		return t
	}
}

// serves reports whether the lane may serve jobs, by the rules of docs/lanes.md.
func (l *Lane) serves(d *Demand) bool {
	return d.Mode != jobs.Batch && l.Model == d.Model.ID && (d.Region == jobs.GlobalRegion || d.Region == l.Region) &&
		(len(l.Sizes) == 0 || slices.Contains(l.Sizes, d.Size))
}

// bill is what the images of all the jobs are put down at.
func (l *Lane) bill(d *Demand) jobs.USD {
	if l.ImagePrice != nil {
		return jobs.USD(d.Jobs) * *l.ImagePrice
	}
	return d.Cost[l.Tier]
}

// prepaid reports whether the lane's images are paid already.
func (l *Lane) prepaid() bool { return l.Tier == tierProvisioned }

// DefaultBatch returns the batch lanes of workers without a file of lanes: one for each model that the catalogue offers there.
func DefaultBatch(c *jobs.Catalogue) (all []Lane) {
	for _, id := range c.ModelIDs() {
		if m := c.Model(id); m.HasTier(jobs.TierBatch) && slices.Contains(m.Locations, jobs.GlobalRegion) {
			all = append(all, Lane{Name: id + "/" + jobs.GlobalRegion + "/" + jobs.TierBatch, Model: id, Location: jobs.GlobalRegion, Tier: jobs.TierBatch})
		}
	}
	return all
}

// Relevant returns the lanes of models that are asked for.
func Relevant(all []Lane, demands []Demand) []Lane {
	return slices.DeleteFunc(all, func(l Lane) bool {
		return !slices.ContainsFunc(demands, func(d Demand) bool { return d.Model.ID == l.Model })
	})
}
