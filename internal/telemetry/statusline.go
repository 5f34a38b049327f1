package telemetry

import (
	"fmt"
	"strings"
	"time"
)

// window is the span over which images per minute are counted.
const window = time.Minute

// Progress is a worker at one moment, as a person wants to see it.
type Progress struct {
	Held      int // messages that are being handled
	Capacity  int // messages that may be, and so calls that may be under way
	Images    int // made since the start
	Lanes     []Lane
	Reserved  int64 // bytes of the image budget
	Budget    int64
	OldestAge time.Duration // of the jobs held, since publication
	Cost      string        // since the start, in dollars and cents
}

// StatusLine turns moments into lines, one after the other. It is not safe for concurrent use. Use [NewStatusLine].
type StatusLine struct {
	past []sample // at most window old, and one that is older
}

// NewStatusLine returns the line of a worker that has begun at that time, with no images made.
func NewStatusLine(began time.Time) *StatusLine { return &StatusLine{past: []sample{{at: began}}} }

// sample is how many images were made at a time.
type sample struct {
	at     time.Time
	images int
}

// Line returns one line about the worker: the calls in flight, the jobs held, images a minute over the last minute, the rates of its
// lanes, memory, the age of the oldest job and what was spent.
func (t *StatusLine) Line(now time.Time, p Progress) string {
	var b strings.Builder
	calls := 0
	for _, l := range p.Lanes {
		calls += l.InFlight
	}
	fmt.Fprintf(&b, "%s  %d/%d calls in flight  %d held  %.0f images/min", now.Format(time.TimeOnly), calls, p.Capacity, p.Held, t.perMinute(now, p.Images))
	for _, l := range p.Lanes {
		if l.idle() {
			continue
		}
		fmt.Fprintf(&b, "  [%s %.0f/min", l.Name, l.Rate)
		if l.Throttled > 0 {
			fmt.Fprintf(&b, ", %.1f%% throttled", 100*l.Throttled)
		}
		if l.State != "open" {
			fmt.Fprintf(&b, ", %s", l.State)
		}
		b.WriteString("]")
	}
	fmt.Fprintf(&b, "  image memory %s", percent(p.Reserved, p.Budget))
	if p.OldestAge > 0 {
		fmt.Fprintf(&b, "  oldest %s", p.OldestAge.Truncate(time.Second))
	}
	fmt.Fprintf(&b, "  $%s", p.Cost)
	return b.String()
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%% of %d MiB", 100*part/whole, whole>>20)
}

// perMinute notes the images made so far and returns the rate since the oldest note that is at most about a window old.
func (t *StatusLine) perMinute(now time.Time, images int) float64 {
	t.past = append(t.past, sample{now, images})
	for len(t.past) > 2 && now.Sub(t.past[1].at) >= window {
		t.past = t.past[1:]
	}
	first := t.past[0]
	if span := now.Sub(first.at); span > 0 {
		return float64(images-first.images) / span.Minutes()
	}
	return 0
}
