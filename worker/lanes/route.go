package lanes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// flexBound is how long a flex call may take: what Vertex allows. A job whose deadline is nearer does not go by flex.
	flexBound = 30 * time.Minute
	// pressing is how long before its deadline a job takes any lane that serves it, whatever the price. It is the bound of a usual call.
	pressing = 5 * time.Minute
)

// haste is what a job's deadline leaves time for.
type haste int

const (
	relaxed haste = iota // for any tier
	steady               // not for flex
	pressed              // not for waiting for a cheaper lane either
)

// hasteOf returns a job's haste, and when it grows: the zero time stands for never.
func hasteOf(deadline, now time.Time) (h haste, next time.Time) {
	switch {
	case deadline.IsZero():
		return relaxed, time.Time{}
	case deadline.Sub(now) >= flexBound:
		// A nanosecond more, since at the bound itself there is just time.
		return relaxed, deadline.Add(1 - flexBound)
	case deadline.Sub(now) >= pressing:
		return steady, deadline.Add(1 - pressing)
	default:
		return pressed, time.Time{}
	}
}

// class is all that routing needs to know of a job. Jobs of one class have the same lanes in the same order. There are no more
// classes than the catalogue has models, sizes and locations, times the three kinds of haste.
type class struct {
	model  *jobs.Model
	size   string
	region string
	haste  haste
}

func (k class) strict() bool { return k.region != jobs.GlobalRegion }

// String says what a job of the class asks for.
func (k class) String() string {
	text := fmt.Sprintf("model %s, size %s, ", k.model.ID, k.size)
	if k.strict() {
		text += "data region " + k.region
	} else {
		text += "any region"
	}
	if k.haste != relaxed {
		text += fmt.Sprintf(", a deadline in less than %d minutes", int(flexBound.Minutes()))
	}
	return text
}

// distance is how far a lane is from serving a class of jobs. The nearest lanes tell best what is to be changed.
type distance int

const (
	serves distance = iota
	isShut
	lacksBucket
	lacksTime
	lacksSize
	lacksRegion
	lacksModel
)

// mismatch says how far a lane is from serving a class of jobs, and why, as the end of a sentence that begins with the lane. storable says
// whether assets can be stored in the class's region.
//
// This is the one place that decides where a job may go.
func mismatch(l *lane, k class, storable bool) (d distance, why string) {
	switch {
	case l.cfg.Model != k.model.ID:
		return lacksModel, "serves " + l.cfg.Model
	case k.strict() && l.cfg.Location != k.region:
		return lacksRegion, "is at " + l.cfg.Location
	case k.strict() && l.region != k.region:
		return lacksRegion, "goes to " + l.cfg.Host + ", which may be elsewhere"
	case !has(k.model, k.size), len(l.cfg.Sizes) > 0 && !slices.Contains(l.cfg.Sizes, k.size):
		return lacksSize, "does not serve that size"
	case l.cfg.Tier == tierFlex && k.haste != relaxed:
		return lacksTime, fmt.Sprintf("is flex, whose calls may take %d minutes", int(flexBound.Minutes()))
	case k.strict() && !storable:
		return lacksBucket, "could serve it, but no bucket for assets in " + k.region + " is configured"
	case l.shut != nil:
		return isShut, "is shut: " + l.shut.Error()
	default:
		return serves, ""
	}
}

// has reports whether a model makes images of a size. Its tokens don't tell: they are 0 where an image is paid by the piece.
func has(m *jobs.Model, size string) bool {
	_, ok := m.Sizes[size]
	return ok
}

// option is one lane for a class of jobs.
type option struct {
	lane  *lane
	step  step
	after time.Duration // how long a job waits before it may use the lane
	home  bool          // whether no lane that works comes before it
}

// step is a lane's place in the order of a class's lanes.
type step struct {
	shared int // 0: provisioned, 1: not
	price  jobs.USD
	away   int // for jobs that may run anywhere: 0 for the preferred location, 1 for global, 2 for others
}

func (s step) compare(o step) int {
	return cmp.Or(cmp.Compare(s.shared, o.shared), cmp.Compare(s.price, o.price), cmp.Compare(s.away, o.away))
}

// dearer reports whether going from s to o costs money.
func (s step) dearer(o step) bool {
	return s.shared < o.shared || s.shared == o.shared && s.price < o.price
}

// options returns the lanes that serve a class, in the order in which its jobs use them.
func options(cfg *Config, all []*lane, k class, storable bool) []option {
	var list []option
	for _, l := range all {
		if d, _ := mismatch(l, k, storable); d == serves {
			list = append(list, option{lane: l, step: stepOf(cfg, l, k)})
		}
	}
	slices.SortStableFunc(list, func(a, b option) int { return a.step.compare(b.step) })
	settle(list, k.haste)
	return list
}

func stepOf(cfg *Config, l *lane, k class) step {
	s := step{shared: 1}
	switch {
	case l.cfg.Tier == tierProvisioned:
		s.shared = 0
	case l.cfg.ImagePrice != nil:
		s.price = *l.cfg.ImagePrice
	default:
		// Of the image alone: what the prompt adds is small, and is the same share of the price in each tier.
		image := (&jobs.Job{Model: k.model, Size: k.size}).WithImage(jobs.Usage{Image: int64(k.model.Sizes[k.size])})
		s.price = cfg.Catalogue.Cost(k.model, l.cfg.Tier, image)
	}
	switch {
	case k.strict() || l.cfg.Location == cfg.Prefer:
	case l.cfg.Location == jobs.GlobalRegion:
		s.away = 1
	default:
		s.away = 2
	}
	return s
}

// settle works out what depends on which lanes work: nobody waits for a broken lane, nor is it anybody's first choice.
func settle(list []option, h haste) {
	for i := range list {
		o := &list[i]
		o.after, o.home = 0, true
		for _, before := range list[:i] {
			if before.lane.breaker.state != Open {
				continue
			}
			if before.step != o.step {
				o.home = false
			}
			if h != pressed && before.step.dearer(o.step) {
				o.after = max(o.after, before.lane.spill)
			}
		}
	}
}

// maxNamed bounds how many lanes an error names.
const maxNamed = 5

// refusal is the error for a job that no lane serves.
func refusal(all []*lane, k class, storable bool) error {
	type reason struct {
		distance
		text string
	}
	var near []reason
	for _, l := range all {
		d, why := mismatch(l, k, storable)
		near = append(near, reason{d, fmt.Sprintf("lane %s %s", l.cfg.Name, why)})
	}
	slices.SortStableFunc(near, func(a, b reason) int { return cmp.Compare(a.distance, b.distance) })
	var texts []string
	for _, r := range near {
		texts = append(texts, r.text)
	}
	return fmt.Errorf("%w: it asks for %s; %s", worker.ErrNoLane, k, some(texts))
}

// some joins the first of several texts, and says how many more there are.
func some(texts []string) string {
	if more := len(texts) - maxNamed; more > 0 {
		texts = append(texts[:maxNamed:maxNamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// allShut is the error when no lane is left.
func allShut(all []*lane) error {
	var whys []string
	for _, l := range all {
		whys = append(whys, fmt.Sprintf("%s: %s", l.cfg.Name, l.shut))
	}
	return fmt.Errorf("%w: %s", worker.ErrLanesShut, some(whys))
}
