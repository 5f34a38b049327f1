//go:build linux

package torture

import (
	"os"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/localcloud"
)

// strikes are the places at which workers of batches are killed, in the order in which a batch comes to them.
func (p *batchPlan) strikes() []*strike {
	work, assets := localcloud.WorkBucket, localcloud.Bucket
	claim := writes(work, "ledger/", "/t-", `"state":"claimed"`, `"batch":"b-`)
	back := writes(work, "ledger/", "/t-", `"state":"released"`)
	return []*strike{
		{name: "gathering: jobs are claimed", at: nth(p.rows/4, claim)},
		{name: "sealing: the hand-off is sent, the manifest is not written", at: writes(work, "batches/", "/manifest.json", `"gatherer"`)},
		{name: "sealing: the manifest is written, no message is acknowledged", at: writes(work, "batches/", "/manifest.json", `"gatherer"`), after: true},
		{name: "submitting: the Vertex job exists, nobody knows its name", at: calls(methodCreate), after: true},
		{name: "watching: a look at the Vertex job", at: calls("get")},
		{name: "collecting: in the middle of a range", at: nth(p.shard/2, writes(assets, ""))},
		{name: "collecting: a range is stored, its checkpoint is not written", at: writes(work, "batches/", "/ranges/")},
		{name: "reconciling: jobs are in the queue, and still claimed", at: nth(3, back)},
		{name: "closing: all is done, and not noted", at: writes(work, "batches/", "/state.json", `"phase":"closed"`)},
	}
}

// quickStrikes are those that come within half a minute. For each of the others, a killed worker's ranges have to be taken over first.
const quickStrikes = 7

// Workers are killed wherever a batch may be, and others go on. What comes of it is the same as if nobody had been killed.
func TestBatchesKilled(t *testing.T) {
	p := sized(t,
		batchPlan{plan: plan{2000, 16, 0, 0, 5 * time.Minute}, workers: 2, parts: 1, rows: 400, shard: 100, share: 20, batchTime: time.Second},
		batchPlan{plan: plan{100_000, 64, 0, 0, 2 * time.Hour}, workers: 3, parts: 10, rows: 10_000, shard: 1000, share: 100, batchTime: 5 * time.Second})
	w := newBatchWorld(t, p)
	for range p.workers {
		w.startBatchWorker()
	}
	strikes := p.strikes()
	if os.Getenv(fullSizes) == "" {
		strikes = strikes[:quickStrikes]
	}
	for _, s := range strikes {
		w.kill(s)
	}
	w.awaitClosed()
	b := w.balanceBatches("G batches killed")
	// Before they were sealed, two batches lost their gatherers.
	if b.voids < 2 {
		t.Errorf("%d batches were voided, want 2 or more: the scenario proves nothing", b.voids)
	}
}
