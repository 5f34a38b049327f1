package lanes

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/worker"
)

// permit is the right to begin one call.
type permit struct {
	set    *Set
	lane   *lane
	job    string
	began  time.Time
	waited time.Duration
	epoch  int
	over   bool
}

// Lane implements worker.Permit.
func (p *permit) Lane() worker.Lane { return p.lane.cfg.Lane }

// Drop implements worker.Permit. The call counts as begun for the lane's pace: it is cheaper to lose one than to take it back.
func (p *permit) Drop() {
	s := p.set
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.release(p, unknown, now)
	s.dispatch(now)
}

// End implements worker.Permit.
func (p *permit) End(err error) {
	s := p.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.over {
		return
	}
	now := time.Now()
	r := p.judge(err, now)
	if mayComeBack(err) {
		s.waited.Add(p.job, waited{p.waited, now.Add(waitedFor)})
	}
	if r == failing || r == lost {
		p.lane.trouble = err
	}
	s.release(p, r, now)
	s.dispatch(now)
}

// judge tells the lane's pacer how the call ended, and returns what it means for the breaker.
func (p *permit) judge(err error, now time.Time) result {
	l := p.lane
	if err == nil {
		l.pacer.Accepted(now, p.began)
		l.share.add(now, false)
		return working
	}
	var ce *worker.CallError
	if !errors.As(err, &ce) {
		return unknown // not of the closed set: a programming error of the model, which says nothing about the lane
	}
	switch ce.Kind {
	case worker.Rejected:
		l.pacer.Accepted(now, p.began)
		l.share.add(now, false)
		return working
	case worker.Throttled:
		l.pacer.Throttled(now, p.began, ce.RetryAfter)
		l.share.add(now, true)
		return working
	case worker.Failing, worker.Unreached:
		l.pacer.Lost(now, p.began)
		return failing
	case worker.Unanswered:
		l.pacer.Lost(now, p.began)
		return lost
	case worker.Denied:
		p.set.shut(l, ce, zap.String("check", advice(l.cfg, ce.Status)))
		return unknown
	default: // Interrupted
		return unknown
	}
}

// mayComeBack reports whether what a job has waited counts when it comes back. After a failure it does not: else the same job would be
// first in line for each try of a broken lane, until its calls are used up.
func mayComeBack(err error) bool {
	var ce *worker.CallError
	return errors.As(err, &ce) && (ce.Kind == worker.Throttled || ce.Kind == worker.Denied)
}

// release ends a permit.
func (s *Set) release(p *permit, r result, now time.Time) {
	if p.over {
		return
	}
	p.over = true
	l := p.lane
	l.inFlight--
	s.inFlight--
	before := l.breaker.state
	if !l.breaker.end(p.epoch, r, now) {
		return
	}
	s.resettle()
	switch after := l.breaker.state; {
	case before == Open:
		s.log.Warn("lane is broken: it is left alone, and then tried with one call at a time",
			zap.String("lane", l.cfg.Name), zap.Error(l.trouble), zap.Duration("pause", l.breaker.until.Sub(now)))
	case after == Open:
		s.log.Info("lane works again", zap.String("lane", l.cfg.Name))
	}
}

// advice says what to look at when a lane refuses this worker.
func advice(l *LaneConfig, status int) string {
	what := fmt.Sprintf("model %s in location %s of project %s", l.Model, l.Location, l.Project)
	if l.Endpoint != "" {
		what = fmt.Sprintf("endpoint %s in location %s of project %s", l.Endpoint, l.Location, l.Project)
	}
	switch {
	case status == http.StatusForbidden:
		return "whether this worker's identity has the permission aiplatform.endpoints.predict, as in the role roles/aiplatform.user, for " + what +
			", and whether the API aiplatform.googleapis.com is enabled"
	case status == http.StatusNotFound && l.Endpoint != "":
		return fmt.Sprintf("the lane's endpoint id and host: there is no %s behind %s", what, l.Host)
	case status == http.StatusNotFound:
		return "whether the lane's project, model and location are right: there is no " + what + ", or the project has no access to it"
	default:
		return "Application Default Credentials: they are not accepted for " + what
	}
}
