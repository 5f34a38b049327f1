package workertest

import (
	"context"
	"testing"

	"github.com/assetmill/assetmill/worker"
)

// Alive gives signs of life for a ledger's worker until the test ends, and waits for the end.
func Alive[L worker.Ledger](t *testing.T, l L) L {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	left := make(chan struct{})
	go func() {
		defer close(left)
		l.Beat(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-left
	})
	return l
}
