//go:build linux

package torture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// books is what the sources say when all is over.
type books struct {
	scenario string
	jobs     int
	billed   int // calls, by the call log
	twice    int // calls beyond the first of each job
	unharmed int // of these, calls for jobs that no harmed worker held
	held     int // claims that harmed workers held
	failed   int // jobs that ended without an image
	lost     int // jobs without a row that are not in the queue either
	pending  int // jobs without a row that are in the queue
	wrong    int // objects that are not what their rows say, or without a row
	double   int // rows in the view beyond one a job, and jobs whose raw rows contradict each other
	unbooked int // billed calls without a row in attempts
	unknown  int // attempts whose result is unknown

	fenced, takenOver, adopted, givenBack int // by the workers themselves
	standInLost                           int // objects that a killed storage stand-in left half written
	recoveries                            []recovery
	wall                                  time.Duration
	load                                  string
}

// maxTold bounds how many of a kind are told of one by one.
const maxTold = 5

// row is what lineage says of a job.
type row struct {
	job, hash, outcome, uri, crc string
	bytes                        float64
	finished                     time.Time
}

// balance stops the workers and compares what the sources say. It reports what no scenario allows.
func (w *world) balance(scenario string, harms ...*harm) *books {
	w.t.Helper()
	wall := time.Since(w.began)
	w.close()
	b := &books{scenario: scenario, jobs: w.plan.jobs, held: w.held, wall: wall, load: w.load}
	rows := w.generations(b)
	billed, images := w.billed(b)
	w.checkObjects(b, rows, images)
	w.checkAttempts(b, billed)
	w.checkPending(b, rows)
	for _, k := range w.workers {
		b.fenced += k.count("fenced")
		b.takenOver += k.count("taken_over")
		b.adopted += k.count("adopted")
		b.givenBack += k.count("given_back")
	}
	for _, h := range harms {
		b.recoveries = append(b.recoveries, h.recovery(rows))
		w.t.Log(b.recoveries[len(b.recoveries)-1])
	}
	b.standInLost = w.halfWritten()
	report(b)
	w.t.Log(b)
	for name, n := range map[string]int{
		"lost jobs": b.lost, "pending jobs": b.pending, "wrong objects": b.wrong, "double rows": b.double, "unbooked calls": b.unbooked,
		"calls paid twice for jobs that no harmed worker held": b.unharmed,
	} {
		if n != 0 {
			w.t.Errorf("%s: %d", name, n)
		}
	}
	return b
}

// recovery is how long after a harm the jobs that the worker held ended: the first, the median and the last of them.
type recovery struct {
	what              string
	held              int
	first, half, last time.Duration
}

func (r recovery) String() string {
	return fmt.Sprintf("%s: of %d jobs held, the first ended after %.1f s, half after %.1f s, the last after %.1f s",
		r.what, r.held, r.first.Seconds(), r.half.Seconds(), r.last.Seconds())
}

func (h *harm) recovery(rows map[string]row) recovery {
	var ends []time.Duration
	for job := range h.held {
		if r, ok := rows[job]; ok {
			ends = append(ends, max(r.finished.Sub(h.at), 0)) // its end may have been on its way to the ledger at that moment
		}
	}
	if len(ends) == 0 {
		return recovery{what: h.what}
	}
	slices.Sort(ends)
	return recovery{h.what, len(ends), ends[0], ends[len(ends)/2], ends[len(ends)-1]}
}

// generations reads the view and counts rows beyond one a job; and the raw rows, which repeat, but must agree.
func (w *world) generations(b *books) map[string]row {
	w.t.Helper()
	rows := map[string]row{}
	for _, r := range w.query(`SELECT job_id, prompt_sha256, outcome, asset_uri, asset_crc32c, asset_bytes, UNIX_MICROS(finished_at) AS finished
		FROM generations WHERE STARTS_WITH(submission, '` + submissionID + `')`) {
		micros, _ := r["finished"].(float64)
		n := row{
			job: text(r["job_id"]), hash: text(r["prompt_sha256"]), outcome: text(r["outcome"]), uri: text(r["asset_uri"]),
			crc: text(r["asset_crc32c"]), finished: time.UnixMicro(int64(micros)),
		}
		n.bytes, _ = r["asset_bytes"].(float64)
		if _, again := rows[n.job]; again {
			b.double++
		}
		rows[n.job] = n
		if n.outcome != "succeeded" {
			b.failed++
			if b.failed <= maxTold {
				w.t.Logf("%s ended as %s", n.job, n.outcome)
			}
		}
		if w.jobs[n.hash] != n.job {
			b.wrong++
			w.t.Errorf("the row of %s has the prompt of %q", n.job, w.jobs[n.hash])
		}
	}
	b.double += len(w.query(`SELECT job_id FROM generations_raw WHERE STARTS_WITH(submission, '` + submissionID + `') GROUP BY job_id
		HAVING COUNT(DISTINCT CONCAT(worker, '/', CAST(finished_at AS STRING), '/', IFNULL(asset_crc32c, ''))) > 1`))
	return rows
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// billed counts the calls of each job and collects the hashes of the images that the model made for it.
func (w *world) billed(b *books) (calls map[string]int, images map[string][]string) {
	w.t.Helper()
	calls, images = map[string]int{}, map[string][]string{}
	for _, c := range w.calls() {
		job, known := w.jobs[c.Prompt]
		if !known {
			w.t.Errorf("the model was asked for a prompt of nobody: %s", c.Prompt)
			continue
		}
		b.billed++
		calls[job]++
		images[job] = append(images[job], c.Image)
		if calls[job] > 1 {
			b.twice++
			if !w.exposed[job] {
				b.unharmed++
				w.t.Errorf("%s was paid for %d times, and no harmed worker held it", job, calls[job])
			}
		}
	}
	return calls, images
}

// checkObjects holds every file of the assets' bucket against its row and against what the model made.
func (w *world) checkObjects(b *books, rows map[string]row, images map[string][]string) {
	w.t.Helper()
	wrong := func(format string, args ...any) {
		b.wrong++
		w.t.Errorf(format, args...)
	}
	root := w.storage.bucket(localcloud.Bucket)
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, ".metadata") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		job := strings.TrimSuffix(entry.Name(), filepath.Ext(entry.Name()))
		found[job] = true
		r, known := rows[job]
		hash, _ := vertextest.PromptHash(data)
		sum := sha256.Sum256(data)
		switch {
		case !known:
			wrong("%s has no row", name)
		case r.uri != "gs://"+localcloud.Bucket+"/"+filepath.ToSlash(name):
			wrong("%s: its row names %s", name, r.uri)
		case hash != r.hash:
			wrong("%s was made for the prompt of %q", name, w.jobs[hash])
		case worker.EncodeCRC32C(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))) != r.crc || float64(len(data)) != r.bytes:
			wrong("%s of %d bytes is not what its row says: %s, %v bytes", name, len(data), r.crc, r.bytes)
		case !slices.Contains(images[job], hex.EncodeToString(sum[:])):
			wrong("%s is no image that the model made for %s", name, job)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for job, r := range rows {
		if r.outcome == "succeeded" && !found[job] {
			wrong("%s has a row and no object", job)
		}
	}
}

// checkAttempts holds the calls that were billed against those that lineage knows of.
func (w *world) checkAttempts(b *books, billed map[string]int) {
	w.t.Helper()
	booked := map[string]int{}
	for _, r := range w.query(`SELECT job_id, COUNTIF(result IN ('image', 'unknown')) AS calls, COUNTIF(result = 'unknown') AS unknown
		FROM attempts WHERE submission = '` + submissionID + `' GROUP BY job_id`) {
		n, _ := r["calls"].(float64)
		unknown, _ := r["unknown"].(float64)
		booked[text(r["job_id"])] = int(n)
		b.unknown += int(unknown)
	}
	for job, n := range billed {
		if n > booked[job] {
			b.unbooked += n - booked[job]
			w.t.Errorf("%s: %d calls were billed, lineage knows of %d", job, n, booked[job])
		}
	}
}

// checkPending looks for the jobs that have no row. Those still in the queue are not lost.
func (w *world) checkPending(b *books, rows map[string]row) {
	w.t.Helper()
	missing := map[string]bool{}
	for _, job := range w.jobs {
		if _, ok := rows[job]; !ok {
			missing[job] = true
		}
	}
	if len(missing) == 0 {
		return
	}
	ledger := w.ledger()
	// What a killed worker had leased comes back within a lease.
	within(90*time.Second, time.Second, func() bool {
		for _, job := range append(w.pull(schemas.SubscriptionOnline), w.pull(schemas.SubscriptionBatch)...) {
			if missing[job] {
				b.pending++
				delete(missing, job)
			}
		}
		return len(missing) == 0
	})
	b.lost = len(missing)
	for job := range missing {
		w.t.Errorf("%s is lost; the ledger has it as %+v", job, ledger[job])
	}
}

// pull takes what is on a subscription now and returns whose messages these are.
func (w *world) pull(subscription string) (ids []string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), commandLimit)
	defer cancel()
	client, err := pubsub.NewClient(ctx, localcloud.Project, option.WithEndpoint(w.queue.variables()["PUBSUB_EMULATOR_HOST"]),
		option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.SubscriptionAdminClient.Pull(ctx, &pubsubpb.PullRequest{
		Subscription: "projects/" + localcloud.Project + "/subscriptions/" + subscription, MaxMessages: 10_000,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range answer.GetReceivedMessages() {
		job := &schemas.Job{}
		if err := schemas.Unmarshal(m.GetMessage().GetData(), job); err != nil {
			w.t.Error(err)
		}
		ids = append(ids, job.GetId())
	}
	return ids
}

// halfWritten counts the objects that the storage stand-in, killed in the middle of a write, had to set aside.
func (w *world) halfWritten() (n int) {
	_ = filepath.WalkDir(filepath.Join(w.storage.dir, "unfinished"), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}

func (b *books) String() string {
	var out strings.Builder
	printBooks(&out, []*books{b})
	return "\n" + out.String()
}

// ended collects the books of all scenarios for the table at the end.
var ended struct {
	mu  sync.Mutex
	all []*books
}

func report(b *books) {
	ended.mu.Lock()
	defer ended.mu.Unlock()
	ended.all = append(ended.all, b)
}

// printBooks prints a table with a line for each scenario.
func printBooks(out io.Writer, all []*books) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\tjobs\tbilled\ttwice\theld\tfailed\tlost\twrong\tdouble\tunbooked\tunknown\tfenced\ttaken over\tadopted\tgiven back\trecovery\twall\tload\tstand-in lost\t")
	for _, b := range all {
		var recoveries []string
		for _, r := range b.recoveries {
			recoveries = append(recoveries, fmt.Sprintf("%.0f-%.0fs", r.first.Seconds(), r.last.Seconds()))
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t\n", b.scenario, b.jobs, b.billed, b.twice, b.held, b.failed, b.lost+b.pending, b.wrong,
			b.double, b.unbooked, b.unknown, b.fenced, b.takenOver, b.adopted, b.givenBack, strings.Join(recoveries, " "), b.wall.Round(time.Second), b.load, b.standInLost)
	}
	table.Flush()
}
