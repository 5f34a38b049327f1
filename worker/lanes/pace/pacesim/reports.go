package pacesim

import (
	"time"

	"github.com/assetmill/assetmill/worker/lanes/pace"
)

// Sharer is a pacer that tells the other workers of itself and hears of them.
type Sharer interface {
	Report(now time.Time, waiting bool) pace.Report
	Hear(now time.Time, clock pace.Moment, all []pace.Peer)
}

// Reports is how workers tell and hear: each writes a report and lists all of them at intervals, at moments of its own. The zero value stands for
// what package ledger does.
type Reports struct {
	// Every is the time between two reports of a worker, and between two of its looks.
	Every time.Duration
	// None: nothing is ever written or listed, as where listing is denied.
	None bool
}

const (
	reportEvery = 5 * time.Second
	// lostReports and lateReports are the shares of reports that never arrive and that take seconds, lostLooks of looks that fail.
	lostReports = 0.02
	lateReports = 0.05
	lostLooks   = 0.02
	// clockError bounds by how much a worker mistakes the shared clock, up or down.
	clockError = 50 * time.Millisecond
	// keptReports is how many reports of a worker are kept: more than can be under way.
	keptReports = 6
)

// How long it takes until a report is written, usually and for the late ones, and how old the answer of a look is.
var (
	writing     = [2]time.Duration{30 * time.Millisecond, 300 * time.Millisecond}
	writingLate = [2]time.Duration{time.Second, 8 * time.Second}
	looking     = [2]time.Duration{30 * time.Millisecond, 500 * time.Millisecond}
)

func (s Reports) every() time.Duration {
	if s.Every == 0 {
		return reportEvery
	}
	return s.Every
}

// written is a report in storage from then on.
type written struct {
	pace.Peer
	at time.Duration
}

// share begins a worker's reports and looks.
func (r *run) share(w *worker, e event) {
	if _, ok := w.pacer.(Sharer); !ok || r.sc.Reports.None {
		return
	}
	w.clock = r.between([2]time.Duration{-clockError, clockError})
	for _, kind := range []uint8{evReport, evLook} {
		r.push(event{at: e.at + r.between([2]time.Duration{0, time.Second}), kind: kind, worker: e.worker})
	}
}

// report writes a worker's report. One that leaves takes its report away; one that is killed does not.
func (r *run) report(w *worker, e event) {
	if e.at >= w.until {
		if !r.sc.Killed {
			w.reports = nil
		}
		return
	}
	report := w.pacer.(Sharer).Report(r.clock(e.at), w.jobs > 0)
	took := r.between(writing)
	x := r.rng.Float64()
	if x < lateReports {
		took = r.between(writingLate)
	}
	if x < 1-lostReports {
		at := e.at + took
		w.reports = append(w.reports, written{pace.Peer{ID: w.id, At: pace.MomentOf(r.clock(at)), Report: report}, at})
		w.reports = w.reports[max(0, len(w.reports)-keptReports):]
	}
	e.at += r.sc.Reports.every()
	r.push(e)
}

// look lists all reports, and reports whether it succeeded.
func (r *run) look(w *worker, e event) bool {
	if e.at >= w.until {
		return false
	}
	next := e
	next.at += r.sc.Reports.every()
	r.push(next)
	if r.rng.Float64() < lostLooks {
		return false
	}
	seen := e.at - r.between(looking)
	var all []pace.Peer
	for _, other := range r.workers {
		var last *written
		for i := range other.reports {
			if x := &other.reports[i]; x.at <= seen && (last == nil || x.At > last.At) {
				last = x
			}
		}
		if last != nil {
			all = append(all, last.Peer)
		}
	}
	w.pacer.(Sharer).Hear(r.clock(e.at), pace.MomentOf(r.clock(e.at+w.clock)), all)
	return true
}
