//go:build linux

package torture

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
)

// batchPlan is the size of a scenario of batches.
type batchPlan struct {
	plan
	workers   int           // at a time
	parts     int           // submissions that the jobs come in, one after the other
	rows      int           // of a batch
	shard     int           // rows of an output file
	share     int           // one row of so many comes twice, one does not come, one fails; one of ten times as many is damaged
	batchTime time.Duration // that a batch prediction job waits, and then runs
}

// batchStreams read a subscription in each worker, up to 100 messages a second each: fewer than is usual with an emulator, which has to
// look after each.
const batchStreams = 8

// feedEvery is after how many looks for a held worker it is looked whether the next file may be submitted, which takes longer.
const feedEvery = 40

// intentLimit bounds the time from a worker's note that it will create a Vertex job to the create: one look into the ledger.
const intentLimit = 10 * time.Second

// treatment is what Vertex does to a row when it comes for the first time.
type treatment int

const (
	treatWell treatment = iota
	treatTwice
	treatMissing
	treatThrottled
	treatBroken
	treatInvalid // every time
	treatCut
	treatBase64
	treatGarbage
)

// directives are how a prompt asks for its treatment.
var directives = map[treatment]string{
	treatWell: "", treatTwice: " [[batch:copies:1x1]]", treatMissing: " [[batch:missingx1]]", treatThrottled: " [[fault:429x1]]",
	treatBroken: " [[fault:500x1]]", treatInvalid: " [[fault:400]]", treatCut: " [[batch:cutx1]]", treatBase64: " [[batch:base64x1]]",
	treatGarbage: " [[batch:garbagex1]]",
}

// treatmentOf spreads the treatments over the rows.
func (p *batchPlan) treatmentOf(row int) treatment {
	switch {
	case row%p.share == 1:
		return treatTwice
	case row%p.share == 2:
		return treatMissing
	case row%p.share == 3:
		return []treatment{treatThrottled, treatBroken, treatInvalid}[row/p.share%3]
	case row%(10*p.share) == 4:
		return []treatment{treatCut, treatBase64, treatGarbage}[row/(10*p.share)%3]
	default:
		return treatWell
	}
}

// billed is how many answers to such a row are billed until its job has ended.
func (t treatment) billed() int {
	switch t {
	case treatInvalid:
		return 0
	case treatTwice, treatCut, treatBase64, treatGarbage:
		return 2
	default:
		return 1
	}
}

// images is how many pictures such a row's job has in the end.
func (t treatment) images() int { return min(t.billed(), 1) }

// delivered is how many of these arrive as they should.
func (t treatment) delivered() int {
	switch t {
	case treatInvalid:
		return 0
	case treatTwice:
		return 2
	default:
		return 1
	}
}

// batchWorld is what a scenario of batches plays in.
type batchWorld struct {
	*world
	siege siege
	plan  batchPlan
	treat map[string]treatment // of each job
	files []string             // that are to be submitted
	kills []string
	// faults counts what is wrong, by kind.
	faults map[string]int
}

func newBatchWorld(t *testing.T, p batchPlan) *batchWorld {
	t.Helper()
	w := &batchWorld{world: emptyWorld(t, p.plan), plan: p, treat: map[string]treatment{}, faults: map[string]int{}}
	clear(w.jobs)
	for part := range p.parts {
		from, to := part*p.jobs/p.parts, (part+1)*p.jobs/p.parts
		w.files = append(w.files, w.writeRows(fmt.Sprintf("jobs-%02d.csv", part), from, to, func(i int) string {
			treat := p.treatmentOf(i)
			w.treat[fmt.Sprintf("t-%05d", i)] = treat
			return fmt.Sprintf("picture %05d of the scenario %s%s", i, t.Name(), directives[treat])
		}))
	}
	c := startCloudAs(t, w.dir, "cloud", cloudConfig{BatchTime: p.batchTime, ShardRows: p.shard})
	w.model, w.storage, w.rows, w.queue = c, c, c, c
	w.setEnv(c.variables())
	return w
}

// startBatchWorker runs one more worker behind a front of its own.
func (w *batchWorld) startBatchWorker() {
	w.t.Helper()
	env := w.startFront(&w.siege, fmt.Sprintf("worker-%d", len(w.workers)+1))
	w.startWorkerAs(longGrace, env, "--batch-rows", strconv.Itoa(w.plan.rows), "--streams", strconv.Itoa(batchStreams))
}

// feed submits the next file when all jobs before are claimed: the stand-in for Pub/Sub looks at all of its messages, for each that it delivers.
func (w *batchWorld) feed() {
	w.t.Helper()
	if len(w.files) == 0 || w.objects(localcloud.WorkBucket, "ledger") < len(w.sent)*w.plan.jobs/w.plan.parts {
		return
	}
	w.submitAs(w.files[0], fmt.Sprintf("%s-%02d", submissionID, len(w.sent)), "--mode", "batch")
	w.files = w.files[1:]
}

// kill waits until a worker holds at a strike, kills it, and starts another.
func (w *batchWorld) kill(s *strike) {
	w.t.Helper()
	hit := w.siege.arm(s)
	looks := 0
	eventually(w.t, w.plan.limit, time.Second/20, "a worker has come to: "+s.name, func() bool {
		if looks%feedEvery == 0 {
			w.feed()
		}
		looks++
		return len(hit) > 0
	})
	name := <-hit
	// What a killed worker was about to create is waited for by the others; that place is left to tests in virtual time.
	within(intentLimit, time.Second/20, func() bool { return !w.siege.undecided(name) })
	for _, k := range w.workers {
		if k.name == name {
			k.kill()
		}
	}
	w.kills = append(w.kills, s.name)
	w.t.Logf("%s after %s was killed: %s", name, time.Since(w.began).Round(time.Second), s.name)
	w.startBatchWorker()
}

// awaitClosed waits until every job has ended and every batch is closed: a batch's last jobs end before it does. As long as pictures are missing,
// it does not ask lineage, which would have to read all rows for the answer.
func (w *batchWorld) awaitClosed() {
	w.t.Helper()
	images := 0
	for _, treat := range w.treat {
		images += treat.images()
	}
	pictures := func() int { return w.objects(localcloud.Bucket, "") }
	every := time.Second + time.Duration(w.plan.jobs)*jobLimit/100
	if !within(w.plan.limit, every, func() bool { w.feed(); return pictures() >= images }) {
		w.t.Errorf("after %s there are %d of %d pictures", w.plan.limit, pictures(), images)
		return
	}
	w.awaitEnd()
	eventually(w.t, w.plan.limit, time.Second, "all batches are closed", func() bool {
		return len(w.query("SELECT batch_id FROM batches WHERE state != 'closed'")) == 0
	})
}

// objects counts the objects below a folder of a bucket.
func (w *batchWorld) objects(bucket, folder string) (n int) {
	_ = filepath.WalkDir(filepath.Join(w.storage.bucket(bucket), folder), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			n++
		}
		return nil // a folder that is not there yet has none
	})
	return n
}

// vertexJobs returns what the model knows of its batch prediction jobs.
func (w *batchWorld) vertexJobs() (all []vertextest.BatchJob) {
	w.t.Helper()
	answer, err := http.Get(w.model.variables()["VERTEX_EMULATOR_HOST"] + "/_vertextest/batches")
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// peakMemory is the largest resident set of a worker, in MiB. All must have ended.
func (w *batchWorld) peakMemory() (mib int64) {
	for _, k := range w.workers {
		if usage, ok := k.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			mib = max(mib, usage.Maxrss>>10)
		}
	}
	return mib
}
