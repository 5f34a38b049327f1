package collectbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleVariable makes a process of this test one of its parts. Its value is a role.
const roleVariable = "ASSETMILL_COLLECTBENCH_ROLE"

// profileVariable names a file for the collectors' CPU profiles, each with its process's number behind the name.
const profileVariable = "ASSETMILL_COLLECTBENCH_PROFILE"

// role is what a process is told to be: a cloud; or else a loop of so many parts; or else a collector.
type role struct {
	Cloud *ask
	Loops int
	Place place
	PID   int // of the cloud
}

// figures are what a contender took.
type figures struct {
	Seconds float64 // by the clock
	CPU     float64 // seconds, user and system
	Cloud   float64 // seconds of CPU that the cloud took meanwhile
	Peak    int64   // bytes, its largest resident set
}

func TestMain(m *testing.M) {
	text := os.Getenv(roleVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := serve(context.Background(), text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve is the main function of a part.
func serve(ctx context.Context, text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	var result any
	var err error
	switch {
	case r.Cloud != nil:
		return serveCloud(ctx, *r.Cloud)
	case r.Loops > 0:
		result, err = measure(r.PID, func() error { return loop(ctx, &r.Place, r.Loops) })
	default:
		result, err = runCollector(ctx, &r)
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(result))
}

// serveCloud serves until nobody holds its standard input any more.
func serveCloud(ctx context.Context, a ask) error {
	c, err := openCloud(ctx, a)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(c.place); err != nil {
		return errors.Join(err, c.close())
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	if damaged := c.storage.Stats().Damaged; damaged > 0 {
		err = errors.Join(err, fmt.Errorf("%d images have other bytes", damaged))
	}
	return errors.Join(err, c.close())
}

// runCollector collects a batch. Only the collection is measured; the rest is done to see that it was right.
func runCollector(ctx context.Context, r *role) (f figures, err error) {
	c, err := openCollector(ctx, &r.Place, setup{imageBytes: imageMemory})
	if err != nil {
		return f, err
	}
	defer c.close()
	ranges, err := c.cut(ctx)
	if err != nil {
		return f, err
	}
	if name := os.Getenv(profileVariable); name != "" {
		file, err := os.Create(fmt.Sprintf("%s.%d", name, os.Getpid()))
		if err != nil {
			return f, err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return f, err
		}
	}
	f, err = measure(r.PID, func() error { return c.collect(ctx, ranges) })
	pprof.StopCPUProfile()
	return f, errors.Join(err, c.finish(ctx))
}

// measure does something, and says what it took of this process, and of the cloud's.
func measure(cloud int, do func() error) (f figures, err error) {
	ours, err := cpuTime(os.Getpid())
	if err != nil {
		return f, err
	}
	theirs, err := cpuTime(cloud)
	if err != nil {
		return f, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return f, err
	}
	f.Seconds = time.Since(start).Seconds()
	if f.CPU, err = cpuTime(os.Getpid()); err != nil {
		return f, err
	}
	if f.Cloud, err = cpuTime(cloud); err != nil {
		return f, err
	}
	f.CPU, f.Cloud = f.CPU-ours, f.Cloud-theirs
	f.Peak, err = peakMemory()
	return f, err
}

// cpuTime returns how many seconds a process has spent so far, in user and system mode.
func cpuTime(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets, which may hold spaces.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const user, system, ticksPerSecond = 11, 12, 100
	if len(fields) <= system {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	u, err := strconv.ParseFloat(fields[user], 64)
	s, err2 := strconv.ParseFloat(fields[system], 64)
	return (u + s) / ticksPerSecond, errors.Join(err, err2)
}

// peakMemory returns this process's largest resident set.
func peakMemory() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " kB")
	n, err := strconv.ParseInt(kib, 10, 64)
	return n << 10, err
}

// start starts a part, whose standard output is read by the caller.
func start(ctx context.Context, r role) (*exec.Cmd, *json.Decoder, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, json.NewDecoder(out), nil
}

// startCloud starts a cloud, and returns the role of a collector in it. stop ends it, and returns what was wrong with what it was sent.
func startCloud(ctx context.Context, a ask) (r role, stop func() error, err error) {
	cmd, out, err := start(ctx, role{Cloud: &a})
	if err != nil {
		return r, nil, err
	}
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return r, nil, err
	}
	stop = func() error {
		return errors.Join(alive.Close(), cmd.Wait())
	}
	if err := out.Decode(&r.Place); err != nil {
		return r, nil, errors.Join(err, stop())
	}
	r.PID = cmd.Process.Pid
	return r, stop, nil
}

// contend runs a contender to its end.
func contend(ctx context.Context, r role) (f figures, err error) {
	cmd, out, err := start(ctx, r)
	if err != nil {
		return f, err
	}
	if err := cmd.Start(); err != nil {
		return f, err
	}
	err = out.Decode(&f)
	return f, errors.Join(err, cmd.Wait())
}
