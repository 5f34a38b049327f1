package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
)

// Pauses between looks at a submission's rows. Each is a query, so they grow.
const (
	firstLook = 500 * time.Millisecond
	lastLook  = 5 * time.Second
)

// Status is where a submission stands. It is what --json prints; scripts rely on the names.
type Status struct {
	Submission       string           `json:"submission"`
	Jobs             int64            `json:"jobs"`
	Ended            int64            `json:"ended"`
	Pending          int64            `json:"pending"`
	Outcomes         map[string]int64 `json:"outcomes"`
	Reasons          []ReasonCount    `json:"reasons"`
	CostUSD          string           `json:"cost_usd"`
	EstimatedCostUSD string           `json:"estimated_cost_usd"`
	RowsRead         int64            `json:"rows_read"`
	RowsRejected     int64            `json:"rows_rejected"`
	Published        int64            `json:"published"`    // by the newest run of submit
	AlreadyDone      int64            `json:"already_done"` // before the newest run of submit
	Complete         bool             `json:"complete"`     // every job has ended
	Control          string           `json:"control"`      // proceed, pause or cancel
}

// ReasonCount is how many jobs ended for one reason.
type ReasonCount struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Jobs    int64  `json:"jobs"`
	CostUSD string `json:"cost_usd"`
}

// statusReader derives status from the receipt and the rows; there are no counters that could drift.
type statusReader struct {
	receipts *ledger.Receipts
	controls *ledger.Controls
	rows     *lineage.Lineage
}

func (r *statusReader) read(ctx context.Context, submission string) (*Status, error) {
	receipt, err := r.receipts.Receipt(ctx, submission)
	if err != nil {
		return nil, err
	}
	if receipt == nil {
		return nil, errNoSubmission(submission)
	}
	since := time.UnixMicro(receipt.GetFirstSubmittedAt()).Add(-submit.ClockSkew)
	counts, err := r.rows.Counts(ctx, lineage.Scope{Submission: submission, Since: since})
	if err != nil {
		return nil, err
	}
	control, err := r.controls.Ask(ctx, submission)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Submission: submission, Control: ledger.ControlWord(control), Jobs: receipt.GetJobs() + receipt.GetEndedBefore(), EstimatedCostUSD: receipt.GetEstimatedCostUsd(),
		RowsRead: receipt.GetRowsRead(), RowsRejected: receipt.GetRowsRejected(),
		Published: receipt.GetPublished(), AlreadyDone: receipt.GetAlreadyDone(),
		Outcomes: map[string]int64{}, Reasons: []ReasonCount{},
	}
	cost := new(big.Rat)
	for _, c := range counts {
		s.Outcomes[c.Outcome] += c.Jobs
		s.Ended += c.Jobs
		s.Reasons = append(s.Reasons, ReasonCount{c.Outcome, c.Reason, c.Jobs, c.CostUSD})
		if amount, ok := new(big.Rat).SetString(c.CostUSD); ok {
			cost.Add(cost, amount)
		}
	}
	s.CostUSD = cost.FloatString(9)
	s.Pending = max(s.Jobs-s.Ended, 0)
	s.Complete = s.Pending == 0
	return s, nil
}

// dollars shortens a NUMERIC amount to cents, for people.
func dollars(numeric string) string {
	amount, ok := new(big.Rat).SetString(numeric)
	if !ok {
		return numeric
	}
	return amount.FloatString(2)
}

func (a *app) statusCommand() *cobra.Command {
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "status SUBMISSION",
		Short: "Tell what became of a submission",
		Long: `Tell what became of a submission, from its receipt and its lineage rows.

With --watch it waits until every job has ended; the exit code is then 1 if any job failed or was cancelled.`,
		Example: `  assetmill status s-4kq2vzsh7yxgq5iawbnm
  assetmill status s-4kq2vzsh7yxgq5iawbnm --watch --json`,
		Args: exactArgs(1, "the id of a submission"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.status(cmd.Context(), args[0], watch, asJSON) },
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "wait until every job has ended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON")
	return cmd
}

func (a *app) status(ctx context.Context, submission string, watch, asJSON bool) error {
	if !jobs.ValidID(submission) {
		return usageError("%q is no id of a submission", submission)
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	c := &closer{}
	defer c.close()
	storageClient, err := s.storageClient(ctx)
	if err != nil {
		return err
	}
	c.add(storageClient.Close)
	rows, err := lineage.New(ctx, s.lineageConfig())
	if err != nil {
		return err
	}
	c.add(func() error { return closeLineage(rows) })
	reader := &statusReader{ledger.NewReceipts(storageClient, s.workBucket), ledger.NewControls(storageClient, s.workBucket), rows}
	if watch {
		return a.watch(ctx, reader, submission, asJSON)
	}
	st, err := reader.read(ctx, submission)
	if err != nil {
		return err
	}
	return a.printStatus(st, asJSON)
}

// watch waits until every job of the submission has ended, prints its status, and fails when a job failed.
func (a *app) watch(ctx context.Context, reader *statusReader, submission string, asJSON bool) error {
	bar := newProgress(a.err)
	defer bar.finish()
	for pause := firstLook; ; pause = min(pause*5/4, lastLook) {
		st, err := reader.read(ctx, submission)
		if err != nil {
			return err
		}
		if st.Complete {
			bar.finish()
			return a.conclude(st, asJSON)
		}
		bar.show("waiting for images", st.Ended, st.Jobs, fmt.Sprintf(", $%s", dollars(st.CostUSD)))
		if err := retry.Sleep(ctx, pause); err != nil {
			bar.finish()
			return fmt.Errorf("stopped watching with %d of %d jobs ended; they go on without. See: assetmill status %s", st.Ended, st.Jobs, submission)
		}
	}
}

// conclude prints a complete status and turns failed jobs into a failure of the command.
func (a *app) conclude(st *Status, asJSON bool) error {
	if err := a.printStatus(st, asJSON); err != nil {
		return err
	}
	bad := st.Outcomes[string(jobs.Failed)] + st.Outcomes[string(jobs.Cancelled)]
	if bad > 0 {
		return fmt.Errorf("%d of %d jobs failed or were cancelled", bad, st.Jobs)
	}
	return nil
}

func (a *app) printStatus(st *Status, asJSON bool) error {
	if asJSON {
		return a.printJSON(st)
	}
	fmt.Fprintf(a.out, "Submission %s: %d of %d jobs ended, %d pending.\n", st.Submission, st.Ended, st.Jobs, st.Pending)
	if st.Control != ledger.ControlWord(worker.Proceed) && !st.Complete {
		fmt.Fprintf(a.out, "Its control is %s; assetmill resume %s lets it go on.\n", st.Control, st.Submission)
	}
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "outcome\treason\tjobs\tcost USD\t")
	for _, r := range st.Reasons {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t\n", r.Outcome, r.Reason, r.Jobs, dollars(r.CostUSD))
	}
	fmt.Fprintf(table, "\t\t%d\t%s\t\n", st.Ended, dollars(st.CostUSD))
	return table.Flush()
}

// printJSON prints a value as indented JSON; messages in the form in which they travel.
func (a *app) printJSON(v any) error {
	if m, ok := v.(proto.Message); ok {
		data, err := schemas.Marshal(m)
		if err != nil {
			return err
		}
		v = json.RawMessage(data)
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// closeTime bounds how long rows may still be flushed at the end of a command.
const closeTime = 30 * time.Second

func closeLineage(l *lineage.Lineage) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return l.Close(ctx)
}

// closer undoes in reverse order what was opened.
type closer struct{ all []func() error }

func (c *closer) add(f func() error) { c.all = append(c.all, f) }

func (c *closer) close() {
	for i := len(c.all) - 1; i >= 0; i-- {
		// What matters was flushed and waited for by whoever wrote it; a connection that does not close cleanly loses nothing.
		_ = c.all[i]()
	}
	c.all = nil
}
