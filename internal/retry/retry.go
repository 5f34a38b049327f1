// Package retry repeats an operation with growing, jittered pauses until it succeeds, fails for good, or its context ends.
package retry

import (
	"context"
	"fmt"
	"time"

	"github.com/googleapis/gax-go/v2"
)

// Pauses between tries. Google's clients advise a first pause of about a second for overload; these operations are
// small writes whose callers hold a paid image, so the first retry comes sooner. The last keeps a service that has been
// down for an hour from being polled by thousands of jobs at once.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 20 * time.Second
	growth     = 2
)

// Observer is told of tries that failed and will be repeated, so that an outage shows before it is over.
type Observer interface {
	// Failed is called between two tries, in the goroutine of the caller of [Do]. It must not block.
	Failed(err error)
}

type observerKey struct{}

// Observe returns a context whose operations tell the observer, in place of any other.
func Observe(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

// Do calls f until it returns nil or an error for which again reports false, or until ctx ends. The error is f's last one; when
// ctx ended first, it wraps the context's cause as well. ctx's [Observer], if there is one, is told of each try but the last.
func Do(ctx context.Context, again func(error) bool, f func(context.Context) error) error {
	backoff := gax.Backoff{Initial: firstPause, Max: lastPause, Multiplier: growth}
	for {
		err := f(ctx)
		if err == nil || !again(err) {
			return err
		}
		if o, watched := ctx.Value(observerKey{}).(Observer); watched {
			o.Failed(err)
		}
		if stop := Sleep(ctx, backoff.Pause()); stop != nil {
			return fmt.Errorf("%w (last try: %w)", stop, err)
		}
	}
}

// Sleep waits for d, or until ctx ends; then it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
