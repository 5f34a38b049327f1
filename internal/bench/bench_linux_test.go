package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain lets this program be the benchmark's processes.
func TestMain(m *testing.M) {
	if text := os.Getenv(RoleVariable); text != "" {
		if err := ServeRole(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The whole benchmark, small: every contender comes to its end, and every figure is there. What the figures are is the machine's business.
func TestQuickRun(t *testing.T) {
	worker := filepath.Join(t.TempDir(), "assetmill")
	if out, err := exec.Command("go", "build", "-o", worker, "../../cmd/assetmill").CombinedOutput(); err != nil {
		t.Fatalf("build assetmill: %v\n%s", err, out)
	}
	r, err := Run(t.Context(), Config{Worker: worker, Quick: true, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	bursts := 0
	for _, c := range r.Cases {
		if c.Failures != 0 || c.NaiveFailures != 0 || c.Calls != c.Jobs {
			t.Errorf("%s: %d failures, %d of the naive worker; %d calls for %d jobs", c.Name, c.Failures, c.NaiveFailures, c.Calls, c.Jobs)
		}
		figures := map[string]*float64{"CPU": c.CPU, "floor": c.FloorCPU, "rate": c.Rate, "memory": c.PeakRSS}
		if strings.Contains(c.Name, "burst") {
			bursts++
		} else {
			figures["naive"], figures["decoding floor"] = c.NaiveCPU, c.DecodingFloorCPU
		}
		for name, figure := range figures {
			if figure == nil || *figure <= 0 {
				t.Errorf("%s: no figure for %s", c.Name, name)
			}
		}
	}
	if bursts == 0 || bursts == len(r.Cases) {
		t.Errorf("%d of %d cases are bursts", bursts, len(r.Cases))
	}
}

// A worker that can't start is a result with failures, not the end of the benchmark.
func TestAContenderThatBreaksDown(t *testing.T) {
	b := &bench{Config: Config{Worker: "/bin/false", Progress: t.Output()}, cores: 1}
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	s, err := b.turn(t.Context(), quickCases()[0], theWorker)
	if err != nil || s.Failures == 0 || s.CPUPerAsset != 0 {
		t.Errorf("%+v: %v", s, err)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const work = 100 * time.Millisecond
	for spent := time.Duration(0); spent < work; {
		now, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if spent = now - before; spent > time.Minute {
			t.Fatalf("%s of CPU time from one look to the next", spent)
		}
	}
	const size = 256 * mib
	block := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	if peak, err := peakMemory(os.Getpid()); err != nil || peak < size || peak > 64*size {
		t.Errorf("a peak of %d bytes after the use of %d: %v", peak, size, err)
	}
	runtime.KeepAlive(block)
	total, idle, err := machineTime()
	if err != nil || total <= 0 || idle < 0 || idle > total {
		t.Errorf("the machine was idle for %s of %s: %v", idle, total, err)
	}
	if _, err := cpuTime(-1); err == nil {
		t.Error("there is no process -1")
	}
}
