package vertex

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/auth"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// rpc is one call over gRPC, and what became of it on its way. gRPC gives its own errors and the service's the same codes; whether a call is
// paid for depends on which of the two it is.
type rpc struct {
	worker.Call
	sent     atomic.Bool // the request's head is on its way
	answered atomic.Bool // the service has said how the call ended
}

// rpcKey is the context key of an rpc.
type rpcKey struct{}

// watch returns a context whose call p follows.
func (p *rpc) watch(ctx context.Context) context.Context { return context.WithValue(ctx, rpcKey{}, p) }

// rpcWatcher is a stats.Handler that follows calls whose context names an rpc.
type rpcWatcher struct{}

func (rpcWatcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (rpcWatcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	p, ok := ctx.Value(rpcKey{}).(*rpc)
	if !ok {
		return
	}
	switch s.(type) {
	case *stats.Begin: // again when gRPC repeats a call that the service is known not to have looked at
		p.sent.Store(false)
	case *stats.OutHeader:
		p.sent.Store(true)
	case *stats.InTrailer:
		p.answered.Store(true)
	}
}

func (rpcWatcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (rpcWatcher) HandleConn(context.Context, stats.ConnStats) {}

// httpStatuses are the HTTP equivalents of the codes that services answer with. Others count as 500.
var httpStatuses = map[codes.Code]int{
	codes.Canceled: statusCanceled, codes.InvalidArgument: http.StatusBadRequest, codes.OutOfRange: http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest, codes.DeadlineExceeded: http.StatusGatewayTimeout, codes.NotFound: http.StatusNotFound,
	codes.PermissionDenied: http.StatusForbidden, codes.Unauthenticated: http.StatusUnauthorized, codes.ResourceExhausted: http.StatusTooManyRequests,
	codes.Aborted: http.StatusConflict, codes.Unimplemented: http.StatusNotFound, codes.Unavailable: http.StatusServiceUnavailable,
}

// failure turns the error of a call into what it means for the job. ctx is the caller's, rpcCtx the call's own.
func (p *rpc) failure(ctx, rpcCtx context.Context, err error) *worker.CallError {
	switch {
	case p.answered.Load():
		return p.refused(err)
	case p.sent.Load():
		switch code := status.Convert(err).Code(); {
		case rpcCtx.Err() != nil:
			err = context.Cause(rpcCtx)
		case code == codes.DeadlineExceeded: // the far end of the connection saw the call's deadline pass a moment earlier
			err = errCallTimeout
		default:
			err = errors.New(code.String() + " without an answer of the service")
		}
		return &worker.CallError{Kind: worker.Unanswered, Lane: p.Lane, Err: err}
	default:
		return p.unsent(ctx, err)
	}
}

// unsent is the error of a call that was not made.
func (p *rpc) unsent(ctx context.Context, err error) *worker.CallError {
	var denied *auth.Error
	switch {
	case ctx.Err() != nil:
		return &worker.CallError{Kind: worker.Interrupted, Lane: p.Lane, Err: context.Cause(ctx)}
	case errors.As(err, &denied) && !denied.Temporary():
		return &worker.CallError{Kind: worker.Denied, Lane: p.Lane, Detail: detail(p.Job, "no access token: "+denied.Error())}
	default:
		return &worker.CallError{Kind: worker.Unreached, Lane: p.Lane, Err: err}
	}
}

// refused is the error that the service answered with.
func (p *rpc) refused(err error) *worker.CallError {
	s := status.Convert(err)
	code, ok := httpStatuses[s.Code()]
	if !ok {
		code = http.StatusInternalServerError
	}
	e := &worker.CallError{Status: code, Lane: p.Lane, Detail: detail(p.Job, s.Message())}
	e.Kind, e.Reason = kindOf(code, s.Message(), false)
	if s.Code() == codes.FailedPrecondition {
		// The endpoint is not what it should be: no model is deployed on it, for one. No other job will fare better.
		e.Kind, e.Reason = worker.Denied, ""
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			e.RetryAfter = boundRetryAfter(info.GetRetryDelay().AsDuration().Seconds())
		}
	}
	return e
}

// tooLarge recognises that gRPC would not take the answer for its size. The service says nothing of the kind about an answer.
func (p *rpc) tooLarge(err error) bool {
	s := status.Convert(err)
	return !p.answered.Load() && p.sent.Load() && s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max")
}

// answer begins an answer. Endpoints don't count tokens: the price of an image is the lane's, or else it is estimated as the model's.
func (p *rpc) answer() *worker.Answer {
	if p.Lane.ImagePrice != nil {
		return &worker.Answer{}
	}
	return &worker.Answer{Usage: p.Job.EstimatedUsage(), UsageMissing: true}
}

// useless is an answer that is complete and of no use.
func (p *rpc) useless(why string) *worker.Answer {
	a := p.answer()
	a.Reason, a.Detail = jobs.ReasonBadAnswer, why
	return a
}

// withPort adds the port of TLS to a host that has none.
func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(host, "443")
}
