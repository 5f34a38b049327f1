package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assetmill/assetmill/internal/retry"
)

var errDown = errors.New("down")

// tries collects what an observer is told.
type tries []error

func (t *tries) Failed(err error) { *t = append(*t, err) }

func TestTheObserverIsToldOfEachTryButTheLast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fails int
		final error
		want  int
	}{
		{"at once", 0, nil, 0},
		{"after three failures", 3, nil, 3},
		{"for good after two", 2, errors.New("forbidden"), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told tries
				calls := 0
				err := retry.Do(retry.Observe(t.Context(), &told), func(err error) bool { return errors.Is(err, errDown) }, func(context.Context) error {
					if calls++; calls <= tt.fails {
						return errDown
					}
					return tt.final
				})
				if !errors.Is(err, tt.final) || len(told) != tt.want {
					t.Errorf("%v, told of %d tries, want %v and %d", err, len(told), tt.final, tt.want)
				}
			})
		})
	}
}

func TestAnOutageShowsBeforeItIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told tries
		ctx, cancel := context.WithTimeout(retry.Observe(t.Context(), &told), time.Hour)
		defer cancel()
		err := retry.Do(ctx, func(error) bool { return true }, func(context.Context) error { return errDown })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) {
			t.Errorf("the error is %v", err)
		}
		// Pauses are 20 s at most, with jitter.
		if len(told) < 180 {
			t.Errorf("told of %d tries in an hour", len(told))
		}
	})
}
