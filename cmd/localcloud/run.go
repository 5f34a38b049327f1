package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/internal/localcloud"
)

// drainTimeout bounds how long a worker that was told to stop may take. Calls of the simulated model take seconds.
const drainTimeout = 30 * time.Second

type runFlags struct {
	cloudFlags
	csv  string
	mode string
	bin  string
}

func newRunCommand() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run --csv FILE [-- FLAGS OF assetmill submit]",
		Short: "Send a CSV file through the local cloud and a worker, then stop both",
		Long: `Starts the local cloud, a worker, and the submission of one CSV file; shows its progress; waits until every job has ended; reads all
pictures back and compares the prompt that each shows with its job's; says where the images are; stops what it started. Exits with 0 only if
every job succeeded or was refused, and every picture is its job's.

All state stays in DIR: the same file again makes no new call. The defaults make the simulated model far faster than the real one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() > 0 || len(args) > 0 && cmd.ArgsLenAtDash() < 0 {
				return fmt.Errorf("unexpected argument %q; flags of assetmill submit go behind --", args[0])
			}
			return failed(run(cmd.Context(), cmd.OutOrStdout(), &flags, args))
		},
	}
	flags.register(cmd.Flags(), latencyRange{300 * time.Millisecond, 900 * time.Millisecond})
	cmd.Flags().StringVar(&flags.csv, "csv", "examples/prompts.csv", "file of prompts")
	cmd.Flags().StringVar(&flags.mode, "mode", "", "online or batch, for rows that don't say")
	cmd.Flags().StringVar(&flags.bin, "assetmill", "", "the assetmill binary; default: the one beside this one")
	return cmd
}

func run(ctx context.Context, out io.Writer, flags *runFlags, extra []string) error {
	if _, err := os.Stat(flags.csv); err != nil {
		return err
	}
	bin, err := findAssetmill(flags.bin)
	if err != nil {
		return err
	}
	stop := watchSignals(ctx)
	defer stop.release()
	cloud, err := startCloud(stop.ctx, &flags.cloudFlags)
	if err != nil {
		return err
	}
	began := time.Now()
	err = sendThrough(stop, out, childEnv(cloud), bin, flags, extra)
	took := time.Since(began)
	stats := cloud.Vertex().Stats()
	calls := stats.Images + stats.Refused
	checked := "not, since it was stopped"
	if stop.ctx.Err() == nil {
		var wrong error
		checked, wrong = check(stop.ctx, cloud)
		err = errors.Join(err, wrong)
	}
	err = errors.Join(err, cloud.Close())
	if err == nil || calls > 0 { // else there is nothing to show
		conclude(out, cloud, bin, flags, calls, took, checked)
	}
	return err
}

// sendThrough runs the worker and the submission, and stops the worker.
func sendThrough(stop *signals, out io.Writer, env []string, bin string, flags *runFlags, extra []string) error {
	logPath := filepath.Join(flags.dir, "worker.log")
	worker, err := startWorker(bin, env, logPath)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stop.ctx)
	defer cancel(nil)
	go func() {
		<-worker.ended
		cancel(errWorkerEnded)
	}()
	err = submit(ctx, out, bin, env, flags, extra)
	early := worker.hasEnded()
	stopErr := worker.stop(stop.again, drainTimeout)
	switch {
	case early && errors.Is(context.Cause(ctx), errWorkerEnded):
		return fmt.Errorf("the worker ended before the jobs did (%v); the last lines of %s:\n%s", worker.err, logPath, tail(logPath))
	case stop.ctx.Err() != nil:
		return errors.Join(errors.New("stopped by a signal; run the same command again to finish"), stopErr)
	default:
		return errors.Join(err, stopErr)
	}
}

func childEnv(cloud *localcloud.Cloud) []string {
	env := os.Environ()
	for _, v := range cloud.Env() {
		env = append(env, v.String())
		if v.Name == "VERTEX_EMULATOR_CA" {
			env = append(env, "SSL_CERT_FILE="+v.Value)
		}
	}
	return env
}

// submit runs `assetmill submit --watch`, whose output is what the user sees.
func submit(ctx context.Context, out io.Writer, bin string, env []string, flags *runFlags, extra []string) error {
	args := []string{"submit", flags.csv, "--watch"}
	if flags.mode != "" {
		args = append(args, "--mode", flags.mode)
	}
	cmd := exec.CommandContext(ctx, bin, append(args, extra...)...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = submitGrace
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &exitError{code: exit.ExitCode()} // it has said why
	}
	return err
}

// submitGrace is how long a submission that was told to stop may take to flush what it has begun.
const submitGrace = 10 * time.Second

func findAssetmill(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), "assetmill")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the assetmill binary is not at %s: run `make build`, or name it with --assetmill", path)
	}
	return path, nil
}

func conclude(out io.Writer, cloud *localcloud.Cloud, bin string, flags *runFlags, calls int64, took time.Duration, checked string) {
	fmt.Fprintf(out, `
  Images       %s/
  Checked      %s
  Model calls  %d in this run, %s; all: %s
  Worker log   %s

Ask what was made: make local, and in another terminal

  . %s
  %s query 'SELECT outcome, reason, COUNT(*) AS jobs, SUM(cost_usd) AS usd FROM generations GROUP BY outcome, reason'

`,
		cloud.AssetsDir(), checked, calls, took.Round(100*time.Millisecond), cloud.CallLog(),
		filepath.Join(flags.dir, "worker.log"), shellPath(cloud.EnvFile()), relative(bin))
}

// relative returns path from the working directory when it lies below it.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}
