package worker_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/workertest"
)

// A batch ends days after its jobs were gathered, in another process. A job is one trace all the same.
func TestTheTraceOfABatchJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		ledger, lineage := workertest.NewLedger(), &workertest.Lineage{}
		fine := workertest.Hook(func(string, string) error { return nil })
		newWorker := func(id string) *worker.Worker {
			return worker.New(worker.Config{ID: id, Version: "test", Catalogue: jobs.DefaultCatalogue(), Log: zap.NewNop(), Tracer: provider.Tracer("test")}, worker.Ports{
				Queue: workertest.NewQueue(), Controls: &workertest.Controls{}, Ledger: ledger.Open(id, fine), Lanes: &workertest.Lanes{Lane: lane},
				Model: &workertest.Model{}, Assets: workertest.NewAssets(), Lineage: lineage, Results: &workertest.Results{},
			})
		}
		publication, root := provider.Tracer("test").Start(t.Context(), "publish job")
		root.End()
		message := &jobs.Delivery{ID: "m1", Data: []byte(`{"id":"fox","prompt":"a red fox","mode":"batch"}`), Published: time.Now()}
		claims := ledger.Open("w1", fine)
		living, stop := context.WithCancel(t.Context())
		var beating sync.WaitGroup
		beating.Go(func() { claims.Beat(living) })
		defer beating.Wait()
		defer stop()
		a, v := newWorker("w1").Admit(publication, message, func(ctx context.Context, j *jobs.Job) (worker.Standing, error) {
			return claims.Claim(ctx, j.ID, j.Digest())
		})
		if a == nil {
			t.Fatalf("not admitted: %+v", v)
		}

		time.Sleep(48 * time.Hour)
		ended, _, err := newWorker("w2").Conclude(t.Context(), worker.Conclusion{
			Job: a.Job, Ticket: a.Ticket, Spent: a.Spent, Lane: lane, Batch: "b-1", MessageID: a.MessageID, Published: a.Published, Received: a.Received, Trace: a.Trace,
			Called: time.Now(), Answered: time.Now(), Answer: &worker.Answer{Reason: jobs.ReasonPromptFilter},
		})
		if !ended || err != nil {
			t.Fatalf("ended %v: %v", ended, err)
		}
		rows := lineage.Generations()
		want := root.SpanContext().TraceID()
		if len(rows) != 1 || rows[0].GetTraceId() != want.String() {
			t.Errorf("rows %v, want trace %s", rows, want)
		}
		for _, span := range recorder.Ended() {
			if span.SpanContext().TraceID() != want {
				t.Errorf("span %s is in trace %s, want %s", span.Name(), span.SpanContext().TraceID(), want)
			}
		}
		if n := len(recorder.Ended()); n < 4 {
			t.Errorf("%d spans", n)
		}
	})
}
