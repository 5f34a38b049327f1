package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/internal/bench/standin"
)

// Config says what to measure.
type Config struct {
	Worker     string         // the binary of assetmill
	WorkerArgs []string       // further arguments of its worker
	Quick      bool           // small cases that show that everything works, in seconds
	Runs       int            // turns of each contender in each case; 0: 3, or with Quick 1
	Only       *regexp.Regexp // names of the cases; nil: all
	Contenders *regexp.Regexp // nil: all
	// Emulator is the host:port of Pub/Sub's official emulator, or empty for the stand-in.
	Emulator string
	Progress io.Writer // gets a line for each turn
}

// workerCores is how many cores the targets give a contender. The stand-ins may use all.
const workerCores = 2

// bench is one run of the benchmark.
type bench struct {
	Config
	self, worker string // binaries
	cores        int
	dir          string
	cert, key    string // PEM files
	turns        int
}

// Run measures all cases. It takes minutes.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	b := &bench{Config: cfg, cores: min(workerCores, runtime.NumCPU())}
	if b.Runs == 0 {
		if b.Runs = 3; cfg.Quick {
			b.Runs = 1
		}
	}
	if err := b.prepare(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	cases := fullCases()
	if cfg.Quick {
		cases = quickCases()
	}
	r := &Report{
		Machine: fmt.Sprintf("%s, %d CPUs, contenders on %d, %s", machine(), runtime.NumCPU(), b.cores, runtime.Version()),
		Date:    time.Now().UTC().Truncate(time.Second), Queue: "stand-in", Runs: b.Runs, Quick: cfg.Quick,
	}
	if cfg.Emulator != "" {
		r.Queue = "emulator at " + cfg.Emulator
	}
	for _, c := range cases {
		if cfg.Only != nil && !cfg.Only.MatchString(c.name) {
			continue
		}
		all, err := b.measure(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		r.Cases = append(r.Cases, newCaseReport(c, all))
	}
	return r, nil
}

// prepare finds the binaries and makes the certificate.
func (b *bench) prepare() (err error) {
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.worker, err = filepath.Abs(b.Worker); err != nil {
		return err
	}
	if _, err := os.Stat(b.worker); err != nil {
		return fmt.Errorf("the worker's binary: %w", err)
	}
	if _, err := cpuTime(os.Getpid()); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "assetmill-bench-"); err != nil {
		return err
	}
	cert, key, err := standin.NewCertificate(time.Now())
	if err != nil {
		return err
	}
	b.cert, b.key = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	return errors.Join(os.WriteFile(b.cert, cert, 0o600), os.WriteFile(b.key, key, 0o600))
}

// measure lets the contenders of a case take turns.
func (b *bench) measure(ctx context.Context, c benchCase) (map[contender][]sample, error) {
	all := map[contender][]sample{}
	for run := range b.Runs {
		turns := c.turns
		if run == 0 {
			turns = append(slices.Clone(turns), c.once...)
		}
		for _, who := range turns {
			if b.Contenders != nil && !b.Contenders.MatchString(string(who)) {
				continue
			}
			s, err := b.turn(ctx, c, who)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", who, err)
			}
			b.say("%-22s  run %d  %-19s  %6.2f ms CPU  %6.1f/s  %5.0f MiB  %3.0f %% idle  %d failures",
				c.name, run+1, who, s.CPUPerAsset, s.Rate, s.PeakMiB, 100*s.Idle, s.Failures)
			all[who] = append(all[who], s)
		}
	}
	return all, nil
}

// turn measures one contender once.
func (b *bench) turn(ctx context.Context, c benchCase, who contender) (sample, error) {
	b.turns++
	t := &turn{bench: b, benchCase: c, who: who, project: fmt.Sprintf("bench-%d-%d", os.Getpid(), b.turns)}
	t.dir = filepath.Join(b.dir, t.project)
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return sample{}, err
	}
	s, err := t.take(ctx)
	if err == nil {
		err = context.Cause(ctx)
	}
	return s, err
}

// say writes a line about what goes on.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintln(b.Progress, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
