package batch_test

import (
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

func TestEachImageLandsOnItsOwnJob(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.start("w1", nil)
		w.publishMany(250)
		if got := w.closeBooks(2*time.Hour, prompts(250), p)[string(jobs.ReasonImage)]; got != 250 {
			t.Errorf("%d images", got)
		}
		closed := w.closed()
		if len(closed) != 1 || closed[0].GetJobs() != 250 || closed[0].GetDone() != 250 || closed[0].GetReason() != "complete" {
			t.Errorf("closed: %v", closed)
		}
		if n := len(w.vertex.Jobs("")); n != 1 {
			t.Errorf("%d Vertex jobs", n)
		}
	})
}
