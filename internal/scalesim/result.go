package scalesim

import (
	"cmp"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Result is what a scenario came to.
type Result struct {
	Minutes       []Minute
	Arrived, Done int // jobs
	Lanes         []LaneUse
	Campaigns     []CampaignEnd
	// Stops are workers that were told to stop, and InFlightAtStops the calls that they had under way.
	Stops, InFlightAtStops int
	// Lost are calls that were cut off at the end of a worker's grace: paid, and nobody has the image. LostSlow are those of them that take longer
	// than calls usually take.
	Lost, LostSlow int
	PodSeconds     int
	PodCost        jobs.USD
	ImageCost      jobs.USD // of all calls that were taken
	Ended          time.Duration
}

// Minute is how things stood at the end of a minute.
type Minute struct {
	Backlog   int // jobs that are not done
	Queued    int // of these, those that no worker holds
	Oldest    int // seconds since the oldest of them came
	Wanted    int // workers that the autoscaler asks for
	Ready     int // workers that take jobs
	Pods      int // those that start and stop included
	InFlight  int // calls
	Stopping  int // of these, those of workers that were told to stop
	Images    int // stored in that minute
	Quota     int // calls a minute of all lanes
	Throttled int // calls in that minute
	Attempts  int
}

// LaneUse is what a lane served.
type LaneUse struct {
	Name  string
	Calls int // that were taken
	Again int // of these, those that ended without an image
	Cost  jobs.USD
}

// CampaignEnd is when the last job of a campaign was done, taken that jobs are done in the order in which they come.
type CampaignEnd struct {
	Name  string
	Jobs  int
	At    time.Duration // when the last of them had come
	Ended time.Duration // 0: not within the scenario
}

func (s *sim) sample() {
	m := s.measure()
	minute := Minute{
		Backlog: m.backlog, Queued: s.queue, Oldest: m.oldest, Wanted: s.scaler.replicas, Ready: s.callers(), Pods: len(s.pods), InFlight: m.inFlight,
		Images: s.images, Throttled: s.throttles, Attempts: s.attempts,
	}
	for _, p := range s.pods {
		if p.state == draining {
			minute.Stopping += p.inFlight
		}
	}
	for _, l := range s.lanes {
		minute.Quota += l.quota
	}
	s.result.Minutes = append(s.result.Minutes, minute)
	s.counts = counts{}
	for i := range s.result.Campaigns {
		c := &s.result.Campaigns[i]
		if c.Ended == 0 && s.now >= secs(c.At) && s.done >= s.cameUntil(secs(c.At)) {
			c.Ended = time.Duration(s.now+1) * time.Second
		}
	}
}

func (s *sim) finish() {
	r := s.result
	r.Arrived, r.Done, r.Ended = s.arrived, s.done, time.Duration(s.now)*time.Second
	for _, l := range s.lanes {
		use := LaneUse{l.spec.Name, l.begun, l.again, jobs.USD(l.begun) * l.spec.Price}
		r.Lanes = append(r.Lanes, use)
		r.ImageCost += use.Cost
	}
	r.PodCost = jobs.USD(r.PodSeconds) * s.Pods.PricePerHour / jobs.USD(time.Hour/time.Second)
}

// Plateau is the median of a figure over the minutes in which jobs wait that no worker holds: what it is while there is more work than can be
// done at once.
func (r *Result) Plateau(of func(*Minute) int) int {
	var all []int
	for i := range r.Minutes {
		if r.Minutes[i].Queued > 0 {
			all = append(all, of(&r.Minutes[i]))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.SortFunc(all, cmp.Compare[int])
	return all[len(all)/2]
}
