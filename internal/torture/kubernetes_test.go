//go:build linux

package torture

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manifest is what deploy/kubernetes says of a worker's pod, as far as its end is concerned.
type manifest struct {
	args     []string      // after `assetmill`
	grace    time.Duration // --grace
	patience time.Duration // between SIGTERM and SIGKILL
}

func readManifest(t *testing.T) (m manifest) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/kubernetes/base/worker.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "preStop:") {
		t.Fatal("a pod has a preStop hook, which this scenario does not run")
	}
	_, args, _ := strings.Cut(string(text), "\n          args:\n")
	for line := range strings.Lines(args) {
		item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !ok && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			break
		}
		if ok {
			m.args = append(m.args, item)
		}
	}
	for _, arg := range m.args {
		if value, ok := strings.CutPrefix(arg, "--grace="); ok {
			m.grace, err = time.ParseDuration(value)
		}
	}
	seconds := regexp.MustCompile(`terminationGracePeriodSeconds: (\d+)`).FindSubmatch(text)
	if err != nil || m.grace == 0 || seconds == nil || len(m.args) < 3 {
		t.Fatalf("the manifest is not understood: %+v, %v", m, err)
	}
	n, err := strconv.Atoi(string(seconds[1]))
	if err != nil {
		t.Fatal(err)
	}
	m.patience = time.Duration(n) * time.Second
	return m
}

// startPod runs a worker as the manifest says, but for the number of calls and the address, and returns when it works.
func (w *world) startPod(m manifest) *workerProcess {
	w.t.Helper()
	argv := []string{binary}
	for _, arg := range m.args {
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "--concurrency":
			arg = fmt.Sprint(name, "=", w.plan.concurrency)
		case "--metrics-addr":
			arg = name + "=127.0.0.1:0"
		}
		argv = append(argv, arg)
	}
	name := fmt.Sprintf("worker-%d", len(w.workers)+1)
	k := &workerProcess{w: w, grace: m.grace, process: start(w.t, name, filepath.Join(w.dir, name+".log"), w.env, argv...)}
	w.workers = append(w.workers, k)
	eventually(w.t, startLimit, 20*time.Millisecond, name+" works", func() bool {
		if k.hasEnded() {
			w.t.Fatalf("%s has ended: %v\n%s", name, k.err, tail(k.log, 10))
		}
		k.id, _ = k.last("working")["worker"].(string)
		return k.id != ""
	})
	if status, _ := k.ask("/readyz"); status != http.StatusOK {
		w.t.Errorf("%s works and is not ready: %d", name, status)
	}
	return k
}

// ask gets a page of the worker's metrics and probes. The status is 0 when it does not answer.
func (k *workerProcess) ask(path string) (status int, page string) {
	address, _ := k.last("serving metrics")["address"].(string)
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

// deletePod ends a pod as the kubelet does: SIGTERM to the first process, and SIGKILL when its time is over. It returns the jobs that the
// worker held, how long it took to end, and whether it had to be killed.
func (w *world) deletePod(k *workerProcess, patience time.Duration) (held map[string]bool, took time.Duration, killed bool) {
	w.t.Helper()
	held = w.claimsOf(k)
	if len(held) == 0 {
		w.t.Errorf("%s held nothing when it was deleted: the scenario proves nothing", k.name)
	}
	at := time.Now()
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	var ready, alive int
	within(2*time.Second, 20*time.Millisecond, func() bool {
		if ready, _ = k.ask("/readyz"); ready != http.StatusOK {
			alive, _ = k.ask("/healthz")
		}
		return ready != http.StatusOK
	})
	if ready != http.StatusServiceUnavailable || alive != http.StatusOK {
		w.t.Errorf("%s stops: it is ready (%d), or not alive (%d)", k.name, ready, alive)
	}
	timer := time.NewTimer(time.Until(at.Add(patience)))
	defer timer.Stop()
	select {
	case <-k.ended:
	case <-timer.C:
		k.kill()
		return held, time.Since(at), true
	}
	return held, time.Since(at), false
}

// Pods are deleted by scaling in, by a rollout and by a node that goes: nothing that is paid for is lost.
func TestDeletedByKubernetes(t *testing.T) {
	p := sized(t, plan{160, 16, 3 * time.Second, 2 * time.Second, 2 * time.Minute}, plan{600, 64, 20 * time.Second, 12 * time.Second, 15 * time.Minute})
	m := readManifest(t)
	w := newWorld(t, p)
	w.startPod(m)
	w.startPod(m)
	w.submit()
	for i, why := range []string{"scaling in", "rollout", "node"} {
		w.reach(15 + 20*i)
		if why != "scaling in" {
			w.startPod(m) // a rollout starts the new pod first; a node's pods are replaced
		}
		_, took, killed := w.deletePod(w.workers[i], m.patience)
		k := w.workers[i]
		t.Logf("%s: %s ended after %s, of %s", why, k.name, took.Round(100*time.Millisecond), m.patience)
		if killed || k.err != nil {
			t.Errorf("%s: %s was killed, or failed: %v", why, k.name, k.err)
		}
		// The grace is a bound, not a wait: a worker ends with its last call.
		if longest := p.latency + p.spread + drainLimit; took > longest {
			t.Errorf("%s: %s took %s to end, and its calls take %s at most", why, k.name, took, p.latency+p.spread)
		}
		if left := w.claimsOf(k); len(left) != 0 {
			t.Errorf("%s: %s left %d claims behind", why, k.name, len(left))
		}
	}
	w.awaitEnd()
	b := w.balance("F deleted by Kubernetes")
	checkTwice(t, b, 0)
	if b.unknown != 0 || b.takenOver != 0 {
		t.Errorf("%d calls are unknown and %d jobs were taken over, although every worker had its time", b.unknown, b.takenOver)
	}
}

// The same with the ten seconds that Cloud Run gives: the reason for docs/decisions/0014-where-workers-run.md, in figures.
func TestTenSecondsAreTooFew(t *testing.T) {
	if os.Getenv(fullSizes) == "" {
		t.Skip("it shows what another platform would cost; run with " + fullSizes + "=1")
	}
	const patience = 10 * time.Second
	m := readManifest(t)
	w := newWorld(t, plan{600, 64, 20 * time.Second, 12 * time.Second, 15 * time.Minute})
	w.startPod(m)
	w.startPod(m)
	w.submit()
	var harms []*harm
	for i := range 3 {
		w.reach(15 + 20*i)
		w.startPod(m)
		at := time.Now()
		held, _, killed := w.deletePod(w.workers[i], patience)
		if !killed {
			t.Errorf("%s ended within %s: the scenario proves nothing", w.workers[i].name, patience)
		}
		harms = append(harms, w.harmed("SIGTERM, 10 s, SIGKILL", at, held))
		t.Logf("%s held %d jobs at SIGTERM and %d at SIGKILL", w.workers[i].name, len(held), len(w.claimsOf(w.workers[i])))
	}
	w.awaitEnd()
	b := w.balance("F ten seconds", harms...)
	checkTwice(t, b, w.held)
	if b.twice == 0 {
		t.Error("nothing was paid twice: the scenario proves nothing")
	}
	t.Logf("%d of %d calls in flight at the signals were paid for twice", b.twice, w.held)
}

// The arguments that this file reads by hand are those that it thinks.
func TestManifestIsUnderstood(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	if m.args[0] != "worker" || !slices.ContainsFunc(m.args, func(a string) bool { return strings.HasPrefix(a, "--metrics-addr=") }) {
		t.Errorf("the arguments are %q", m.args)
	}
	if m.patience <= m.grace {
		t.Errorf("a pod is killed after %s, within its grace of %s", m.patience, m.grace)
	}
}
