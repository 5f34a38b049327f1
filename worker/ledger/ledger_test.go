package ledger_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/workertest"
)

const bucket = "work"

// writers are the ways in which records are written, given where Cloud Storage is.
var writers = map[string]func(base string) *gcs.Uploader{
	"by the client":   func(string) *gcs.Uploader { return nil },
	"by the uploader": func(base string) *gcs.Uploader { return gcs.NewUploader(http.DefaultClient, base) },
}

func TestLedgerOnCloudStorage(t *testing.T) {
	for name, writer := range writers {
		t.Run(name, func(t *testing.T) {
			client, base := gcstest.Start(t, bucket, nil)
			workertest.LedgerSuite(t, func(t *testing.T, id string) worker.Ledger {
				return workertest.Alive(t, ledger.New(client, bucket, id, ledger.WriteBy(writer(base))))
			})
		})
	}
}

// The effect happens and its answer is lost: the most expensive kind of error, since whoever believes it asks again.
func TestLostAnswersDoNotLoseTheClaim(t *testing.T) {
	for name, writer := range writers {
		t.Run(name, func(t *testing.T) { loseAnswers(t, writer) })
	}
}

func loseAnswers(t *testing.T, writer func(base string) *gcs.Uploader) {
	var writes atomic.Int32
	client, base := gcstest.Start(t, bucket, func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && r.StatusCode == http.StatusOK && !strings.Contains(r.Request.URL.RawQuery, "workers") && writes.Add(1)%2 == 1 {
			gcstest.Unavailable(r)
		}
		return nil
	})
	l := workertest.Alive(t, ledger.New(client, bucket, "w1", ledger.WriteBy(writer(base))))
	s, err := l.Claim(t.Context(), "j", jobs.Digest{})
	if err != nil || s.State != worker.Granted {
		t.Fatalf("claim whose answer was lost: %+v, %v", s, err)
	}
	if err := l.Release(t.Context(), s.Ticket, worker.Spent{Calls: 1}); err != nil {
		t.Fatalf("release whose answer was lost: %v", err)
	}
	if s, err = l.Claim(t.Context(), "j", jobs.Digest{}); err != nil || s.State != worker.Granted || s.Spent.Calls != 1 {
		t.Fatalf("second claim: %+v, %v", s, err)
	}
	if err := l.Finish(t.Context(), s.Ticket, worker.Record{Generation: &schemas.GenerationRow{JobId: "j"}}); err != nil {
		t.Fatalf("finish whose answer was lost: %v", err)
	}
}

func TestClaimGivesUpWithItsContext(t *testing.T) {
	client := gcstest.Open(t, bucket, func(r *http.Response) error {
		gcstest.Unavailable(r)
		return nil
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by the test")
	cancel(stopped)
	if _, err := ledger.New(client, bucket, "w1").Claim(ctx, "j", jobs.Digest{}); err == nil {
		t.Fatal("claimed although the service is down")
	}
}

// A worker that was silent for long and has just come back claims a job. Whoever still believes that it is dead must look again before it
// takes the claim.
func TestAWorkerThatCameBackIsNotRobbed(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	back := workertest.Alive(t, ledger.New(client, bucket, "back"))
	if s, err := back.Claim(t.Context(), "j", jobs.Digest{}); err != nil || s.State != worker.Granted {
		t.Fatalf("claim: %+v, %v", s, err)
	}
	attrs, err := client.Bucket(bucket).Object("workers/back").Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := ledger.New(client, bucket, "other")
	ledger.Beaten(other) // without a loop that looks around
	ledger.MarkSilent(other, "back", attrs.Generation-1)
	if s, err := other.Claim(t.Context(), "j", jobs.Digest{}); err != nil || s.State != worker.Busy {
		t.Errorf("with an old view: %+v, %v; want Busy", s, err)
	}
	ledger.MarkSilent(other, "back", attrs.Generation)
	if s, err := other.Claim(t.Context(), "j", jobs.Digest{}); err != nil || s.State != worker.Granted || !s.Abandoned {
		t.Errorf("with a true view: %+v, %v; want a grant", s, err)
	}
}

// A worker that was frozen and beats again must look before it calls for a job that it had claimed before: others may have it by now.
func TestConfirmAfterAGapLooksAgain(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	frozen, other := ledger.New(client, bucket, "frozen"), workertest.Alive(t, ledger.New(client, bucket, "other"))
	ledger.Beaten(frozen) // and no object under workers/: to others it has left
	s, err := frozen.Claim(t.Context(), "j", jobs.Digest{})
	if err != nil || s.State != worker.Granted {
		t.Fatalf("claim: %+v, %v", s, err)
	}
	if err := frozen.Confirm(t.Context(), s.Ticket); err != nil {
		t.Errorf("before the gap: %v", err)
	}
	if s, err := other.Claim(t.Context(), "j", jobs.Digest{}); err != nil || !s.Abandoned {
		t.Fatalf("take-over: %+v, %v", s, err)
	}
	ledger.Gap(frozen, time.Minute)
	ledger.Beaten(frozen)
	if err := frozen.Confirm(t.Context(), s.Ticket); !errors.Is(err, worker.ErrFenced) {
		t.Errorf("after the gap: %v, want ErrFenced", err)
	}
}

func TestCheckNamesTheMissingBucket(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	if err := ledger.New(client, bucket, "w1").Check(t.Context()); err != nil {
		t.Errorf("an existing bucket: %v", err)
	}
	err := ledger.New(client, "nowhere", "w1").Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gs://nowhere does not exist") || !strings.Contains(err.Error(), "ASSETMILL_WORK_BUCKET") {
		t.Errorf("a missing bucket: %v", err)
	}
}

func TestCheckNamesTheMissingPermission(t *testing.T) {
	client := gcstest.Open(t, bucket, func(r *http.Response) error {
		r.StatusCode, r.Status = http.StatusForbidden, "403 Forbidden"
		return nil
	})
	err := ledger.New(client, bucket, "w1").Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gs://work") || !strings.Contains(err.Error(), "roles/storage.objectUser") {
		t.Errorf("a forbidden bucket: %v", err)
	}
	// Whoever submits may do less.
	err = ledger.NewReceipts(client, bucket).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "roles/storage.legacyBucketReader on it") || !strings.Contains(err.Error(), "roles/storage.objectUser on its managed folders submissions/ and control/") {
		t.Errorf("a forbidden bucket of receipts: %v", err)
	}
}

func TestReceipts(t *testing.T) {
	r := ledger.NewReceipts(gcstest.Open(t, bucket, nil), bucket)
	if none, err := r.Receipt(t.Context(), "s-none"); none != nil || err != nil {
		t.Errorf("a submission without receipt: %v, %v", none, err)
	}
	for _, receipt := range []string{"first", "second"} {
		if err := r.PutReceipt(t.Context(), &schemas.SubmissionRow{Submission: "s-1", Receipt: receipt, SubmittedAt: 1}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Receipt(t.Context(), "s-1")
	if err != nil || got.GetReceipt() != "second" {
		t.Errorf("receipt %v, %v", got, err)
	}
}
