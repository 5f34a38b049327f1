package main

import (
	"context"
	"fmt"

	"cloud.google.com/go/storage"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/ledger"
)

// controlCommands are cancel, pause and resume.
func (a *app) controlCommands() []*cobra.Command {
	command := func(verb string, control worker.Control, short, long, done string) *cobra.Command {
		return &cobra.Command{
			Use: verb + " SUBMISSION", Short: short, Long: long,
			Example: "  assetmill " + verb + " s-4kq2vzsh7yxgq5iawbnm",
			Args:    exactArgs(1, "the id of a submission"),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := a.control(cmd.Context(), args[0], control); err != nil {
					return err
				}
				_, err := fmt.Fprintf(a.out, done+"\n", args[0])
				return err
			},
		}
	}
	return []*cobra.Command{
		command("cancel", worker.Cancel, "End a submission's jobs that have not been called",
			"End a submission's jobs that have not been called: they get a row with outcome cancelled and are never called. Jobs that have\n"+
				"ended stay as they are, and calls in flight are paid for and end as usual. Workers hear of it within seconds.",
			"Submission %s is cancelled. Workers stop calling its jobs within seconds."),
		command("pause", worker.Pause, "Hold a submission's jobs back for now",
			"Hold a submission's jobs back: they wait in the queue until resume or cancel. Pub/Sub keeps a message for the\n"+
				"subscription's retention, seven days unless it was set otherwise; after that it is lost. Calls in flight end as usual.",
			"Submission %s is paused. Its jobs wait until you resume or cancel it."),
		command("resume", worker.Proceed, "Let a paused submission go on",
			"Let a submission go on that was paused, or cancelled; jobs that have ended as cancelled stay so.",
			"Submission %s goes on."),
	}
}

func (a *app) control(ctx context.Context, submission string, control worker.Control) error {
	if !jobs.ValidID(submission) {
		return usageError("%q is no id of a submission", submission)
	}
	return a.withStorage(ctx, func(s *settings, client *storage.Client) error {
		// Jobs that producers publish themselves belong to submissions without a receipt.
		if submission != jobs.DefaultSubmission {
			receipt, err := ledger.NewReceipts(client, s.workBucket).Receipt(ctx, submission)
			if err != nil {
				return err
			}
			if receipt == nil {
				return errNoSubmission(submission)
			}
		}
		return ledger.NewControls(client, s.workBucket).Set(ctx, submission, control)
	})
}

func errNoSubmission(id string) error {
	return fmt.Errorf("there is no submission %s in this project; submit prints the id", id)
}
