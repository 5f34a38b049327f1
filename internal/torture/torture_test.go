//go:build linux

package torture

import (
	"syscall"
	"testing"
	"time"
)

// longGrace is longer than any call here; shortGrace is shorter than every call.
const (
	longGrace  = 30 * time.Second
	shortGrace = 200 * time.Millisecond
)

// one core for the workers and for everything that they talk to.
var oneCore = []string{"taskset", "-c", "0"}

// checkTwice holds the calls paid twice against what the harms may cost. Every job has its image.
func checkTwice(t *testing.T, b *books, most int) {
	t.Helper()
	if b.failed != 0 {
		t.Errorf("%d jobs have no image", b.failed)
	}
	if b.twice > most {
		t.Errorf("%d calls were paid twice, at most %d may be", b.twice, most)
	}
}

// Nothing breaks, but everything is late.
func TestStarved(t *testing.T) {
	p := sized(t, plan{200, 32, time.Second, 0, time.Minute}, plan{2500, 256, 7 * time.Second, 0, 10 * time.Minute})
	w := newWorld(t, p, oneCore...)
	for range 2 {
		w.startWorker(longGrace)
	}
	w.submit()
	w.awaitEnd()
	b := w.balance("A starved")
	checkTwice(t, b, 0)
	if b.unknown != 0 {
		t.Errorf("%d attempts are unknown with no fault at all", b.unknown)
	}
}

// Workers are killed; others take over.
func TestKilledWithPeers(t *testing.T) {
	p := sized(t, plan{200, 16, 2 * time.Second, time.Second, 2 * time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 10 * time.Minute})
	at := shares(40)
	w := newWorld(t, p)
	w.startWorker(longGrace)
	w.startWorker(longGrace)
	w.submit()
	var harms []*harm
	for i, percent := range at {
		w.reach(percent)
		harms = append(harms, w.killWorker(w.workers[i]))
		w.startWorker(longGrace)
	}
	w.awaitEnd()
	checkTwice(t, w.balance("B killed, peers", harms...), len(at)*p.concurrency)
}

// Nothing waits in the queue: what is left of the recovery is the time that the others need to see that the worker is dead.
func TestKilledWithoutBacklog(t *testing.T) {
	p := sized(t, plan{32, 16, 4 * time.Second, time.Second, 2 * time.Minute}, plan{128, 64, 7 * time.Second, time.Second, 10 * time.Minute})
	w := newWorld(t, p)
	w.startWorker(longGrace)
	w.startWorker(longGrace)
	w.submit()
	w.reach(2)
	h := w.killWorker(w.workers[0])
	w.awaitEnd()
	b := w.balance("B killed, no backlog", h)
	checkTwice(t, b, p.concurrency)
	// A lease-based queue needs 60 s for the lease alone.
	if took := b.recoveries[0].last; took > 60*time.Second {
		t.Errorf("the killed worker's jobs ended %s after the kill", took)
	}
}

// The only worker is killed and started again at once, as a supervisor would.
func TestKilledAlone(t *testing.T) {
	p := sized(t, plan{100, 16, 2 * time.Second, time.Second, 2 * time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 15 * time.Minute})
	at := shares(40)
	w := newWorld(t, p)
	w.startWorker(longGrace)
	w.submit()
	var harms []*harm
	for i, percent := range at {
		w.reach(percent)
		harms = append(harms, w.killWorker(w.workers[i]))
		w.startWorker(longGrace)
	}
	w.awaitEnd()
	checkTwice(t, w.balance("B killed, alone", harms...), len(at)*p.concurrency)
}

// A worker is frozen until others have taken its jobs over, and then goes on as if nothing had been.
func TestFrozen(t *testing.T) {
	p := sized(t, plan{200, 16, 3 * time.Second, time.Second, 2 * time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 15 * time.Minute})
	at := shares(30)
	w := newWorld(t, p)
	w.startWorker(longGrace)
	w.startWorker(longGrace)
	w.submit()
	var harms []*harm
	for i, percent := range at {
		w.reach(percent)
		k := w.workers[i%len(w.workers)]
		frozen := time.Now()
		k.signal(syscall.SIGSTOP)
		held := w.claimsOf(k)
		harms = append(harms, w.harmed("SIGSTOP", frozen, held))
		eventually(t, p.limit, 100*time.Millisecond, "another worker has taken a job over", func() bool {
			return len(held)-len(w.claimsOf(k)) >= max(len(held)/2, 1)
		})
		t.Logf("%s held %d jobs; half of them were taken over after %s", k.name, len(held), time.Since(frozen).Round(time.Second))
		k.signal(syscall.SIGCONT)
	}
	w.awaitEnd()
	b := w.balance("C frozen", harms...)
	checkTwice(t, b, w.held)
	if b.fenced == 0 {
		t.Error("no answer was fenced: the scenario proves nothing")
	}
}

// A worker is told to stop and has the time that its calls need.
func TestStoppedInTime(t *testing.T) {
	p := sized(t, plan{200, 16, 2 * time.Second, time.Second, time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 10 * time.Minute})
	w := newWorld(t, p)
	w.startWorker(longGrace)
	w.submit()
	for i, percent := range shares(30, 60) {
		w.reach(percent)
		if i == 1 {
			w.startWorker(longGrace) // once with a peer at work, otherwise with nobody
			w.workers[i].stop()
			continue
		}
		w.workers[i].stop()
		w.startWorker(longGrace)
	}
	w.awaitEnd()
	b := w.balance("D stopped in time")
	checkTwice(t, b, 0)
	if b.unknown != 0 {
		t.Errorf("%d attempts are unknown although every call had its time", b.unknown)
	}
}

// A worker is told to stop and has no time: what it gives up goes on elsewhere at once.
func TestStoppedInHaste(t *testing.T) {
	p := sized(t, plan{200, 16, 3 * time.Second, time.Second, time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 10 * time.Minute})
	w := newWorld(t, p)
	w.startWorker(shortGrace)
	w.startWorker(longGrace)
	w.submit()
	w.reach(30)
	k := w.workers[0]
	k.signal(syscall.SIGSTOP) // otherwise it begins another job after what it holds was looked at
	at, held := time.Now(), w.claimsOf(k)
	k.stop()
	stopped := time.Since(at)
	if left := w.claimsOf(k); len(left) != 0 {
		t.Errorf("%s left %d claims behind", k.name, len(left))
	}
	h := w.harmed("SIGTERM", at, held)
	w.awaitEnd()
	b := w.balance("D stopped in haste", h)
	checkTwice(t, b, p.concurrency)
	if b.unknown == 0 || b.unknown > p.concurrency {
		t.Errorf("%d attempts are unknown, want 1 to %d", b.unknown, p.concurrency)
	}
	if b.takenOver != 0 {
		t.Errorf("%d jobs were taken over, although all of them were given back", b.takenOver)
	}
	t.Logf("the worker ended after %s", stopped.Round(10*time.Millisecond))
}

// The services die one after the other, under load, killed and in order.
func TestServicesRestart(t *testing.T) {
	p := sized(t, plan{300, 16, time.Second, time.Second / 2, 3 * time.Minute}, plan{1000, 64, 7 * time.Second, time.Second, 20 * time.Minute})
	w, services := newServices(t, p)
	w.startWorker(longGrace)
	w.startWorker(longGrace)
	w.submit()
	for i, s := range services {
		for j, kill := range []bool{true, false} {
			w.reach(5 + 10*(2*i+j))
			s.restart(kill)
			if s.cloud == w.queue {
				t.Logf("the stand-in for Pub/Sub forgot its messages; submitting again published %d", w.submit())
			}
		}
	}
	w.awaitEnd()
	b := w.balance("E services restart")
	// While the model is away, tries that were refused or cut off use up a job's bounded calls; that job ends as failed, and has its row.
	if b.twice != 0 {
		t.Errorf("%d calls were paid twice", b.twice)
	}
}

// service is one service of a cloud of its own, behind relays, so that it can be killed alone and is found again.
type service struct {
	w      *world
	cloud  *cloud
	relays map[string]*relay // by variable
}

// newServices starts a cloud for each service.
func newServices(t *testing.T, p plan) (*world, []*service) {
	t.Helper()
	w := emptyWorld(t, p)
	env := map[string]string{}
	var all []*service
	for _, part := range []struct {
		name string
		use  **cloud
		vars []string
	}{
		{"pubsub", &w.queue, []string{"PUBSUB_EMULATOR_HOST"}},
		{"storage", &w.storage, []string{"STORAGE_EMULATOR_HOST"}},
		{"vertex", &w.model, []string{"VERTEX_EMULATOR_HOST"}},
		{"bigquery", &w.rows, []string{"BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"}},
	} {
		c := startCloud(t, w.dir, part.name, p)
		*part.use = c
		s := &service{w: w, cloud: c, relays: map[string]*relay{}}
		vars := c.variables()
		for name, value := range vars {
			if _, set := env[name]; !set {
				env[name] = value
			}
		}
		for _, name := range part.vars {
			addr, replace := address(vars[name])
			r := startRelay(t, addr)
			env[name] = replace(r.addr)
			s.relays[name] = r
		}
		all = append(all, s)
	}
	w.setEnv(env)
	return w, all
}

// restart ends the service and starts it again on other ports.
func (s *service) restart(kill bool) {
	t := s.w.t
	t.Helper()
	how := "SIGTERM"
	began := time.Now()
	if kill {
		how = "SIGKILL"
		s.cloud.kill()
	} else {
		s.cloud.terminate(t, drainLimit)
	}
	for _, r := range s.relays {
		r.pause()
	}
	s.cloud.begin()
	vars := s.cloud.variables()
	for name, r := range s.relays {
		addr, _ := address(vars[name])
		r.resume(addr)
	}
	t.Logf("%s: %s, away for %s", s.cloud.name, how, time.Since(began).Round(10*time.Millisecond))
}
