package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// errWorkerEnded is why a submission is given up when nobody works on its jobs.
var errWorkerEnded = errors.New("the worker has ended")

// signals is Ctrl-C, heard twice: ctx ends with the first, again is closed by the second.
type signals struct {
	ctx     context.Context
	again   <-chan struct{}
	release func()
}

// watchSignals takes over SIGINT and SIGTERM until release is called.
func watchSignals(parent context.Context) *signals {
	ctx, cancel := context.WithCancel(parent)
	received := make(chan os.Signal, 2)
	again := make(chan struct{})
	over := make(chan struct{})
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		defer close(over)
		for count := 1; ; count++ {
			select {
			case <-parent.Done():
				return
			case _, ok := <-received:
				switch {
				case !ok:
					return
				case count == 1:
					cancel()
				case count == 2:
					close(again)
				}
			}
		}
	}()
	return &signals{ctx: ctx, again: again, release: func() {
		signal.Stop(received)
		close(received)
		<-over
		cancel()
	}}
}

// process is a worker that runs.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{} // closed when the process has ended; err is set before
	err   error
}

// startWorker runs `assetmill worker` with its output in the file at logPath.
func startWorker(bin string, env []string, logPath string) (*process, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(bin, "worker"), log: log, ended: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = workerAttributes()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the worker: %w", err), log.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), log.Close())
		close(p.ended)
	}()
	return p, nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// stop tells the worker to drain and waits for it. It is killed when it takes too long or when hurry is closed. Stopping a worker
// that has ended does nothing.
func (p *process) stop(hurry <-chan struct{}, timeout time.Duration) error {
	if p.hasEnded() {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has just ended
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	why := ""
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("the worker did not stop cleanly: %w", p.err)
		}
		return nil
	case <-hurry:
		why = "it was told to hurry"
	case <-timer.C:
		why = fmt.Sprintf("it had not stopped after %v", timeout)
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("the worker was killed: %s", why)
}

// tail returns the last lines of a file, indented.
func tail(path string) string {
	const (
		maxLines = 15
		maxBytes = 16 << 10
	)
	f, err := os.Open(path)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxBytes {
		_, _ = f.Seek(-maxBytes, io.SeekEnd) // on failure the beginning is shown
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBytes))
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-maxLines):], "\n  ")
}
