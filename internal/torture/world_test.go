//go:build linux

package torture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
)

const (
	submissionID = "torture" // and the beginning of more of them
	// drainLimit bounds a worker's stop: its grace comes on top.
	drainLimit = 20 * time.Second
	// commandLimit bounds one command of assetmill, and jobLimit is added for each job: what is asked of lineage is asked of all rows.
	commandLimit = 2 * time.Minute
	jobLimit     = 10 * time.Millisecond
)

// plan is the size of a scenario.
type plan struct {
	jobs        int
	concurrency int           // of each worker
	latency     time.Duration // of a call, on the average
	spread      time.Duration // by which a call takes more or less
	limit       time.Duration // until every job has ended
}

// world is what a scenario plays in.
type world struct {
	t       *testing.T
	plan    plan
	dir     string
	env     []string
	prefix  []string // before every worker's command line
	csv     string
	sent    []string          // submissions
	jobs    map[string]string // the hash of each prompt: its job
	workers []*workerProcess
	began   time.Time

	model, storage, rows, queue *cloud // the clouds of which each service is used; often one and the same

	exposed map[string]bool // jobs that a worker held when it was killed, frozen or cut off
	held    int             // how many claims these workers held, summed over the harms
	load    string          // of the machine when the scenario began
}

// newWorld starts one local cloud and writes the CSV file.
func newWorld(t *testing.T, p plan, prefix ...string) *world {
	t.Helper()
	w := emptyWorld(t, p, prefix...)
	c := startCloud(t, w.dir, "cloud", p, prefix...)
	w.model, w.storage, w.rows, w.queue = c, c, c, c
	w.setEnv(c.variables())
	return w
}

func emptyWorld(t *testing.T, p plan, prefix ...string) *world {
	t.Helper()
	w := &world{
		t: t, plan: p, dir: scratch(t), prefix: prefix, exposed: map[string]bool{}, jobs: map[string]string{}, load: loadAverage(),
	}
	w.writeCSV(func(i int) string { return fmt.Sprintf("picture %05d of the scenario %s", i, t.Name()) })
	return w
}

func (w *world) setEnv(vars map[string]string) {
	w.env = os.Environ()
	for name, value := range vars {
		w.env = append(w.env, name+"="+value)
	}
}

// writeCSV makes as many jobs as planned, each with a prompt of its own.
func (w *world) writeCSV(promptOf func(i int) string) {
	w.csv = w.writeRows("jobs.csv", 0, w.plan.jobs, promptOf)
}

// writeRows makes a file of the jobs from one number to before another.
func (w *world) writeRows(name string, from, to int, promptOf func(i int) string) (path string) {
	var text strings.Builder
	text.WriteString("id,prompt\n")
	for i := from; i < to; i++ {
		id, prompt := fmt.Sprintf("t-%05d", i), promptOf(i)
		fmt.Fprintf(&text, "%s,%s\n", id, prompt)
		sum := sha256.Sum256([]byte(prompt))
		w.jobs[hex.EncodeToString(sum[:])] = id
	}
	path = filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// run runs one command of assetmill to its end.
func (w *world) run(args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), commandLimit+time.Duration(w.plan.jobs)*jobLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var errs bytes.Buffer
	cmd.Env, cmd.Stderr = w.env, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("assetmill %s: %w: %s", args[0], err, errs.String())
	}
	return string(out), err
}

// submit publishes the CSV file and returns how many jobs went out.
func (w *world) submit() int {
	w.t.Helper()
	return w.submitAs(w.csv, submissionID)
}

// submitAs publishes a file as a submission.
func (w *world) submitAs(file, submission string, more ...string) int {
	w.t.Helper()
	out, err := w.run(append([]string{"submit", file, "--submission", submission, "--campaign", submissionID, "--json"}, more...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	var receipt struct {
		Published json.Number `json:"published"`
	}
	if err := json.Unmarshal([]byte(out), &receipt); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	n, _ := strconv.Atoi(receipt.Published.String())
	if !slices.Contains(w.sent, submission) {
		w.sent = append(w.sent, submission)
	}
	if w.began.IsZero() {
		w.began = time.Now()
	}
	return n
}

// query asks lineage.
func (w *world) query(sql string) []map[string]any {
	w.t.Helper()
	out, err := w.run("query", "--json", sql)
	if err != nil {
		w.t.Fatal(err)
	}
	var rows []map[string]any
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			w.t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// workerProcess is an assetmill worker.
type workerProcess struct {
	*process
	w     *world
	grace time.Duration
	id    string
}

// startWorker runs one more worker and returns when it works.
func (w *world) startWorker(grace time.Duration) *workerProcess {
	w.t.Helper()
	return w.startWorkerAs(grace, w.env)
}

// startWorkerAs is startWorker with an environment, and more of a command line.
func (w *world) startWorkerAs(grace time.Duration, env []string, more ...string) *workerProcess {
	w.t.Helper()
	name := fmt.Sprintf("worker-%d", len(w.workers)+1)
	argv := append(append([]string{}, w.prefix...), binary, "worker", "--concurrency", strconv.Itoa(w.plan.concurrency), "--grace", grace.String())
	k := &workerProcess{w: w, grace: grace, process: start(w.t, name, filepath.Join(w.dir, name+".log"), env, append(argv, more...)...)}
	w.workers = append(w.workers, k)
	eventually(w.t, startLimit, 20*time.Millisecond, name+" works", func() bool {
		if k.hasEnded() {
			w.t.Fatalf("%s has ended: %v\n%s", name, k.err, tail(k.log, 10))
		}
		k.id, _ = k.last("working")["worker"].(string)
		return k.id != ""
	})
	return k
}

// last returns the worker's last log line with a message, or nil.
func (k *workerProcess) last(message string) map[string]any {
	var found map[string]any
	text, _ := os.ReadFile(k.log)
	for line := range bytes.Lines(text) {
		var fields map[string]any
		if json.Unmarshal(line, &fields) == nil && fields["message"] == message {
			found = fields
		}
	}
	return found
}

// count returns a figure of the worker's last word about itself.
func (k *workerProcess) count(name string) int {
	fields := k.last("stopped")
	if fields == nil {
		fields = k.last("progress") // it was killed
	}
	n, _ := fields[name].(float64)
	return int(n)
}

// stop lets the worker end in order.
func (k *workerProcess) stop() {
	k.w.t.Helper()
	if !k.hasEnded() {
		k.terminate(k.w.t, k.grace+drainLimit)
	}
}

// calls returns the lines of the call log, without one that is being written.
func (w *world) calls() (all []vertextest.CallRecord) {
	w.t.Helper()
	text, err := os.ReadFile(w.model.callLog())
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var c vertextest.CallRecord
		if err := json.Unmarshal(line, &c); err != nil {
			if bytes.HasSuffix(line, []byte("\n")) {
				w.t.Fatalf("call log: %v in %s", err, line)
			}
			break
		}
		all = append(all, c)
	}
	return all
}

// reach waits until the model has answered a share of the jobs, while the workers that should live do.
func (w *world) reach(percent int) {
	w.t.Helper()
	eventually(w.t, w.plan.limit, 200*time.Millisecond, fmt.Sprintf("%d %% of the jobs answered", percent), func() bool {
		return len(w.calls())*100 >= w.plan.jobs*percent
	})
}

// claim is what the ledger says of one job, as far as this package reads it.
type claim struct {
	State  string `json:"state"`
	Worker string `json:"worker"`
}

// ledger reads the ledger's files, whose form is the ledger's alone otherwise.
func (w *world) ledger() map[string]claim {
	w.t.Helper()
	all := map[string]claim{}
	root := filepath.Join(w.storage.bucket(localcloud.WorkBucket), "ledger")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, ".metadata") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var c claim
		if json.Unmarshal(data, &c) != nil {
			c.State = "being written"
		}
		all[entry.Name()] = c
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return all
}

// claimsOf returns the jobs that a worker holds.
func (w *world) claimsOf(k *workerProcess) map[string]bool {
	held := map[string]bool{}
	for job, c := range w.ledger() {
		if c.State == "claimed" && c.Worker == k.id {
			held[job] = true
		}
	}
	return held
}

// harm is something that was done to a worker.
type harm struct {
	what string
	at   time.Time
	held map[string]bool // the jobs that it held
}

// harmed notes what a worker that was harmed holds: these jobs may be paid for twice.
func (w *world) harmed(what string, at time.Time, held map[string]bool) *harm {
	maps.Copy(w.exposed, held)
	w.held += len(held)
	return &harm{what, at, held}
}

// killWorker kills a worker in the middle of its work.
func (w *world) killWorker(k *workerProcess) *harm {
	w.t.Helper()
	at := time.Now()
	k.kill()
	h := w.harmed("SIGKILL", at, w.claimsOf(k))
	if len(h.held) == 0 {
		w.t.Errorf("%s held nothing when it was killed: the scenario proves nothing", k.name)
	}
	return h
}

// awaitEnd waits until every job has its row.
func (w *world) awaitEnd() {
	w.t.Helper()
	every := 2 * time.Second
	if w.plan.jobs > 10_000 {
		every = 15 * time.Second // the question itself takes the local cloud seconds
	}
	var last string
	left := slices.Clone(w.sent)
	ok := within(w.plan.limit, every, func() bool {
		for len(left) > 0 {
			out, err := w.run("status", left[0], "--json")
			var status struct{ Complete bool }
			if err != nil || json.Unmarshal([]byte(out), &status) != nil {
				last = fmt.Sprint(err)
				return false
			}
			last = out
			if !status.Complete {
				return false
			}
			left = left[1:]
		}
		return true
	})
	if !ok {
		w.t.Errorf("not every job has ended after %s: %s", w.plan.limit, last)
	}
}

// close stops the workers that are left.
func (w *world) close() {
	w.t.Helper()
	for _, k := range w.workers {
		k.signal(syscall.SIGTERM)
	}
	for _, k := range w.workers {
		if k.cmd.ProcessState == nil || !k.hasEnded() {
			k.wait(w.t, k.grace+drainLimit)
		}
	}
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Join(strings.Fields(string(text))[:2], " ")
}
