//go:build linux

package torture

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/xattr"
)

// process is a program that a scenario runs, in a process group of its own.
type process struct {
	name  string
	log   string // file with everything that it prints
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and was waited for
	err   error         // how it ended; set before ended is closed
}

// start runs a program until the test ends at the latest.
func start(t *testing.T, name, log string, env []string, argv ...string) *process {
	t.Helper()
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, log: log, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = file, file
	// A test binary that is killed itself, by its time-out for one, leaves nothing behind.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		file.Close()
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		file.Close()
		close(p.ended)
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

// signal sends a signal to the process and its children. One that has ended gets none.
func (p *process) signal(s syscall.Signal) {
	if !p.hasEnded() {
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // fails only when it has ended just now
	}
}

// kill ends the process at once and waits for it.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// terminate asks the process to stop and waits until it has, with exit code 0. If it is frozen, that is the first thing it hears.
func (p *process) terminate(t *testing.T, limit time.Duration) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	p.wait(t, limit)
}

// wait waits until the process has ended, with exit code 0.
func (p *process) wait(t *testing.T, limit time.Duration) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		if p.err != nil {
			t.Errorf("%s: %v", p.name, p.err)
		}
	case <-timer.C:
		t.Errorf("%s has not stopped within %s; where its goroutines are is in its log", p.name, limit)
		p.signal(syscall.SIGQUIT)
		if !within(5*time.Second, 50*time.Millisecond, p.hasEnded) {
			p.kill()
		}
	}
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// scratch returns a folder that is kept when the test fails, and then says where it is and how the logs in it end.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratchRoot(), "assetmill-torture-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		text := "everything is kept in " + dir
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		for _, log := range logs {
			text += fmt.Sprintf("\n== %s\n%s", filepath.Base(log), tail(log, 12))
		}
		t.Log(text)
	})
	return dir
}

// memoryFolder is in memory on most systems, and scratchBytes what the largest scenario takes there.
const (
	memoryFolder = "/dev/shm"
	scratchBytes = 6 << 30
)

// scratchRoot is a folder in memory, if there is one that takes what the local cloud keeps, or else the usual one. The stand-in for Cloud Storage
// waits for the disk twice for each object, and lets nobody else write meanwhile; the scenarios would measure the disk.
func scratchRoot() string {
	var fs syscall.Statfs_t
	if syscall.Statfs(memoryFolder, &fs) != nil || fs.Bavail*uint64(fs.Bsize) < scratchBytes {
		return ""
	}
	probe, err := os.CreateTemp(memoryFolder, "assetmill-probe-")
	if err != nil {
		return ""
	}
	defer func() {
		probe.Close()
		os.Remove(probe.Name())
	}()
	if xattr.FSet(probe, "user.metadata", []byte("x")) != nil {
		return "" // older than Linux 6.6
	}
	return memoryFolder
}

// eventually looks every so often until done, and fails the test when that takes longer than limit.
func eventually(t *testing.T, limit, every time.Duration, what string, done func() bool) {
	t.Helper()
	if !within(limit, every, done) {
		t.Fatalf("after %s still not: %s", limit, what)
	}
}

// within looks every so often until done, or until limit is over.
func within(limit, every time.Duration, done func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return done()
		}
	}
}
