package pace

import (
	"math"
	"time"
)

// Moment is a time of the clock that all workers share, in milliseconds since 1970. 0 is none.
type Moment int64

// MomentOf returns a time of the shared clock as a moment.
func MomentOf(t time.Time) Moment { return Moment(t.UnixMilli()) }

func (m Moment) add(d time.Duration) Moment          { return m + Moment(d/time.Millisecond) }
func (m Moment) sub(earlier Moment) time.Duration    { return time.Duration(m-earlier) * time.Millisecond }
func (m Moment) addSeconds(s float64) Moment         { return m + Moment(math.Round(s*1000)) }
func (m Moment) slot(length time.Duration) int64     { return int64(m) / length.Milliseconds() }
func slotStart(i int64, length time.Duration) Moment { return Moment(i * length.Milliseconds()) }

// Plan is how the workers share a lane from a moment on. With Seats at 0 they call
// together, each at its own pace. Else the lane's rate is divided among so many
// seats, and the members of the lane take turns on them, Slot by Slot.
type Plan struct {
	Seats int           `json:"k,omitempty"`
	Slot  time.Duration `json:"s,omitempty"`
	From  Moment        `json:"f,omitempty"`
}

func (p Plan) together() bool { return p.Seats == 0 }

// Report is what a worker tells the others of one lane. It is a value that goes
// as JSON through storage, so that its names are short.
type Report struct {
	Rate   float64 `json:"r"` // calls a second: of its seat, or its own when all call together
	Growth float64 `json:"g"` // 1/s, as in the law
	Quiet  float64 `json:"q"` // s, as in the law
	Taken  float64 `json:"t"` // calls a second that were taken lately, or are on their way
	Seat   int     `json:"i,omitempty"`
	Under  Plan    `json:"u"`           // under which Rate was learned
	Last   Moment  `json:"l"`           // the last call
	Plan   Plan    `json:"p"`           // that the worker follows
	Next   Plan    `json:"n"`           // that it will follow; From is 0 when there is none
	Wants  bool    `json:"w,omitempty"` // jobs wait for the lane's pace, and have for some time
	Since  Moment  `json:"b,omitempty"` // since when it wants
	Spare  bool    `json:"e,omitempty"` // its last turn was longer than its jobs needed

	Excess    float64 `json:"x,omitempty"` // throttles, as in the law
	Edge      float64 `json:"d,omitempty"` // calls a second, as in the law
	Calls     float64 `json:"c,omitempty"` // its evidence on throttles that do not depend on the rate
	Throttles float64 `json:"h,omitempty"`
	Ease      Moment  `json:"o,omitempty"` // when all call more slowly, or did
}

// Peer is a worker's latest report, and when it was written.
type Peer struct {
	ID string
	At Moment
	Report
}

// maxSeats bounds what is believed of a report. A fleet has fewer workers.
const maxSeats = 1000

// Valid reports whether a report that came from outside may be reckoned with at
// that moment. What a worker with a fault or of another version wrote must not
// stop the others.
func (r *Report) Valid(at Moment) bool {
	for _, x := range []float64{r.Growth, r.Quiet, r.Taken, r.Excess, r.Edge, r.Calls} {
		if !(x >= 0) || math.IsInf(x, 0) {
			return false
		}
	}
	if !(r.Throttles >= -leastEvidence) || math.IsInf(r.Throttles, 0) || r.Ease < 0 || r.Ease > at.add(easeLast+skew) {
		return false
	}
	return r.Rate > 0 && r.Rate <= maxRate && r.Growth <= startGrowth && r.Taken <= 10*maxRate &&
		r.Seat >= 0 && r.Seat < maxSeats && r.Last <= at.add(skew) && r.Since <= at.add(skew) &&
		r.Under.valid(at) && r.Plan.valid(at) && r.Next.valid(at)
}

func (p Plan) valid(at Moment) bool {
	if p.From > at.add(planLag+2*minSlot+skew) || p.From < 0 {
		return false
	}
	slot := p.Slot >= minSlot && p.Slot <= maxSlot && p.Slot%minSlot == 0
	return p.together() || p.Seats > 0 && p.Seats < maxSeats && slot
}
