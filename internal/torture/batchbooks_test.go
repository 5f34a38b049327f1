//go:build linux

package torture

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/schemas"
)

// batchBooks is what the sources say of a scenario of batches.
type batchBooks struct {
	books
	batches, vertexJobs, kills int
	// By the batches' own rows.
	gathered, done, ended, requeued, missing, duplicated, orphans, damaged int
	paidAgain                                                              int // for rows whose line was damaged
	voids                                                                  int // batches that were never sealed, and never will be
	memory                                                                 int64
}

// balanceBatches stops the workers and compares what the sources say with what Vertex was told to do. There is no tolerance: whenever a worker
// is killed, each row is made, billed and counted as if it was not.
func (w *batchWorld) balanceBatches(scenario string) *batchBooks {
	w.t.Helper()
	b := &batchBooks{kills: len(w.kills), books: books{scenario: scenario, jobs: w.plan.jobs, wall: time.Since(w.began), load: w.load}}
	jobs := w.vertexJobs()
	w.close()
	rows := w.generations(&b.books)
	images := w.checkCalls(b)
	w.checkObjects(&b.books, rows, images)
	w.checkEnds(rows)
	w.checkVertexJobs(b, jobs)
	w.checkBatchRows(b)
	w.checkPending(&b.books, rows)
	if dead := w.pull(schemas.SubscriptionDead); len(dead) != 0 {
		w.t.Errorf("%d dead letters, the first of job %s", len(dead), dead[0])
	}
	for _, k := range w.workers {
		b.fenced += k.count("fenced")
	}
	b.memory, b.voids = w.peakMemory(), w.countVoids()
	for name, n := range map[string]int{"lost jobs": b.lost, "pending jobs": b.pending, "wrong objects": b.wrong, "double rows": b.double} {
		if n != 0 {
			w.t.Errorf("%s: %d", name, n)
		}
	}
	w.t.Log(b)
	return b
}

// wrong reports what is wrong with one of many, for the first few of a kind.
func (w *batchWorld) wrong(kind, format string, args ...any) {
	w.t.Helper()
	switch w.faults[kind]++; {
	case w.faults[kind] <= maxTold:
		w.t.Errorf(format, args...)
	case w.faults[kind] == maxTold+1:
		w.t.Errorf("%s: there are more", kind)
	}
}

// source is where an image was made: one Vertex job, or, with an empty name, online.
type source struct{ job, batch string }

// checkCalls holds what was billed for each job against its treatment. The images of each job are returned.
func (w *batchWorld) checkCalls(b *batchBooks) (images map[string][]string) {
	w.t.Helper()
	images = map[string][]string{}
	billed, delivered := map[string]int{}, map[source]int{}
	good := map[string][]string{} // the Vertex jobs that delivered a job's image
	for _, c := range w.calls() {
		job, known := w.jobs[c.Prompt]
		if !known {
			w.wrong("prompts", "the model was asked for a prompt of nobody: %s", c.Prompt)
			continue
		}
		b.billed++
		billed[job]++
		images[job] = append(images[job], c.Image)
		if c.Delivered {
			if delivered[source{job, c.Batch}]++; delivered[source{job, c.Batch}] == 1 {
				good[job] = append(good[job], c.Batch)
			}
		}
	}
	b.twice = b.billed - len(billed)
	for job, treat := range w.treat {
		total := 0
		for _, from := range good[job] {
			total += delivered[source{job, from}]
		}
		if billed[job] != treat.billed() || total != treat.delivered() || len(good[job]) > 1 {
			w.wrong("bills", "%s (%q): billed %d times, delivered %d times by %q; want %d and %d, by one Vertex job", job, directives[treat], billed[job], total, good[job],
				treat.billed(), treat.delivered())
		}
		if treat >= treatCut {
			b.paidAgain++
		}
	}
	return images
}

// checkEnds holds each job's row against its treatment.
func (w *batchWorld) checkEnds(rows map[string]row) {
	w.t.Helper()
	for job, r := range rows {
		want := "succeeded"
		if w.treat[job] == treatInvalid {
			want = "failed"
		}
		if r.outcome != want {
			w.wrong("ends", "%s (%q) ended as %s, want %s", job, directives[w.treat[job]], r.outcome, want)
		}
	}
	// A row that Vertex calls invalid is an end with a reason, and nothing else is.
	reasons := w.query(`SELECT reason, COUNT(*) AS jobs FROM generations WHERE STARTS_WITH(submission, '` + submissionID + `') AND outcome != 'succeeded' GROUP BY reason`)
	if len(reasons) != 1 || text(reasons[0]["reason"]) != "rejected" {
		w.t.Errorf("jobs failed for %v, want only: rejected", reasons)
	}
}

// checkVertexJobs sees to it that every batch has one Vertex job.
func (w *batchWorld) checkVertexJobs(b *batchBooks, jobs []vertextest.BatchJob) {
	w.t.Helper()
	of := map[string]string{}
	for _, j := range jobs {
		batch := j.Labels["assetmill_batch"]
		if other, again := of[batch]; again {
			w.wrong("Vertex jobs", "batch %s has two Vertex jobs: %s and %s", batch, other, j.Name)
		}
		of[batch] = j.Name
		if j.State != "JOB_STATE_SUCCEEDED" && j.State != "JOB_STATE_PARTIALLY_SUCCEEDED" {
			w.t.Errorf("%s of batch %s is %s: %s", j.Name, batch, j.State, j.Error)
		}
	}
	b.vertexJobs = len(jobs)
	for _, r := range w.query("SELECT batch_id, vertex_job, jobs FROM batches") {
		b.batches++
		if batch := text(r["batch_id"]); of[batch] != text(r["vertex_job"]) {
			w.t.Errorf("batch %s has the Vertex job %q, and says %v", batch, of[batch], r["vertex_job"])
		}
		delete(of, text(r["batch_id"]))
	}
	for _, batch := range slices.Sorted(maps.Keys(of)) {
		w.t.Errorf("batch %s has a Vertex job, and no row", batch)
	}
}

// checkBatchRows adds up what the batches say of themselves, and holds it against the treatments.
func (w *batchWorld) checkBatchRows(b *batchBooks) {
	w.t.Helper()
	sums := map[string]*int{
		"jobs": &b.gathered, "done": &b.done, "failed": &b.ended, "requeued": &b.requeued, "missing": &b.missing, "duplicated": &b.duplicated,
		"orphans": &b.orphans, "damaged": &b.damaged,
	}
	for _, r := range w.query("SELECT jobs, done, failed, requeued, missing, duplicated, orphans, damaged FROM batches WHERE state = 'closed'") {
		for name, sum := range sums {
			n, _ := r[name].(float64)
			*sum += int(n)
		}
	}
	of := map[treatment]int{}
	for _, treat := range w.treat {
		of[treat]++
	}
	unread := of[treatCut] + of[treatBase64] + of[treatGarbage]
	again := of[treatMissing] + of[treatThrottled] + of[treatBroken] + unread
	for name, want := range map[string]int{
		"jobs": w.plan.jobs + again, "done": w.plan.jobs - of[treatInvalid], "failed": of[treatInvalid], "requeued": again,
		"missing":    of[treatMissing] + of[treatGarbage], // nobody can say whose line the garbage was
		"duplicated": of[treatTwice], "orphans": of[treatGarbage], "damaged": unread,
	} {
		if *sums[name] != want {
			w.t.Errorf("the batches count %d %s, want %d", *sums[name], name, want)
		}
	}
	if kept := len(w.batchFiles("/orphans/")); kept != of[treatGarbage] {
		w.t.Errorf("%d lines of no job are kept, want %d", kept, of[treatGarbage])
	}
}

// batchFiles returns the files of batches whose paths contain a word.
func (w *batchWorld) batchFiles(word string) (paths []string) {
	w.t.Helper()
	root := filepath.Join(w.storage.bucket(localcloud.WorkBucket), "batches")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Contains(path, word) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	return paths
}

// countVoids counts the batches that were voided, since their gatherers died before they could seal them.
func (w *batchWorld) countVoids() (n int) {
	w.t.Helper()
	for _, path := range w.batchFiles("/manifest.json") {
		data, err := os.ReadFile(path)
		if err != nil {
			w.t.Error(err)
		}
		if bytes.Contains(data, []byte(`"void":true`)) {
			n++
		}
	}
	return n
}

func (b *batchBooks) String() string {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nscenario\tjobs\tbatches\tVertex jobs\trows sent\tbilled\tduplicated\tmissing\trequeued\tdamaged\tpaid again\tfailed\tlost\twrong\tdouble\tfenced\tkills\tvoids\tmemory\twall\tload\t")
	fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d MiB\t%s\t%s\t\n", b.scenario, b.jobs, b.batches, b.vertexJobs, b.gathered, b.billed,
		b.duplicated, b.missing, b.requeued, b.damaged, b.paidAgain, b.ended, b.lost+b.pending, b.wrong, b.double, b.fenced, b.kills, b.voids, b.memory,
		b.wall.Round(time.Second), b.load)
	table.Flush()
	return out.String()
}
