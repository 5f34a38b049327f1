package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/schemas"
)

// startTimeout bounds the start: it takes about a second, and a few more after a long history.
const startTimeout = 2 * time.Minute

func newServeCommand() *cobra.Command {
	var flags cloudFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the local cloud in the foreground until Ctrl-C",
		Long: `Runs Pub/Sub, Cloud Storage, BigQuery and Vertex AI on the loopback interface until Ctrl-C, creates what assetmill needs in
them, and writes their addresses to DIR/env as shell exports.

Images, tables and the call log stay in DIR and are there at the next start. Messages don't: Pub/Sub keeps them in memory. Submit a
file again to finish what a restart cut short; nothing that is done is paid for again. With PUBSUB_EMULATOR_HOST set, that emulator
is used instead and keeps its own messages.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(serve(cmd.Context(), cmd.OutOrStdout(), &flags))
		},
	}
	// About as slow as makes progress visible; the real model takes 7 to 60 s.
	flags.register(cmd.Flags(), latencyRange{time.Second, 3 * time.Second})
	return cmd
}

func serve(ctx context.Context, out io.Writer, flags *cloudFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cloud, err := startCloud(ctx, flags)
	if err != nil {
		return err
	}
	describe(out, cloud)
	<-ctx.Done()
	stop() // a second Ctrl-C ends the process at once
	fmt.Fprintln(out, "\nstopping")
	return cloud.Close()
}

func startCloud(ctx context.Context, flags *cloudFlags) (*localcloud.Cloud, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cloud, err := localcloud.Start(ctx, flags.config())
	if errors.Is(err, localcloud.ErrRunning) {
		return nil, fmt.Errorf("%w\nto use the one that runs: . %s", err, shellPath(filepath.Join(flags.dir, "env")))
	}
	return cloud, err
}

// shellPath returns a path as `.` takes it: without a slash a shell would search PATH.
func shellPath(path string) string {
	if filepath.IsAbs(path) || filepath.Dir(path) != "." {
		return path
	}
	return "./" + path
}

func describe(out io.Writer, cloud *localcloud.Cloud) {
	at := map[string]string{}
	for _, v := range cloud.Env() {
		at[v.Name] = v.Value
	}
	fmt.Fprintf(out, `The local cloud is ready. Ctrl-C stops it.

  Pub/Sub        %-28s topics %s, %s, %s
  Cloud Storage  %-28s buckets %s, %s
  BigQuery       %-28s dataset %s.%s; Storage API at %s
  Vertex AI      %-28s simulated; gRPC at %s

  Images         %s/
  Model calls    %s

In another terminal:

  . %s
  bin/assetmill worker                               # in one
  bin/assetmill submit examples/prompts.csv --watch  # in the other
  bin/assetmill query 'SELECT outcome, COUNT(*) AS jobs, SUM(cost_usd) AS usd FROM generations GROUP BY outcome'

`,
		at["PUBSUB_EMULATOR_HOST"], schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults,
		at["STORAGE_EMULATOR_HOST"], localcloud.Bucket, localcloud.WorkBucket,
		at["BIGQUERY_EMULATOR_HOST"], localcloud.Project, localcloud.Dataset, at["BIGQUERY_STORAGE_EMULATOR_HOST"],
		at["VERTEX_EMULATOR_HOST"], at["VERTEX_GRPC_EMULATOR_HOST"],
		cloud.AssetsDir(), cloud.CallLog(), shellPath(cloud.EnvFile()))
}
