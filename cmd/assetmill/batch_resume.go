package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/storage"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/ledger"
)

func (a *app) batchResumeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "resume ID [ID...]",
		Short: "Let batches go on whose hand-off was lost",
		Long: `Let batches go on whose hand-off was lost. A sealed batch goes on by one message on the topic batches. When that is lost, because
somebody purged or recreated the subscription, or workers were off for longer than it keeps messages, nothing goes on: the
batch stands still, and its jobs stay claimed. Batch show tells.

The message is published again, and a worker takes up whatever is due. It is safe for any batch at any time: nothing is done or paid for twice,
and a closed batch is left alone. A batch whose message is not lost has two from then on. The second costs one more look at the batch, some small
requests, each time that it comes, every half minute or minute until the batch is closed; so do not repeat the command on a timer.

A batch that Vertex has no job of, and that is older than the workers' --batch-queue-time (24 h), gets none any more: its jobs go where
--batch-spill says, which is online and twice the price unless it was set.

The caller reads the batch's files in the work bucket and publishes to the topic batches (roles/pubsub.publisher).`,
		Example: `  assetmill batch resume b-20261123-174500-k3x7q2m4az
  assetmill batch list --open --json | jq -r .batch_id | xargs assetmill batch resume`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("%s needs the id of a batch, or several; see %s --help", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				if err := checkBatchID(id); err != nil {
					return err
				}
			}
			return a.resumeBatches(cmd.Context(), args, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a batch, as it was found, and whether it is resumed")
	return cmd
}

// resumeBatches resumes batches, one after the other. One that is none does not keep the others from it.
func (a *app) resumeBatches(ctx context.Context, ids []string, asJSON bool) error {
	return a.withStorage(ctx, func(s *settings, client *storage.Client) error {
		return s.withQueue(ctx, func(_ *pubsub.Client, q *queue.Queue) error {
			l, files := ledger.New(client, s.workBucket, ""), s.batchFiles(client)
			var failed []error
			for _, id := range ids {
				failed = append(failed, a.resumeBatch(ctx, l, files, q, id, asJSON))
			}
			return errors.Join(failed...)
		})
	})
}

// resumedJSON is a batch that was to be resumed as --json prints it; scripts rely on the names.
type resumedJSON struct {
	*batchJSON
	Resumed bool `json:"resumed"` // false: it is closed
}

func (a *app) resumeBatch(ctx context.Context, l seals, files batch.Files, q batch.Handoffs, id string, asJSON bool) error {
	st, err := readBatch(ctx, l, files, id)
	if err != nil {
		return err
	}
	resumed, err := batch.Resume(ctx, q, st)
	switch {
	case err != nil:
		return err
	case asJSON:
		return a.printLine(resumedJSON{newBatchJSON(st, time.Now()), resumed})
	case !resumed:
		_, err = fmt.Fprintf(a.out, "Batch %s is closed: it ended as %s, and there is nothing to resume.\n", id, st.Reason)
	default:
		_, err = fmt.Fprintf(a.out, `Batch %s is %s: %s.
A worker was last at it at %s. Its hand-off is published again; a worker takes it up within seconds, if one runs.
See: assetmill batch show %s
`, id, st.Phase, due(st), moment(st.LastStep()), id)
	}
	return err
}

// due says what a batch that is not closed waits for.
func due(st *batch.Status) string {
	switch {
	case st.Phase == batch.Gathered && st.Creates == 0:
		return "it is sealed, and Vertex has no job of it yet"
	case st.Phase == batch.Gathered:
		return "Vertex was asked for a job, and it is not known yet whether there is one"
	case st.Phase == batch.Running:
		return fmt.Sprintf("its Vertex job was %s when a worker last saw news of it", st.JobState)
	case st.Phase == batch.Collecting:
		return fmt.Sprintf("its Vertex job has ended (%s), and %d of %d ranges of the output are collected", st.Reason, st.Collected, len(st.Ranges))
	default:
		return "the output is collected, and the jobs that it did not end are ended or given back"
	}
}
