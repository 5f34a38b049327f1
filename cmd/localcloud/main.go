// Command localcloud runs Pub/Sub, Cloud Storage, BigQuery and a simulated Vertex AI on this machine, with everything that
// assetmill needs in them.
//
//	localcloud serve        runs it in the foreground until Ctrl-C (make local)
//	localcloud run          runs it, a worker and one submission, then stops all of them (make run)
//	localcloud check        reads all pictures back and compares the prompt that each shows with its job's
//
// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 invalid rows in the CSV file (run).
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// Exit codes, the same as assetmill's.
const (
	exitFailure = 1
	exitUsage   = 2
)

// exitError ends the process with a code. Its error, if any, is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	err := newCommand().Execute()
	if err == nil {
		return
	}
	code := exitUsage // what cobra finds wrong by itself
	var exit *exitError
	if errors.As(err, &exit) {
		code, err = exit.code, exit.err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "localcloud:", err)
	}
	os.Exit(code)
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "localcloud",
		Short:         "Pub/Sub, Cloud Storage, BigQuery and a simulated Vertex AI on this machine",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.Join(cmd.Help(), &exitError{code: exitUsage})
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newServeCommand(), newRunCommand(), newCheckCommand())
	return root
}

// failed marks an error of the command's work, as opposed to its usage.
func failed(err error) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return err
	}
	return &exitError{code: exitFailure, err: err}
}
