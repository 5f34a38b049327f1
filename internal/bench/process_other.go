//go:build !linux

package bench

import (
	"errors"
	"runtime"
	"syscall"
	"time"
)

var errNotLinux = errors.New("CPU and memory of another process are read from /proc, which only Linux has")

func attributes() *syscall.SysProcAttr { return nil }

func cpuTime(int) (time.Duration, error) { return 0, errNotLinux }

func machineTime() (total, idle time.Duration, err error) { return 0, 0, errNotLinux }

func peakMemory(int) (int64, error) { return 0, errNotLinux }

func machine() string { return runtime.GOOS }
