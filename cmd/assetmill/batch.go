package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"text/tabwriter"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/storage"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/gcsfiles"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
)

const (
	// batchesSince is how far back batch list looks.
	batchesSince = 30 * 24 * time.Hour
	// maxListedBatches bounds what batch list prints. A day of 1.2 million jobs has 50 batches.
	maxListedBatches = 1000
	// maxBatchesBytes bounds what the list may read. A batch has five rows of a kilobyte.
	maxBatchesBytes = 10 << 30
)

// batchesSQL lists the newest batches. The table is asked instead of the view, which would be read as a whole whatever the day.
const batchesSQL = `
SELECT batch_id, state, reason, model, location, region, jobs, done, refused, failed, requeued, missing, duplicated, orphans, damaged,
  gathered_at, created_at, started_at, ended_at, closed_at, queue_ms, run_ms, collect_ms, cost_usd, saved_usd, vertex_job, vertex_state, detail
FROM (
  SELECT *
  FROM batches_raw
  WHERE changed_at >= @since
  QUALIFY ROW_NUMBER() OVER (PARTITION BY batch_id ORDER BY IF(state = 'closed', 1, 0) DESC, changed_at DESC, worker) = 1
)
WHERE NOT @open OR state != 'closed'
ORDER BY gathered_at DESC, batch_id
LIMIT @rows`

// batchID is what ids of batches look like: anything else is a mistake, and no name of a file.
var batchID = regexp.MustCompile(`^b-[a-z0-9-]{1,61}$`)

func (a *app) batchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "batch",
		Short: "Look at batches, cancel or resume one",
		Long: `Look at batches, cancel or resume one. A batch is up to 200,000 jobs that are sent to Vertex as one batch prediction job, at half the price of
online calls. docs/batch.md says what can happen to one.`,
		Args: exactArgs(0, "one of list, show, cancel, resume"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.batchListCommand(), a.batchShowCommand(), a.batchCancelCommand(), a.batchResumeCommand())
	return cmd
}

func (a *app) batchListCommand() *cobra.Command {
	var since time.Duration
	var open, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List batches, the newest first",
		Long: `List batches, the newest first, from lineage: a batch has a row there for each state that it has come to. What happens within a state, such as
how many ranges of the output are collected, is in batch show.`,
		Example: `  assetmill batch list --open
  assetmill batch list --since 168h --json`,
		Args: exactArgs(0, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since <= 0 {
				return usageError("--since is %s; how far back to look, such as 24h", since)
			}
			return a.batchList(cmd.Context(), time.Now().Add(-since), open, asJSON)
		},
	}
	cmd.Flags().DurationVar(&since, "since", batchesSince, "only those that changed within this time")
	cmd.Flags().BoolVar(&open, "open", false, "only those that are not closed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a batch, with all columns")
	return cmd
}

func (a *app) batchList(ctx context.Context, since time.Time, open, asJSON bool) error {
	return a.withLineage(ctx, func(l *lineage.Lineage) error {
		rows, err := l.Query(ctx, batchesSQL, maxBatchesBytes,
			bigquery.QueryParameter{Name: "since", Value: since}, bigquery.QueryParameter{Name: "open", Value: open},
			bigquery.QueryParameter{Name: "rows", Value: maxListedBatches})
		if err != nil {
			return err
		}
		if asJSON {
			return a.printObjects(rows)
		}
		return a.printBatches(rows.Columns, rows.Next)
	})
}

// listed are the columns of a batch that a person looks for first, and what the table calls them.
var listed = [][2]string{
	{"batch_id", "batch"}, {"state", "state"}, {"reason", "ended as"}, {"model", "model"}, {"jobs", "jobs"}, {"done", "done"}, {"refused", "refused"},
	{"failed", "failed"}, {"requeued", "requeued"}, {"duplicated", "twice"}, {"cost_usd", "cost USD"}, {"saved_usd", "saved USD"}, {"gathered_at", "gathered at"},
}

// printBatches prints the rows as a table.
func (a *app) printBatches(columns []string, next func() ([]any, error)) error {
	place := map[string]int{}
	for i, c := range columns {
		place[c] = i
	}
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, l := range listed {
		fmt.Fprintf(table, "%s\t", l[1])
	}
	fmt.Fprintln(table)
	for count := 0; ; count++ {
		values, err := next()
		if errors.Is(err, io.EOF) {
			if count == 0 {
				_, err := fmt.Fprintln(a.out, "There are no batches.")
				return err
			}
			return table.Flush()
		}
		if err != nil {
			return err
		}
		for _, l := range listed {
			text := cell(values[place[l[0]]])
			switch l[0] {
			case "cost_usd", "saved_usd":
				text = dollars(text)
			case "gathered_at":
				if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
					text = at.Format(time.DateTime)
				}
			}
			fmt.Fprintf(table, "%s\t", text)
		}
		fmt.Fprintln(table)
	}
}

func (a *app) batchShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell where a batch stands",
		Long: `Tell where a batch stands, from its files in the work bucket: what it consists of, its Vertex job, how much of the output is collected,
when a worker was last at it, and its books when it is closed. A batch that is not closed and was left alone for an hour, while workers run, has
lost its hand-off: see batch resume.`,
		Example: `  assetmill batch show b-20261123-174500-k3x7q2m4az`,
		Args:    exactArgs(1, "the id of a batch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBatch(cmd.Context(), args[0], func(_ *gcsfiles.Files, st *batch.Status) error {
				return a.printBatch(newBatchJSON(st, time.Now()), asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the batch as JSON")
	return cmd
}

// withBatch reads a batch from the work bucket.
func (a *app) withBatch(ctx context.Context, id string, do func(*gcsfiles.Files, *batch.Status) error) error {
	if err := checkBatchID(id); err != nil {
		return err
	}
	return a.withStorage(ctx, func(s *settings, client *storage.Client) error {
		files := s.batchFiles(client)
		st, err := readBatch(ctx, ledger.New(client, s.workBucket, ""), files, id)
		if err != nil {
			return err
		}
		return do(files, st)
	})
}

func checkBatchID(id string) error {
	if !batchID.MatchString(id) {
		return usageError("%q is no id of a batch; see assetmill batch list", id)
	}
	return nil
}

// seals knows which batches are sealed.
type seals interface {
	ReadSeal(ctx context.Context, batch string) (worker.Seal, error)
}

// readBatch returns where a batch stands, or an error for one that is none.
func readBatch(ctx context.Context, l seals, files batch.Files, id string) (*batch.Status, error) {
	seal, err := l.ReadSeal(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := sealed(id, seal); err != nil {
		return nil, err
	}
	return batch.ReadStatus(ctx, files, seal.Manifest)
}

// sealed returns an error for a batch that is none.
func sealed(id string, seal worker.Seal) error {
	switch {
	case seal.Void:
		return fmt.Errorf("batch %s was never sent: the worker that gathered it was lost before, and its jobs went back to the queue", id)
	case !seal.Sealed:
		return fmt.Errorf("there is no batch %s in the work bucket: it is still being gathered, or its files are past their retention", id)
	default:
		return nil
	}
}

// batchJSON is a batch as --json prints it; scripts rely on the names.
type batchJSON struct {
	ID         string       `json:"id"`
	Phase      batch.Phase  `json:"phase"`
	Model      string       `json:"model"`
	Lane       string       `json:"lane"`
	Location   string       `json:"location"`
	Region     string       `json:"region"`
	Jobs       int          `json:"jobs"`
	InputBytes int64        `json:"input_bytes"`
	Gatherer   string       `json:"gatherer"`
	SealedAt   time.Time    `json:"sealed_at"`
	LastStep   time.Time    `json:"last_step_at"` // to some minutes
	StandStill bool         `json:"stands_still"`
	Creates    int          `json:"creates"`
	VertexJob  string       `json:"vertex_job,omitempty"`
	Link       string       `json:"link,omitempty"`
	State      string       `json:"vertex_state,omitempty"`
	Made       int64        `json:"rows_made"`
	Surplus    []string     `json:"surplus,omitempty"`
	Output     string       `json:"output_uri,omitempty"`
	QueuedAt   time.Time    `json:"queued_at,omitzero"`
	StartedAt  time.Time    `json:"started_at,omitzero"`
	EndedAt    time.Time    `json:"ended_at,omitzero"`
	Reason     string       `json:"reason,omitempty"`
	Detail     string       `json:"detail,omitempty"`
	GivenUp    string       `json:"given_up,omitempty"`
	Wish       batch.Then   `json:"cancelled_then,omitempty"`
	Then       batch.Then   `json:"then,omitempty"`
	Ranges     int          `json:"ranges"`
	Collected  int          `json:"ranges_collected"`
	Passed     int          `json:"rows_passed,omitempty"`
	Totals     *batchTotals `json:"totals,omitempty"`
}

// batchTotals are a closed batch's books.
type batchTotals struct {
	batch.Ends
	Missing     int    `json:"missing"`
	Duplicated  int    `json:"duplicated"`
	Orphans     int    `json:"orphans"`
	Damaged     int    `json:"damaged"`
	OutputBytes int64  `json:"output_bytes"`
	CostUSD     string `json:"cost_usd"`
	OnlineUSD   string `json:"online_usd"`
}

// newBatchJSON returns what is printed of a batch; now is what the time of its last step is compared with.
func newBatchJSON(st *batch.Status, now time.Time) *batchJSON {
	b := &batchJSON{
		ID: st.ID, Phase: st.Phase, Model: st.Lane.Model, Lane: st.Lane.Name, Location: st.Lane.Location, Region: st.Region, Jobs: st.Rows,
		InputBytes: st.InputBytes, Gatherer: st.Gatherer, SealedAt: st.SealedAt, Creates: st.Creates, VertexJob: st.Job, Link: consoleLink(st.Lane, st.Job),
		State: st.JobState, Made: st.Made, Surplus: st.Surplus, Output: st.Output, QueuedAt: st.Queued, StartedAt: st.Started, EndedAt: st.Ended,
		Reason: st.Reason, Detail: st.Detail, GivenUp: st.GivenUp, Wish: st.Wish, Then: st.Then, Ranges: len(st.Ranges), Collected: st.Collected,
		Passed: st.Passed.Rows, LastStep: st.LastStep(), StandStill: st.StandsStill(now),
	}
	if t := st.Totals; t != nil {
		b.Totals = &batchTotals{t.Ends, t.Missing, t.Duplicated, t.Orphans, t.Damaged, t.Bytes, t.Cost.String(), t.Online.String()}
	}
	return b
}

// consoleLink is where Google's console shows a Vertex job; empty when there is none.
func consoleLink(l worker.Lane, name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("https://console.cloud.google.com/vertex-ai/locations/%s/batch-predictions/%s?project=%s", l.Location, path.Base(name), l.Project)
}

func (a *app) printBatch(b *batchJSON, asJSON bool) error {
	if asJSON {
		return a.printJSON(b)
	}
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	line := func(name string, value any) {
		if text := fmt.Sprint(value); text != "" && text != "0" {
			fmt.Fprintf(table, "%s\t%s\n", name, text)
		}
	}
	line("batch", b.ID)
	line("phase", b.Phase)
	line("jobs", b.Jobs)
	line("model", b.Model)
	line("lane", fmt.Sprintf("%s, for data region %s", b.Lane, b.Region))
	line("sealed at", b.SealedAt.Format(time.DateTime)+" by "+b.Gatherer)
	line("last step", lastStep(b))
	line("Vertex job", b.VertexJob)
	line("Vertex state", b.State)
	line("queued at", moment(b.QueuedAt))
	line("started at", moment(b.StartedAt))
	line("ended at", moment(b.EndedAt))
	line("rows made", b.Made)
	for _, name := range b.Surplus {
		line("one too many", name)
	}
	line("ended as", b.Reason)
	line("detail", cell(b.Detail))
	line("jobs not made go", whereto(b))
	line("output", b.Output)
	if b.Ranges > 0 {
		line("ranges", fmt.Sprintf("%d of %d collected", b.Collected, b.Ranges))
	}
	if t := b.Totals; t != nil {
		line("ended", fmt.Sprintf("%d done, %d refused, %d failed, %d requeued", t.Done, t.Refused, t.Failed, t.Requeued))
		line("rows", fmt.Sprintf("%d missing, %d too many, %d of no job, %d damaged", t.Missing, t.Duplicated, t.Orphans, t.Damaged))
		line("cost", fmt.Sprintf("$%s; %d images online would have cost $%s", dollars(t.CostUSD), t.Done, dollars(t.OnlineUSD)))
	}
	line("link", b.Link)
	return table.Flush()
}

// lastStep says when a worker was last at a batch, and what it means where that is too long ago.
func lastStep(b *batchJSON) string {
	if !b.StandStill {
		return moment(b.LastStep)
	}
	return moment(b.LastStep) + ": it stands still; if workers run, its hand-off is lost, see assetmill batch resume"
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateTime)
}

// whereto says what becomes of jobs whose rows are not made.
func whereto(b *batchJSON) string {
	then := b.Then
	if then == "" {
		then = b.Wish
	}
	switch then {
	case batch.ThenOnline:
		return "online"
	case batch.ThenBatch:
		return "into another batch"
	case batch.ThenDrop:
		return "nowhere: they end as cancelled"
	default:
		return ""
	}
}

func (a *app) batchCancelCommand() *cobra.Command {
	var then string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cancel ID --then online|batch|drop",
		Short: "End a batch early",
		Long: `End a batch early. Vertex is asked to cancel its job: rows that are made by then are paid for, and their images are stored. --then says what
becomes of the other jobs:

  online  they are called online: soon, and at twice the price
  batch   they go into another batch
  drop    they end with outcome cancelled

A batch whose Vertex job has ended can't be cancelled: what is made is being collected.`,
		Example: `  assetmill batch cancel b-20261123-174500-k3x7q2m4az --then online`,
		Args:    exactArgs(1, "the id of a batch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if then == "" {
				return usageError("say what becomes of the jobs that are not made: --then online, --then batch or --then drop")
			}
			whereto, err := batch.ParseThen(then)
			if err != nil {
				return usageError("--then %w", err)
			}
			return a.withBatch(cmd.Context(), args[0], func(files *gcsfiles.Files, st *batch.Status) error {
				return a.batchCancel(cmd.Context(), files, st, whereto, asJSON)
			})
		},
	}
	cmd.Flags().StringVar(&then, "then", "", "what becomes of the jobs that are not made: online, batch or drop (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the batch as JSON")
	return cmd
}

func (a *app) batchCancel(ctx context.Context, files batch.Files, st *batch.Status, then batch.Then, asJSON bool) error {
	switch {
	case st.Phase == batch.Closed:
		return fmt.Errorf("batch %s is closed: it ended as %s", st.ID, st.Reason)
	case st.Phase != batch.Gathered && st.Phase != batch.Running:
		return fmt.Errorf("batch %s can't be cancelled: its Vertex job has ended (%s), and what it made is being collected", st.ID, st.Reason)
	case st.GivenUp != "":
		return fmt.Errorf("batch %s is being cancelled already (%s), and its jobs go to: %s", st.ID, st.Detail, st.Then)
	}
	if err := batch.Cancel(ctx, files, st.ID, then); err != nil {
		return err
	}
	st.Wish = then
	if asJSON {
		return a.printBatch(newBatchJSON(st, time.Now()), true)
	}
	b := newBatchJSON(st, time.Now())
	what := "It has no Vertex job yet, and will get none"
	if st.Job != "" {
		what = fmt.Sprintf("Its Vertex job is %s; rows that are made until it ends are paid for and kept", st.JobState)
	}
	_, err := fmt.Fprintf(a.out, `Batch %s is cancelled. A worker hears of it at its next look: with the usual settings within a minute, at most ten.
%s. Of its %d jobs those that are not made go %s.
See: assetmill batch show %s
`, st.ID, what, st.Rows, whereto(b), st.ID)
	return err
}
