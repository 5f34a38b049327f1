package workertest

import (
	"context"
	"errors"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// What calls are like.
const (
	shortestCall = 7 * time.Second
	longestCall  = 60 * time.Second
	callTimeout  = 5 * time.Minute // of a call that never answers
	// quotaFactor is the quota as a multiple of the day's average rate. It has to make up for the hours that services are down.
	quotaFactor = 3.0
)

var simulatedLane = worker.Lane{Name: "simulated", Tier: "standard", Location: "global"}

// model is the model as one process sees it. It keeps its own account of what it bills, whatever the workers believe.
type model struct{ *process }

func callError(kind worker.Kind, status int, err error) error {
	return &worker.CallError{Kind: kind, Status: status, Lane: simulatedLane, Err: err}
}

// fate is what becomes of a paid call.
type fate uint8

const (
	underway fate = iota
	delivered
	refused
	useless
	truncated
	hung
	cut // its context ended before the answer
)

var fateNames = [...]string{"under way", "delivered", "refused", "useless", "truncated", "hung", "cut off"}

// Generate implements worker.Model.
func (p model) Generate(ctx context.Context, c worker.Call) (*worker.Answer, error) {
	j := c.Job
	if err := p.gate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, callError(worker.Interrupted, 0, context.Cause(ctx))
	}
	s := p.sim
	n := s.number(j.ID)
	s.mu.Lock()
	call, unpaid := s.admit(p.process, n)
	s.mu.Unlock()
	if unpaid != nil {
		if err := p.pause(ctx, s.dice.between(saltLatency, aboutJob(n)<<8|uint64(svcModel), uint64(call), 50*time.Millisecond, 2*time.Second)); err != nil {
			return nil, callError(worker.Interrupted, 0, err)
		}
		if err := p.gate(); err != nil {
			return nil, err
		}
		return nil, unpaid
	}
	return p.paid(ctx, j, n, call)
}

// admit decides whether a call is served, and bills it if so. It returns the number of the paid call for the job, or the error of one that
// is free. The caller holds sim.mu.
func (s *sim) admit(p *process, n int) (int, error) {
	asked := s.countRequest(aboutJob(n))
	roll := s.dice.roll(saltCall, uint64(n), asked)
	switch {
	case s.down(svcModel) || p.cutOff(svcModel):
		return int(asked), callError(worker.Throttled, 503, errUnavailable)
	case time.Now().Before(p.deniedUntil):
		p.life.stopping = true // by itself
		return int(asked), callError(worker.Denied, 403, errors.New("permission denied"))
	case s.rejected(n):
		s.audit.asked(p, n)
		e := &worker.CallError{Kind: worker.Rejected, Reason: jobs.ReasonRejected, Status: 400, Lane: simulatedLane, Detail: "invalid argument"}
		return int(asked), e
	case s.may(Throttle) && !s.quota.take(s):
		s.books.Throttled++
		e := &worker.CallError{Kind: worker.Throttled, Status: 429, Lane: simulatedLane}
		if roll < 0.2 {
			e.RetryAfter = time.Duration(roll * float64(time.Minute))
		}
		return int(asked), e
	case s.may(ModelError) && roll < 0.01:
		s.books.Throttled++
		return int(asked), callError(worker.Throttled, 503, errUnavailable)
	case s.may(ModelError) && roll < 0.015:
		s.audit.asked(p, n)
		return int(asked), callError(worker.Failing, 500, errors.New("internal"))
	}
	return s.audit.begin(p, n), nil
}

// paid makes a call that is billed already.
func (p model) paid(ctx context.Context, j *jobs.Job, n, call int) (*worker.Answer, error) {
	s := p.sim
	end := s.fateOf(n, call)
	roll := s.dice.roll(saltLatency, uint64(n), uint64(call)|1<<32)
	latency := shortestCall + time.Duration(roll*roll*roll*float64(longestCall-shortestCall))
	if end == hung {
		latency = callTimeout
	}
	err := p.pause(ctx, latency)
	if gone := p.gate(); gone != nil {
		return nil, gone
	}
	if err != nil {
		end = cut
	}
	answer := &worker.Answer{FinishReason: "STOP", Usage: jobs.Usage{Prompt: 20, Total: 20}, ModelVersion: "simulated-1"}
	switch end {
	case delivered:
		answer.Reason = jobs.ReasonImage
		answer.Usage = jobs.Usage{Prompt: 20, Image: 1120, Total: 1140}
		if answer.Image, err = p.image(ctx, j, n, call); err != nil {
			end = cut
		}
	case refused:
		answer.Reason, answer.Detail = s.refusal(n), "no"
	case useless:
		answer.Reason, answer.FinishReason, answer.Detail = jobs.ReasonBadAnswer, "MAX_TOKENS", "cut short"
	case truncated:
		err = errors.New("unexpected EOF")
	case hung:
		err = errors.New("no answer in time")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead() {
		return nil, errKilled
	}
	s.audit.answered(p.process, n, call, end, answer.Image)
	if err != nil {
		return nil, callError(worker.Unanswered, 0, err)
	}
	return answer, nil
}

// fateOf is what becomes of the call-th paid call for a job, if nothing comes between.
func (s *sim) fateOf(n, call int) fate {
	roll := s.dice.roll(saltFate, uint64(n), uint64(call)|1<<32)
	switch {
	case s.may(Hang) && roll < 0.001:
		return hung
	case s.may(Truncate) && roll < 0.004:
		return truncated
	case s.refusal(n) != "":
		return refused
	case s.may(UselessAnswer) && (roll < 0.008 || s.cfg.harsh && roll > 0.5):
		return useless
	default:
		return delivered
	}
}

// image is the picture in the process's memory, once there is room.
func (p model) image(ctx context.Context, j *jobs.Job, n, call int) (*worker.Image, error) {
	content := p.sim.picture(j, n, call)
	size := int64(len(content))
	b, err := p.budget.Reserve(ctx, size, size)
	if err != nil {
		return nil, err
	}
	if err := p.gate(); err != nil {
		b.Release()
		return nil, err
	}
	if p.sim.cfg.sabotage == leakyWorker && p.sim.pick(n) {
		_, _ = p.budget.Reserve(ctx, 1, 1) // never released
	}
	if _, err := b.Write(content); err != nil {
		return nil, err
	}
	return &worker.Image{Blob: b, MimeType: "image/png", Width: 1024, Height: 1024}, nil
}

// quota is a hidden, changing rate of calls, shared by all. Guarded by sim.mu.
type quota struct {
	tokens float64
	at     time.Duration
}

// take takes one call from the quota, if there is one left.
func (q *quota) take(s *sim) bool {
	now := s.now()
	rate := quotaFactor * float64(s.cfg.Jobs) / s.cfg.day().Seconds() * (0.6 + 0.8*s.dice.roll(saltQuota, uint64(now/(30*time.Minute)), 0))
	for _, storm := range s.plan.storms {
		if storm.has(now) {
			rate /= 10
		}
	}
	rate = max(rate, 1.0/20)
	burst := max(rate*10, 4) // ten seconds' worth
	q.tokens = min(burst, q.tokens+rate*(now-q.at).Seconds())
	q.at = now
	if q.tokens < 1 {
		return false
	}
	q.tokens--
	return true
}
