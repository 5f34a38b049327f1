package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/workertest"
)

// secret stands for what must not be seen anywhere: it is in every prompt, and in every error's text.
const secret = "XYZZY"

// world is a worker with ports in memory, but for the queue.
type world struct {
	t       *testing.T
	queue   worker.Queue
	meter   metric.Meter
	tracer  trace.Tracer
	callFor time.Duration
	budget  *blob.Budget
	lineage *workertest.Lineage
	results worker.Results

	worker *worker.Worker
	stop   context.CancelFunc
	ended  chan error
}

var testLane = worker.Lane{Name: "pro/global/standard", Tier: "standard", Location: "global"}

// start runs the worker.
func (w *world) start() {
	w.budget, w.lineage, w.ended = blob.NewBudget(1<<20), &workertest.Lineage{}, make(chan error, 1)
	var failed atomic.Bool
	stumble := workertest.Hook(func(op, id string) error {
		if op == "result" && strings.HasPrefix(id, "stumble") && failed.CompareAndSwap(false, true) {
			return errors.New("the topic is away: " + secret)
		}
		return nil
	})
	if w.results == nil {
		w.results = &workertest.Results{Hook: stumble}
	}
	w.worker = worker.New(worker.Config{
		ID: "w1", Version: "test", Catalogue: jobs.DefaultCatalogue(), Log: zap.NewNop(), Meter: w.meter, Tracer: w.tracer,
	}, worker.Ports{
		Queue: w.queue, Controls: &workertest.Controls{}, Ledger: flaky{workertest.NewLedger().Open("w1", nil)},
		Lanes: &workertest.Lanes{Lane: testLane}, Model: &workertest.Model{Answer: w.answer}, Assets: workertest.NewAssets(), Lineage: w.lineage, Results: w.results,
	})
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	go func() { w.ended <- w.worker.Run(ctx) }()
}

// halt stops the worker.
func (w *world) halt() {
	w.t.Helper()
	w.stop()
	if err := <-w.ended; err != nil {
		w.t.Errorf("the worker ended with %v", err)
	}
}

// flaky is a ledger that every claim of a job named flaky-... reaches at the third try.
type flaky struct{ worker.Ledger }

func (f flaky) Claim(ctx context.Context, id string, d jobs.Digest) (standing worker.Standing, err error) {
	tries := 0
	err = retry.Do(ctx, func(error) bool { return true }, func(context.Context) error {
		if tries++; strings.HasPrefix(id, "flaky") && tries < 3 {
			return errors.New("503: " + secret)
		}
		standing, err = f.Ledger.Claim(ctx, id, d)
		return err
	})
	return standing, err
}

// answer is what the model says to the n-th call for a job, which its id decides.
func (w *world) answer(ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
	if err := retry.Sleep(ctx, w.callFor); err != nil {
		return nil, &worker.CallError{Kind: worker.Unanswered, Lane: testLane, Err: err}
	}
	kind, _, _ := strings.Cut(j.ID, "-")
	fail := map[string]worker.Kind{"throttled": worker.Throttled, "lost": worker.Unanswered, "failing": worker.Failing}[kind]
	switch {
	case fail != 0 && n == 1:
		return nil, &worker.CallError{Kind: fail, Status: map[worker.Kind]int{worker.Throttled: 429, worker.Failing: 500}[fail], Lane: testLane, Detail: secret}
	case kind == "refused":
		return &worker.Answer{
			Reason: jobs.ReasonPromptFilter, FinishReason: "PROHIBITED_CONTENT", Detail: "refused: " + secret, Usage: jobs.Usage{Prompt: 10, Total: 10}, ModelVersion: "pro-1",
		}, nil
	}
	b, err := w.budget.Reserve(ctx, 1000, 1000)
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Unanswered, Lane: testLane, Err: err}
	}
	fmt.Fprintf(b, "the picture of %s", j.ID)
	b.Settle()
	return &worker.Answer{
		Reason: jobs.ReasonImage, FinishReason: "STOP", Image: &worker.Image{Blob: b, MimeType: "image/png", Width: 1024, Height: 1024},
		Usage: jobs.Usage{Prompt: 10, Image: 1120, Total: 1130}, ModelVersion: "pro-1", ResponseID: "r-1", TrafficType: "ON_DEMAND",
	}, nil
}

// message is a job's message with the secret in its prompt.
func message(id string) string {
	return fmt.Sprintf(`{"id":%q,"prompt":"a red fox named %s","campaign":"spring","submission":"s1"}`, id, secret)
}
