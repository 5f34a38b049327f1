package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a program that the benchmark runs.
type process struct {
	name string
	log  string // file with what it prints to standard error
	cmd  *exec.Cmd
	out  *os.File // its standard output; nil when nobody wants it
	// over ends when the process has ended and was waited for. The cause says how it ended.
	over context.Context
}

// start runs a program. Its standard output is for the caller to read if wanted.
func start(name, log string, env []string, wantOutput bool, argv ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer file.Close() // the process has its own
	p := &process{name: name, log: log, cmd: exec.Command(argv[0], argv[1:]...)}
	p.cmd.Env, p.cmd.Stderr, p.cmd.SysProcAttr = env, file, attributes()
	if wantOutput {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		defer write.Close()
		p.out, p.cmd.Stdout = read, write
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.out.Close())
	}
	over, end := context.WithCancelCause(context.Background())
	p.over = over
	go func() {
		if err := p.cmd.Wait(); err != nil {
			end(fmt.Errorf("%s has ended: %w%s", name, err, p.lastWords()))
		} else {
			end(errOrderly)
		}
	}()
	return p, nil
}

// errOrderly says that a process has ended as it should.
var errOrderly = errors.New("the process has ended in order")

// stop asks the process to stop, kills it when it takes longer than limit, and returns how it ended.
func (p *process) stop(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var late error
	select {
	case <-p.over.Done():
	case <-timer.C:
		late = fmt.Errorf("%s did not stop within %s", p.name, limit)
		_ = p.cmd.Process.Kill()
		<-p.over.Done()
	}
	if p.out != nil {
		p.out.Close()
	}
	if err := context.Cause(p.over); !errors.Is(err, errOrderly) {
		return errors.Join(late, err)
	}
	return late
}

// lastWords returns the end of the log, for errors.
func (p *process) lastWords() string {
	const lines = 5
	text, err := os.ReadFile(p.log)
	text = bytes.TrimSpace(text)
	if err != nil || len(text) == 0 {
		return ""
	}
	all := strings.Split(string(text), "\n")
	return ":\n" + strings.Join(all[max(0, len(all)-lines):], "\n")
}
