package worker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

func TestAJobWithoutLaneIsToldSoAndCanComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.refuse.Store(true)
		b.publish("stranded", `,"source":{"SKU":"7"}`)
		time.Sleep(time.Minute)
		if dead := b.queue.Dead(); len(dead) != 1 || dead[0].Verdict.Reason != jobs.ReasonNoLane {
			t.Fatalf("dead letters: %v", dead)
		}
		if e := b.results.Events(); len(e) != 1 || e[0].GetOutcome() != "failed" || e[0].GetReason() != "no_lane" || e[0].GetSource()["SKU"] != "7" {
			t.Errorf("events: %v", e)
		}
		if rows := b.lineage.Generations(); len(rows) != 0 || b.model.Calls("stranded") != 0 {
			t.Errorf("%d rows and %d calls of a job that has not ended", len(rows), b.model.Calls("stranded"))
		}
		// The dead letter is sent again once there is a lane.
		b.refuse.Store(false)
		b.publish("stranded", `,"source":{"SKU":"7"}`)
		time.Sleep(time.Minute)
		b.halt()
		if row := b.row("stranded"); row.GetOutcome() != "succeeded" || row.GetAttempts() != 1 {
			t.Errorf("row: %v", row)
		}
	})
}

func TestAnImageThatTheModelWroteIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, _ context.Context, j *jobs.Job, _ int) (*worker.Answer, error) {
			return &worker.Answer{Reason: jobs.ReasonImage, Written: b.assets.Write(j, []byte("written")), Usage: jobs.Usage{Image: 1120}}, nil
		})
		b.publish("straight", "")
		time.Sleep(time.Minute)
		b.halt()
		stored := b.assets.Objects()["keep/default/straight"]
		if row := b.row("straight"); string(stored.Content) != "written" || row.GetAssetUri() != stored.URI || row.GetOutcome() != "succeeded" {
			t.Errorf("stored %q, row: %v", stored.Content, row)
		}
	})
}

// What makes a lost answer cheap: the image is in the bucket, so it is adopted and not paid for again.
func TestAnImageWhoseAnswerWasLostIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, _ context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			b.assets.Write(j, fmt.Appendf(nil, "written by call %d", n))
			return nil, callError(worker.Unanswered)
		})
		b.publish("lost", "")
		time.Sleep(5 * time.Minute)
		b.halt()
		row := b.row("lost")
		if b.model.Calls("lost") != 1 || row.GetOutcome() != "succeeded" || row.GetAttempts() != 1 || !row.GetCostIsFallback() {
			t.Errorf("%d calls, row: %v", b.model.Calls("lost"), row)
		}
		if got := b.assets.Objects()["keep/default/lost"]; string(got.Content) != "written by call 1" {
			t.Errorf("stored %q", got.Content)
		}
	})
}

// The same for the next worker, when the first was stopped before it could look.
func TestAnImageWhoseAnswerWasLostIsAdoptedByTheNextWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, _ int) (*worker.Answer, error) {
			<-ctx.Done()
			b.assets.Write(j, []byte("late"))
			return nil, &worker.CallError{Kind: worker.Unanswered, Err: context.Cause(ctx)}
		})
		b.publish("cut-off", "")
		time.Sleep(time.Second)
		b.halt()
		b.runAs("w2")
		b.queue.Publish([]byte(`{"id":"wake","prompt":"x"}`), nil)
		time.Sleep(time.Minute)
		b.halt()
		if row := b.row("cut-off"); b.model.Calls("cut-off") != 1 || row.GetOutcome() != "succeeded" {
			t.Errorf("%d calls, row: %v", b.model.Calls("cut-off"), row)
		}
	})
}

func TestLanesPriceHoldsForItsImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		price := jobs.USD(10_000_000)
		b := start(t, succeed)
		b.lanes.Lane.ImagePrice = &price
		b.publish("cheap", "")
		time.Sleep(time.Minute)
		b.halt()
		if row := b.row("cheap"); row.GetCostUsd() != "0.010000000" {
			t.Errorf("cost is %s", row.GetCostUsd())
		}
	})
}
