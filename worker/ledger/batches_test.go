package ledger_test

import (
	"context"
	"errors"
	"testing"

	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/workertest"
)

// living returns a ledger that gives signs of life until leave is called, which takes its worker off the list.
func living(t *testing.T, l *ledger.Ledger) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); l.Beat(ctx) }()
	leave = func() { cancel(); <-over }
	t.Cleanup(leave)
	return leave
}

func claimFor(t *testing.T, l *ledger.Ledger, job, batch string, want worker.State) worker.Standing {
	t.Helper()
	s, err := l.ClaimFor(t.Context(), job, jobs.Digest{}, batch)
	if err != nil || s.State != want {
		t.Fatalf("claim %s for %s: %+v, %v; want state %d", job, batch, s, err, want)
	}
	return s
}

func TestClaimsOfASealedBatchAreNotTakenOver(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	gatherer := ledger.New(client, bucket, "gatherer")
	leave := living(t, gatherer)
	held := claimFor(t, gatherer, "j", "b-1", worker.Granted)
	if err := gatherer.Seal(t.Context(), "b-1", []byte(`{"rows":1}`)); err != nil {
		t.Fatal(err)
	}
	leave()

	other := workertest.Alive(t, ledger.New(client, bucket, "other"))
	if s := claimFor(t, other, "j", "b-2", worker.Busy); s.Holder != "batch b-1" {
		t.Errorf("held by %q", s.Holder)
	}
	if void, err := other.VoidIfAbandoned(t.Context(), "b-1", "gatherer"); void || err != nil {
		t.Errorf("a sealed batch was voided: %v", err)
	}
	seal, err := other.ReadSeal(t.Context(), "b-1")
	if err != nil || !seal.Sealed || string(seal.Manifest) != `{"rows":1}` {
		t.Errorf("seal %+v, %v", seal, err)
	}
	// Whoever runs the batch ends its jobs with the gatherer's tickets.
	if _, ended, err := other.Look(t.Context(), "j"); ended || err != nil {
		t.Errorf("ended before its end: %v", err)
	}
	if err := other.Finish(t.Context(), held.Ticket, worker.Record{Generation: &schemas.GenerationRow{JobId: "j"}}); err != nil {
		t.Fatal(err)
	}
	if end, ended, err := other.Look(t.Context(), "j"); !ended || err != nil || end.Generation.GetJobId() != "j" {
		t.Errorf("%+v, %v, %v", end, ended, err)
	}
	if err := other.Finish(t.Context(), held.Ticket, worker.Record{Generation: &schemas.GenerationRow{JobId: "j"}}); !errors.Is(err, worker.ErrFenced) {
		t.Errorf("a second end: %v", err)
	}
}

// The gatherer may only have been frozen. Whoever took one of its jobs must be sure that no batch with that job is ever sent.
func TestABatchWhoseJobWasTakenOverIsNeverSealed(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	gatherer := ledger.New(client, bucket, "gatherer")
	leave := living(t, gatherer)
	claimFor(t, gatherer, "j", "b-1", worker.Granted)

	other := workertest.Alive(t, ledger.New(client, bucket, "other"))
	claimFor(t, other, "j", "b-2", worker.Busy)
	if void, err := other.VoidIfAbandoned(t.Context(), "b-1", "gatherer"); void || err != nil {
		t.Errorf("the batch of a living gatherer was voided: %v", err)
	}
	leave()
	if s := claimFor(t, other, "j", "b-2", worker.Granted); s.Abandoned || s.Spent.Abandoned != 0 {
		t.Errorf("a batch that was never sent counts as a call: %+v", s)
	}
	if err := gatherer.Seal(t.Context(), "b-1", []byte(`{"rows":1}`)); !errors.Is(err, worker.ErrVoid) {
		t.Fatalf("sealed after its job was taken: %v", err)
	}
	if void, err := other.VoidIfAbandoned(t.Context(), "b-1", "gatherer"); !void || err != nil {
		t.Errorf("void %v, %v", void, err)
	}
}

func TestSealingAgainChangesNothing(t *testing.T) {
	l := workertest.Alive(t, ledger.New(gcstest.Open(t, bucket, nil), bucket, "w1"))
	for _, manifest := range []string{`{"n":1}`, `{"n":2}`} {
		if err := l.Seal(t.Context(), "b-1", []byte(manifest)); err != nil {
			t.Fatal(err)
		}
	}
	if seal, err := l.ReadSeal(t.Context(), "b-1"); err != nil || string(seal.Manifest) != `{"n":1}` {
		t.Errorf("%+v, %v", seal, err)
	}
	if seal, err := l.ReadSeal(t.Context(), "b-2"); err != nil || seal.Sealed || seal.Void {
		t.Errorf("a batch without a seal: %+v, %v", seal, err)
	}
}
