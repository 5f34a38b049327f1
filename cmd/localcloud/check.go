package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/internal/localcloud"
)

func newCheckCommand() *cobra.Command {
	flags := cloudFlags{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read all pictures back and compare the prompt that each shows with its job's",
		Long: `Starts the local cloud without a worker, reads back every picture that lineage names, and compares its size, its checksum and the prompt
that the simulated model has put into it with the row of its job. Exits with 0 only if all agree. Run does the same at its end.

It can't run beside another local cloud of the same folder.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			cloud, err := startCloud(ctx, &flags)
			if err != nil {
				return failed(err)
			}
			checked, err := check(ctx, cloud)
			if checked != "" {
				fmt.Fprintln(cmd.OutOrStdout(), checked)
			}
			return failed(errors.Join(err, cloud.Close()))
		},
	}
	cmd.Flags().StringVar(&flags.dir, "dir", ".local", "folder with all state")
	return cmd
}

// check reads the pictures back. The error says which are not as they should be.
func check(ctx context.Context, cloud *localcloud.Cloud) (line string, err error) {
	c, err := cloud.Check(ctx)
	if err != nil {
		return "not", fmt.Errorf("check the pictures: %w", err)
	}
	return verdict(c)
}

// verdict puts what a check found into a line for people, and into an error if a picture is not its job's.
func verdict(c localcloud.Checked) (line string, err error) {
	line = fmt.Sprintf("%d pictures read back, each shows its own prompt", c.Right)
	switch bad := c.Jobs - c.Right; {
	case c.Jobs == 0:
		line = "no pictures to read back"
	case bad > 0:
		line = fmt.Sprintf("%d pictures read back, %d are NOT as their jobs say", c.Jobs, bad)
		err = fmt.Errorf("%d of %d pictures are not as their jobs say:\n  %s", bad, c.Jobs, strings.Join(c.Wrong, "\n  "))
	}
	if c.Unknown > 0 {
		line += fmt.Sprintf("; %d more that no row names", c.Unknown)
	}
	return line, err
}
