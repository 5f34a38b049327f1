package workertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// What calls are like.
const (
	shortestCall = 7 * time.Second
	callTimeout  = 5 * time.Minute // of a call that never answers
)

// model is the models as one process sees them. They keep their own account of what they bill, whatever the workers believe.
type model struct{ *process }

func callError(kind worker.Kind, status int, lane worker.Lane, err error) *worker.CallError {
	return &worker.CallError{Kind: kind, Status: status, Lane: lane, Err: err}
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
	unwritten  // the model says that it wrote its image, and did not
	cut        // its context ended before the answer
	missingRow // of a batch's output
	damagedRow
	secondRow // of an output that has the row twice
	fates
)

var fateNames = [fates]string{
	"under way", "delivered", "refused", "useless", "truncated", "hung", "not written", "cut off", "missing in its batch's output", "damaged in its batch's output",
	"the second of its row",
}

// Generate implements worker.Model.
func (p model) Generate(ctx context.Context, c worker.Call) (*worker.Answer, error) {
	if err := p.gate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, callError(worker.Interrupted, 0, c.Lane, context.Cause(ctx))
	}
	s := p.sim
	n := s.number(c.Job.ID)
	s.mu.Lock()
	lane := s.endpointOf(c.Lane)
	call, unpaid := s.admit(p.process, n, lane, c.Lane)
	s.mu.Unlock()
	if unpaid != nil {
		if err := p.pause(ctx, s.dice.between(saltLatency, aboutJob(n)<<8|uint64(svcModel), uint64(call), 50*time.Millisecond, 2*time.Second)); err != nil {
			return nil, callError(worker.Interrupted, 0, c.Lane, err)
		}
		if err := p.gate(); err != nil {
			return nil, err
		}
		return nil, unpaid
	}
	return paidCall{model: p, Call: c, n: n, number: call, lane: lane}.make(ctx)
}

// admit decides whether a call is served, and bills it if so. It returns the number of the paid call for the job, or the error of one that
// is free. The caller holds sim.mu.
func (s *sim) admit(p *process, n, lane int, l worker.Lane) (int, error) {
	s.audit.checkLane(p, n, lane, l)
	asked := s.countRequest(aboutJob(n))
	roll := s.dice.roll(saltCall, uint64(n), asked)
	now, plan := s.now(), &s.plan.lanes[lane]
	switch {
	case s.down(svcModel) || p.cutOff(svcModel):
		return int(asked), callError(worker.Throttled, 503, l, errUnavailable)
	case time.Now().Before(p.deniedUntil), plan.denied.has(now):
		p.life.denied++
		return int(asked), callError(worker.Denied, 403, l, errors.New("permission denied"))
	case plan.down.has(now) && plan.unreachable:
		return int(asked), callError(worker.Unreached, 0, l, errUnavailable)
	case plan.down.has(now):
		s.audit.asked(p, n)
		return int(asked), callError(worker.Failing, 500, l, errors.New("internal"))
	case s.rejected(n):
		s.audit.asked(p, n)
		e := &worker.CallError{Kind: worker.Rejected, Reason: jobs.ReasonRejected, Status: 400, Lane: l, Detail: "invalid argument"}
		return int(asked), e
	case s.may(Throttle) && !s.take(lane):
		s.books.Throttled++
		e := &worker.CallError{Kind: worker.Throttled, Status: 429, Lane: l}
		if roll < 0.2 {
			e.RetryAfter = time.Duration(roll * float64(time.Minute))
		}
		return int(asked), e
	case s.may(ModelError) && roll < 0.01:
		s.books.Throttled++
		return int(asked), callError(worker.Throttled, 503, l, errUnavailable)
	case s.may(ModelError) && roll < 0.015:
		s.audit.asked(p, n)
		return int(asked), callError(worker.Failing, 500, l, errors.New("internal"))
	}
	return s.audit.begin(p, n), nil
}

// paidCall is a call that is billed already.
type paidCall struct {
	model
	worker.Call
	n, number int // of the job, and of the call among the job's
	lane      int
}

// make makes the call.
func (c paidCall) make(ctx context.Context) (*worker.Answer, error) {
	s := c.sim
	end := s.fateOf(c.n, c.number)
	latency := s.latency(c.n, c.number, s.endpoints[c.lane].slowest)
	straight := s.endpoints[c.lane].straight && c.Prefix != ""
	if end == unwritten && !straight {
		end = delivered
	}
	if straight && (end == delivered || end == truncated || end == hung) && s.refusal(c.n) == "" {
		c.write(latency)
	}
	if end == hung {
		latency = callTimeout
	}
	err := c.pause(ctx, latency)
	if gone := c.gate(); gone != nil {
		return nil, gone
	}
	if err != nil {
		end = cut
	}
	answer := &worker.Answer{FinishReason: "STOP", Usage: jobs.Usage{Prompt: 20, Total: 20}, ModelVersion: "simulated-1"}
	switch end {
	case delivered, unwritten:
		answer.Reason, answer.Usage = jobs.ReasonImage, imageUsage
		if straight {
			answer.Written = c.uri()
		} else if answer.Image, err = c.image(ctx, c.n, c.number); err != nil {
			end = cut
		}
	case refused:
		answer.Reason, answer.Detail = s.refusal(c.n), "no"
	case useless:
		answer.Reason, answer.FinishReason, answer.Detail = jobs.ReasonBadAnswer, "MAX_TOKENS", "cut short"
	case truncated:
		err = errors.New("unexpected EOF")
	case hung:
		err = errors.New("no answer in time")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.dead() {
		return nil, errKilled
	}
	s.audit.answered(c.process, c.n, c.number, end, answer.Image)
	if err != nil {
		return nil, callError(worker.Unanswered, 0, c.Lane, err)
	}
	return answer, nil
}

// side is the width and the height of every image.
const side = 1024

// imageUsage is what every image is billed as.
var imageUsage = jobs.Usage{Prompt: 20, Image: 1120, Total: 1140}

func (s *sim) latency(n, call int, slowest time.Duration) time.Duration {
	roll := s.dice.roll(saltLatency, uint64(n), uint64(call)|1<<32)
	return shortestCall + time.Duration(roll*roll*roll*float64(slowest-shortestCall))
}

func (c paidCall) uri() string { return fmt.Sprintf("%s%d.png", c.Prefix, c.number) }

// latestWrite is how long after its answer a model may write its image. The real adapter waits ten seconds for it.
const latestWrite = 5 * time.Second

// write lets the model write its image itself at about that time, whatever becomes of its caller.
func (c paidCall) write(latency time.Duration) {
	s := c.sim
	at := latency - s.dice.between(saltWrite, uint64(c.n), uint64(c.number), 0, 2*time.Second)
	if s.may(LateWrite) && s.dice.roll(saltWrite, uint64(c.n), uint64(c.number)|1<<32) < 0.1 {
		at = latency + s.dice.between(saltWrite, uint64(c.n), uint64(c.number)|1<<33, 0, latestWrite)
	}
	n, number, uri := c.n, c.number, c.uri()
	time.AfterFunc(at, func() { s.writeStraight(n, number, uri) })
}

// fateOf is what becomes of the call-th paid call for a job, if nothing comes between.
func (s *sim) fateOf(n, call int) fate {
	roll := s.dice.roll(saltFate, uint64(n), uint64(call)|1<<32)
	switch {
	case s.may(Hang) && roll < 0.001:
		return hung
	case s.may(Truncate) && (roll < 0.004 || s.cfg.harsh && roll < 0.1):
		return truncated
	case s.refusal(n) != "":
		return refused
	case s.may(UselessAnswer) && roll > 0.998:
		return unwritten
	case s.may(UselessAnswer) && (roll < 0.008 || s.cfg.harsh && roll > 0.5):
		return useless
	default:
		return delivered
	}
}

// image is the picture in the process's memory, once there is room.
func (p model) image(ctx context.Context, n, call int) (*worker.Image, error) {
	content := p.sim.picture(n, call)
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
	return &worker.Image{Blob: b, MimeType: "image/png", Width: side, Height: side}, nil
}
