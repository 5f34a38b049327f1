package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs/csvfile"
)

func TestLatencyRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"1s-3s", "1s-3s"},
		{"300ms-2s", "300ms-2s"},
		{"250ms", "250ms"},
		{"0s", "0s"},
	} {
		var l latencyRange
		if err := l.Set(tt.text); err != nil || l.String() != tt.want {
			t.Errorf("%q reads as %s, %v; want %s", tt.text, &l, err, tt.want)
		}
	}
	for _, text := range []string{"", "3", "fast", "3s-1s", "-1s", "1s-", "1s-2s-3s"} {
		if err := new(latencyRange).Set(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestRatesAddUp(t *testing.T) {
	t.Parallel()
	const rate = 0.8
	r, f := refusals(rate), faults(rate)
	if sum := r.Prompt + r.Output + r.Text + r.NoImage; sum != rate {
		t.Errorf("refusals add up to %v", sum)
	}
	if sum := f.Internal + f.Unavailable + f.Cut + f.Garbage + f.Hang + f.Slow; sum != rate {
		t.Errorf("faults add up to %v", sum)
	}
}

// script writes an assetmill that is a shell script: $1 is the subcommand, $DIR the folder of the test.
func script(t *testing.T, body string) (bin, dir string) {
	t.Helper()
	dir = t.TempDir()
	bin = filepath.Join(dir, "assetmill")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nDIR='"+dir+"'\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin, dir
}

func neverStopped(t *testing.T) *signals {
	return &signals{ctx: t.Context(), again: make(chan struct{}), release: func() {}}
}

// waitsForTERM is a worker that notes that it was told to drain. Its sleep is a child that must not outlive it.
const waitsForTERM = `worker)
  trap 'echo drained >"$DIR/drained"; kill $!; exit 0' TERM
  echo ready >"$DIR/ready"
  sleep 60 & wait ;;
`

func TestSendThrough(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, submit string
		code         int
	}{
		{"all well", `exit 0`, 0},
		{"jobs failed", `exit 1`, 1},
		{"invalid rows", `exit 3`, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bin, dir := script(t, "case $1 in\n"+waitsForTERM+"submit) while ! [ -e \"$DIR/ready\" ]; do sleep 0.01; done; echo \"args: $*\"; "+tt.submit+" ;;\nesac\n")
			var out bytes.Buffer
			flags := &runFlags{cloudFlags: cloudFlags{dir: dir}, csv: "a b.csv", mode: "online"}
			err := sendThrough(neverStopped(t), &out, os.Environ(), bin, flags, []string{"--campaign", "spring"})
			var exit *exitError
			if tt.code == 0 && err != nil || tt.code != 0 && (!errors.As(err, &exit) || exit.code != tt.code) {
				t.Errorf("%v, want exit code %d", err, tt.code)
			}
			if want := "args: submit a b.csv --watch --mode online --campaign spring\n"; out.String() != want {
				t.Errorf("submit was called with %q, want %q", out.String(), want)
			}
			if _, err := os.Stat(filepath.Join(dir, "drained")); err != nil {
				t.Errorf("the worker was not told to drain: %v", err)
			}
		})
	}
}

func TestWorkerThatDiesIsReported(t *testing.T) {
	t.Parallel()
	bin, dir := script(t, `case $1 in
worker) echo "subscription jobs-online does not exist" >&2; exit 7 ;;
submit) trap 'kill $!; exit 1' INT; sleep 60 & wait ;;
esac
`)
	err := sendThrough(neverStopped(t), io.Discard, os.Environ(), bin, &runFlags{cloudFlags: cloudFlags{dir: dir}}, nil)
	if err == nil || !strings.Contains(err.Error(), "jobs-online does not exist") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("got %v, want the worker's status and last words", err)
	}
}

func TestInterruptStopsTheSubmissionThenTheWorker(t *testing.T) {
	t.Parallel()
	bin, dir := script(t, "case $1 in\n"+waitsForTERM+`submit)
  trap 'if [ -e "$DIR/drained" ]; then echo late; else echo first; fi; kill $!; exit 1' INT
  while ! [ -e "$DIR/ready" ]; do sleep 0.01; done
  echo started >"$DIR/started"
  sleep 60 & wait ;;
esac
`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		appears(t, filepath.Join(dir, "started"))
	}()
	var out bytes.Buffer
	err := sendThrough(&signals{ctx: ctx, again: make(chan struct{})}, &out, os.Environ(), bin, &runFlags{cloudFlags: cloudFlags{dir: dir}}, nil)
	if err == nil || !strings.Contains(err.Error(), "stopped by a signal") {
		t.Errorf("got %v", err)
	}
	if out.String() != "first\n" {
		t.Errorf("the submission was told %q, want first", out.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "drained")); err != nil {
		t.Errorf("the worker was not told to drain: %v", err)
	}
}

// appears returns when there is such a file, or when the test is over.
func appears(t *testing.T, path string) {
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			return
		case <-time.After(5 * time.Millisecond): // another process makes it
		}
	}
}

func TestWorkerThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		hurry   bool
		want    string
	}{
		{"after the timeout", 50 * time.Millisecond, false, "had not stopped"},
		{"at a second Ctrl-C", time.Hour, true, "told to hurry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bin, dir := script(t, `trap '' TERM; echo >"$DIR/ready"; while :; do sleep 0.05; done`)
			p, err := startWorker(bin, os.Environ(), filepath.Join(dir, "log"))
			if err != nil {
				t.Fatal(err)
			}
			appears(t, filepath.Join(dir, "ready"))
			hurry := make(chan struct{})
			if tt.hurry {
				close(hurry)
			}
			if err := p.stop(hurry, tt.timeout); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err := syscall.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the worker still runs: %v", err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString("line " + strconv.Itoa(i) + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tail(path)
	if !strings.HasPrefix(got, "  line 9985\n") || !strings.HasSuffix(got, "\n  line 9999") {
		t.Errorf("tail:\n%s", got)
	}
	if got := tail(path + ".missing"); !strings.Contains(got, "no such file") {
		t.Errorf("tail of a missing file: %q", got)
	}
}

func TestShellPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"env": "./env", ".local/env": ".local/env", "/tmp/x/env": "/tmp/x/env"} {
		if got := shellPath(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// The file that newcomers run first must be valid, and varied enough to show what there is.
func TestExamplePrompts(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../examples/prompts.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := csvfile.NewReader(f, csvfile.Options{Name: "prompts.csv"})
	if err != nil {
		t.Fatal(err)
	}
	rows, all := 0, 0
	models, sizes, ratios, campaigns := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rows++
		for _, j := range row.Jobs {
			all++
			models[j.Model.ID], sizes[j.Size], ratios[j.AspectRatio], campaigns[j.Campaign] = true, true, true, true
		}
	}
	if rows != 24 || all != 26 {
		t.Errorf("%d rows, %d jobs; examples/README.md says 24 and 26", rows, all)
	}
	if len(models) < 4 || len(sizes) < 2 || len(ratios) < 8 || len(campaigns) < 5 {
		t.Errorf("%d models, %d sizes, %d ratios, %d campaigns: not varied", len(models), len(sizes), len(ratios), len(campaigns))
	}
}
