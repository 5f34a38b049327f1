// Command assetmill turns prompts into images on Google Cloud: it submits CSV files of prompts, works on the jobs, and
// tells what became of them. Run `assetmill --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
)

// Exit codes. Scripts rely on them.
const (
	exitOK      = 0
	exitFailure = 1 // something went wrong, or jobs failed
	exitUsage   = 2 // the command line or the settings are wrong
	exitInvalid = 3 // rows are invalid; nothing was published
)

// version is set by the linker.
var version = "dev"

func main() {
	// grpc-go writes what its connections go through to standard error, in between our lines. What matters comes back as the
	// error of a call.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	ctx, stop := context.WithCancel(context.Background())
	hurry := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		// The first signal stops in order, the second hurries, and the third finds the system's own handler.
		<-signals
		stop()
		<-signals
		close(hurry)
		signal.Stop(signals)
	}()
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, os.Getenv, hurry)
	stop()
	os.Exit(code)
}

// streams are a command's connections to the terminal.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// app is what every subcommand shares.
type app struct {
	streams
	env   func(string) string
	hurry <-chan struct{} // closed by the second signal to stop
}

// codeError is an error with an exit code of its own.
type codeError struct {
	error
	code int
}

func (e codeError) Unwrap() error { return e.error }

func usageError(format string, args ...any) error {
	return codeError{fmt.Errorf(format, args...), exitUsage}
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, std streams, env func(string) string, hurry <-chan struct{}) int {
	a := &app{streams: std, env: env, hurry: hurry}
	root := &cobra.Command{
		Use:   "assetmill",
		Short: "Turn prompts into images by the million on Google Cloud",
		Long: `assetmill turns prompts into images by the million on Google Cloud.

Settings come from the environment:
  ASSETMILL_PROJECT      Google Cloud project (required)
  ASSETMILL_BUCKET       bucket of the assets (required)
  ASSETMILL_WORK_BUCKET  bucket of the ledger and the receipts (required)
  ASSETMILL_DATASET      BigQuery dataset of the lineage (default: assetmill)
  ASSETMILL_LANES        file with the ways to get calls served (default: every model's standard tier)
  ASSETMILL_CATALOGUE    file with models and prices of your own (default: the built-in ones)
Credentials are Application Default Credentials. *_EMULATOR_HOST variables point single services elsewhere;
` + "`make local` and `. .local/env`" + ` point all of them to this machine.

Exit codes: 0 ok, 1 failure, 2 wrong usage or settings, 3 invalid rows, 4 warnings of doctor.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("unknown command %q; see assetmill --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(a.submitCommand(), a.workerCommand(), a.statusCommand(), a.queryCommand(), a.deadCommand())
	root.AddCommand(a.controlCommands()...)
	root.AddCommand(a.doctorCommand(), a.signCommand(), a.planCommand(), a.batchCommand())

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var coded codeError
	if errors.As(err, &coded) {
		code = coded.code
	}
	fmt.Fprintf(std.err, "assetmill: %v\n", err)
	return code
}

// exactArgs is cobra.ExactArgs with this program's exit code and a hint.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError("%s needs %s; see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}
