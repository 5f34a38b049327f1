package workertest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// LedgerSuite holds a ledger to its contract. The ports in memory and the real ones pass the same suite, so that the ones in
// memory can't drift. open returns the ledger as a living worker of that name sees it; all of them share their records.
func LedgerSuite(t *testing.T, open func(t *testing.T, workerID string) worker.Ledger) {
	digest := jobs.Digest{1}
	record := worker.Record{
		Generation: &schemas.GenerationRow{JobId: "j", Outcome: "succeeded", Reason: "image", Prompt: "Straße, <b>\"quoted\"</b>\n", FinishedAt: 7},
		Attempts:   []*schemas.AttemptRow{{AttemptId: "j/1", JobId: "j", Result: "image", EndedAt: 6}},
	}
	claim := func(t *testing.T, l worker.Ledger, id string, d jobs.Digest) worker.Standing {
		t.Helper()
		s, err := l.Claim(t.Context(), id, d)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		return s
	}
	t.Run("one of many gets the claim", func(t *testing.T) {
		var granted atomic.Int32
		var all sync.WaitGroup
		for i := range 16 {
			l := open(t, fmt.Sprint("w", i))
			all.Go(func() {
				s, err := l.Claim(t.Context(), "contended", digest)
				switch {
				case err != nil:
					t.Errorf("Claim: %v", err)
				case s.State == worker.Granted:
					granted.Add(1)
				case s.State != worker.Busy:
					t.Errorf("state %d, want Granted or Busy", s.State)
				}
			})
		}
		all.Wait()
		if n := granted.Load(); n != 1 {
			t.Errorf("%d claims were granted", n)
		}
	})
	t.Run("a finished job tells how it ended", func(t *testing.T) {
		l := open(t, "w1")
		s := claim(t, l, "finished", digest)
		if err := l.Finish(t.Context(), s.Ticket, record); err != nil {
			t.Fatalf("Finish: %v", err)
		}
		again := claim(t, open(t, "w2"), "finished", digest)
		if again.State != worker.Done {
			t.Fatalf("state %d, want Done", again.State)
		}
		if diff := cmp.Diff(record, again.Record, protocmp.Transform()); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	})
	t.Run("other content is a conflict", func(t *testing.T) {
		l := open(t, "w1")
		s := claim(t, l, "conflict", digest)
		if got := claim(t, l, "conflict", jobs.Digest{2}); got.State != worker.Conflict {
			t.Errorf("while claimed: state %d, want Conflict", got.State)
		}
		if err := l.Finish(t.Context(), s.Ticket, record); err != nil {
			t.Fatal(err)
		}
		if got := claim(t, l, "conflict", jobs.Digest{2}); got.State != worker.Conflict {
			t.Errorf("when done: state %d, want Conflict", got.State)
		}
	})
	t.Run("a released job keeps what was spent", func(t *testing.T) {
		spent := worker.Spent{Calls: 2, Throttled: 3, Cost: 99, Fallback: true, Attempts: record.Attempts}
		s := claim(t, open(t, "w1"), "released", digest)
		if err := open(t, "w1").Release(t.Context(), s.Ticket, spent); err != nil {
			t.Fatalf("Release: %v", err)
		}
		again := claim(t, open(t, "w2"), "released", digest)
		if again.State != worker.Granted {
			t.Fatalf("state %d, want Granted", again.State)
		}
		if diff := cmp.Diff(spent, again.Spent, protocmp.Transform()); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
	})
	t.Run("a worker that has left holds nothing any more", func(t *testing.T) {
		var left worker.Standing
		t.Run("", func(t *testing.T) { left = claim(t, open(t, "leaver"), "left", digest) }) // its Beat ends with this test
		l := open(t, "w2")
		now := claim(t, l, "left", digest)
		if now.State != worker.Granted || !now.Abandoned {
			t.Fatalf("%+v, want a grant of an abandoned job", now)
		}
		if err := open(t, "leaver").Finish(t.Context(), left.Ticket, record); !errors.Is(err, worker.ErrFenced) {
			t.Errorf("Finish by the worker that had left: %v, want ErrFenced", err)
		}
		if err := l.Confirm(t.Context(), now.Ticket); err != nil {
			t.Errorf("Confirm by the new holder: %v", err)
		}
	})
	t.Run("workers that were lost one after the other are counted until somebody accounts for them", func(t *testing.T) {
		for n, id := range []string{"lost-1", "lost-2"} {
			t.Run("", func(t *testing.T) { // its Beat ends with this test
				if s := claim(t, open(t, id), "unlucky", digest); s.Spent.Abandoned != n || s.Abandoned != (n > 0) {
					t.Errorf("%s: %+v", id, s)
				}
			})
		}
		l := open(t, "w1")
		now := claim(t, l, "unlucky", digest)
		if !now.Abandoned || now.Spent.Abandoned != 2 {
			t.Fatalf("%+v, want two abandoned claims", now)
		}
		// Given back without an account, as when the assets can't be looked at.
		if err := l.Release(t.Context(), now.Ticket, now.Spent); err != nil {
			t.Fatal(err)
		}
		again := claim(t, l, "unlucky", digest)
		if !again.Abandoned || again.Spent.Abandoned != 2 {
			t.Fatalf("after a release: %+v, want two abandoned claims", again)
		}
		if err := l.Release(t.Context(), again.Ticket, worker.Spent{Calls: 2}); err != nil {
			t.Fatal(err)
		}
		if s := claim(t, l, "unlucky", digest); s.Abandoned || s.Spent.Calls != 2 {
			t.Errorf("after the account: %+v", s)
		}
	})
	t.Run("an old ticket is fenced", func(t *testing.T) {
		l := open(t, "w1")
		old := claim(t, l, "fenced", digest)
		if err := l.Release(t.Context(), old.Ticket, worker.Spent{}); err != nil {
			t.Fatal(err)
		}
		now := claim(t, open(t, "w2"), "fenced", digest)
		if err := l.Finish(t.Context(), old.Ticket, record); !errors.Is(err, worker.ErrFenced) {
			t.Errorf("Finish with the old ticket: %v, want ErrFenced", err)
		}
		if err := l.Release(t.Context(), old.Ticket, worker.Spent{}); !errors.Is(err, worker.ErrFenced) {
			t.Errorf("Release with the old ticket: %v, want ErrFenced", err)
		}
		if err := open(t, "w2").Finish(t.Context(), now.Ticket, record); err != nil {
			t.Errorf("Finish with the new ticket: %v", err)
		}
	})
}

// AssetsSuite holds a store of images to its contract.
func AssetsSuite(t *testing.T, open func(t *testing.T) worker.Assets) {
	budget := blob.NewBudget(8 << 20)
	image := func(t *testing.T, content string) *worker.Image {
		t.Helper()
		b, err := budget.Reserve(t.Context(), int64(len(content)), 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Release)
		if _, err := b.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		return &worker.Image{Blob: b, MimeType: "image/png", Width: 1376, Height: 768}
	}
	job := func(t *testing.T, id, prompt string) *jobs.Job {
		t.Helper()
		j, err := jobs.DefaultCatalogue().Parse(&schemas.Job{Id: id, Prompt: prompt, Campaign: "spring_sale-1", Retention: "90d"})
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	store := func(t *testing.T, a worker.Assets, j *jobs.Job, i *worker.Image) worker.Asset {
		t.Helper()
		asset, err := a.Store(t.Context(), j, i)
		if err != nil {
			t.Fatalf("Store: %v", err)
		}
		return asset
	}
	t.Run("what is stored is described", func(t *testing.T) {
		i := image(t, strings.Repeat("verbatim bytes\x00\xff", 50_000))
		asset := store(t, open(t), job(t, "plain", "a red fox"), i)
		if asset.Bytes != i.Blob.Len() || asset.CRC32C != i.Blob.CRC32C() || asset.Existing || asset.Generation == 0 {
			t.Errorf("asset %+v", asset)
		}
		if asset.Width != 1376 || asset.Height != 768 || asset.MimeType != "image/png" {
			t.Errorf("asset %+v", asset)
		}
		if !strings.Contains(asset.URI, "/90d/spring_sale-1/plain") {
			t.Errorf("URI %s", asset.URI)
		}
	})
	t.Run("the first write wins", func(t *testing.T) {
		a, j := open(t), job(t, "raced", "a red fox")
		first := store(t, a, j, image(t, "first"))
		second := store(t, a, j, image(t, "second"))
		if !second.Existing || second.CRC32C != first.CRC32C || second.Bytes != first.Bytes || second.Generation != first.Generation {
			t.Errorf("first %+v, then %+v", first, second)
		}
	})
	t.Run("the same bytes again are no second image", func(t *testing.T) {
		a, j := open(t), job(t, "repeated", "a red fox")
		first := store(t, a, j, image(t, "same"))
		again := store(t, a, j, image(t, "same"))
		if again.Existing || again.Generation != first.Generation {
			t.Errorf("first %+v, then %+v", first, again)
		}
	})
	t.Run("what is stored is found", func(t *testing.T) {
		a, j := open(t), job(t, "lost", "a red fox")
		if _, found, err := a.Find(t.Context(), j); found || err != nil {
			t.Errorf("before: %v, %v", found, err)
		}
		stored := store(t, a, j, image(t, "image"))
		store(t, a, job(t, "lost-2", "a red fox"), image(t, "another's"))
		if got, found, err := a.Find(t.Context(), j); !found || err != nil || got != stored {
			t.Errorf("%+v, %v, %v; want %+v", got, found, err, stored)
		}
	})
	t.Run("any prompt fits the metadata", func(t *testing.T) {
		for i, prompt := range []string{strings.Repeat("x", 32_000), strings.Repeat("<&>", 10_000), strings.Repeat("日本語", 3_000), "line\nbreak\ttab \"quotes\""} {
			store(t, open(t), job(t, fmt.Sprint("prompt-", i), prompt), image(t, "image"))
		}
	})
}
