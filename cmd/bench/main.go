// Command bench measures what the worker spends on an asset, beside a relay without logic and a naive worker, on this machine alone. It is
// what `make bench` runs; docs/performance.md explains its figures.
//
// Exit codes: 0 success, 1 failure or jobs that failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/assetmill/assetmill/internal/bench"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	if role := os.Getenv(bench.RoleVariable); role != "" {
		if err := bench.ServeRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailure)
		}
		return
	}
	cfg, out, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(exitUsage)
	}
	if err := run(cfg, out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitFailure)
	}
}

// parse reads the command line.
func parse(args []string) (cfg bench.Config, out string, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&cfg.Worker, "worker", "bin/assetmill", "binary of assetmill")
	flags.StringVar(&out, "out", ".local/bench.json", "file for the figures")
	flags.BoolVar(&cfg.Quick, "quick", false, "small cases that only show that everything works")
	flags.IntVar(&cfg.Runs, "runs", 0, "turns of each contender in each case (default 3; 1 with -quick)")
	only := flags.String("only", "", "regular expression for the names of the cases")
	contenders := flags.String("contenders", "", "regular expression for the contenders: worker, floor, floor with decoding, naive")
	more := flags.String("worker-args", "", "further arguments of the worker, split at spaces")
	if err := flags.Parse(args); err != nil {
		return cfg, "", err
	}
	if flags.NArg() > 0 {
		return cfg, "", fmt.Errorf("%q is no flag; see bench -help", flags.Arg(0))
	}
	if cfg.Only, err = regexp.Compile(*only); err != nil {
		return cfg, "", fmt.Errorf("-only: %w", err)
	}
	if cfg.Contenders, err = regexp.Compile(*contenders); err != nil {
		return cfg, "", fmt.Errorf("-contenders: %w", err)
	}
	cfg.WorkerArgs = strings.Fields(*more)
	cfg.Emulator = os.Getenv("PUBSUB_EMULATOR_HOST")
	cfg.Progress = os.Stderr
	return cfg, out, nil
}

func run(cfg bench.Config, out string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if cfg.Emulator == "" {
		fmt.Fprintln(os.Stderr, "bench: PUBSUB_EMULATOR_HOST is not set; the queue is the benchmark's own stand-in")
	}
	report, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(report.Print(os.Stdout), report.WriteFile(out)); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: figures are in", out)
	if n := report.Failures(); n > 0 {
		return fmt.Errorf("%d jobs of the worker did not end with their image", n)
	}
	return nil
}
