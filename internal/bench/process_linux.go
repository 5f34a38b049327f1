package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attributes end a process with the benchmark, however that ends, and keep a Ctrl-C at the terminal from it: it is stopped in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// tick is the unit of CPU time in /proc, the same on every Linux that Go runs on.
const tick = time.Second / 100

// cpuTime returns the user and system time that a process has spent so far.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets, which may hold spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system = 11, 12 // of what follows the name
	if len(fields) <= system {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	var total time.Duration
	for _, field := range []string{fields[user], fields[system]} {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		total += time.Duration(ticks) * tick
	}
	return total, nil
}

// machineTime returns how long the machine's processors have existed altogether, and how long of it they had nothing to do.
func machineTime() (total, idle time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(first)
	const spent, idleField, ioWait, guest = 1, 4, 5, 9 // guests' time is part of the users'
	if len(fields) <= ioWait {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", first)
	}
	for i, field := range fields[spent:min(len(fields), guest)] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		total += time.Duration(ticks) * tick
		if i+spent == idleField || i+spent == ioWait {
			idle += time.Duration(ticks) * tick
		}
	}
	return total, idle, nil
}

// peakMemory returns the largest resident set that a process has had so far, in bytes.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// machine names what the figures were measured on.
func machine() string {
	name, memory, kernel := "unknown processor", "", ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				name = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				memory = fmt.Sprintf(", %d GiB", (kib+1<<19)>>20)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + strings.TrimSpace(string(text))
	}
	return name + memory + kernel
}
