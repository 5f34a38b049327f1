package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
)

// maxShownErrors bounds the wrong rows that are printed; the errors file has all of them.
const maxShownErrors = 10

// submitFlags are the command line of submit.
type submitFlags struct {
	job         schemas.Job
	submission  string
	onlineRate  int
	labels      []string
	variants    int
	dryRun      bool
	skipInvalid bool
	errorsFile  string
	watch       bool
	json        bool
}

func (a *app) submitCommand() *cobra.Command {
	f := &submitFlags{}
	cmd := &cobra.Command{
		Use:   "submit FILE...",
		Short: "Check CSV files of prompts and publish their rows as jobs",
		Long: `Check CSV files of prompts and publish their rows as jobs.

Every row is checked before the first is published. By default nothing is published while any row is invalid: the exit code
is 3, and the errors file says for each row what is wrong and what is allowed. Submitting the same files again publishes
nothing that has ended and finishes what is missing.

With the mode auto, jobs go to batch, at half the price, where that will do: the model makes their size in batch, their deadline is
at least ` + hours(jobs.BatchTime) + ` away, and there are ` + strconv.Itoa(submit.MinBatchJobs) + ` or more of their model and region. What both modes cost and take is shown first.

Columns: prompt (required), id, campaign, client, model, size, aspect_ratio, seed, variants, references, system, safety, mode,
deadline, region, retention, label.NAME, turn_1_prompt with turn_1_image and so on. Other columns travel along into lineage as
source. Flags fill in for empty cells.`,
		Example: `  assetmill submit prompts.csv --campaign spring-sale --size 2K --watch
  assetmill submit prompts.csv --mode auto --dry-run
  assetmill submit prompts.csv --dry-run
  assetmill submit prompts.csv --skip-invalid --errors rejected.csv --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("name at least one CSV file; see assetmill submit --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.submit(cmd.Context(), f, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.job.Campaign, "campaign", "", "campaign that the cost belongs to (default \"default\")")
	flags.StringVar(&f.job.Client, "client", "", "client that the cost belongs to")
	flags.StringVar(&f.job.Model, "model", "", "model id (default: the catalogue's, \""+jobs.DefaultCatalogue().DefaultModel().ID+"\" in the built-in one)")
	flags.StringVar(&f.job.Size, "size", "", "size class: 512, 1K, 2K, 4K, as the model offers (default \"1K\")")
	flags.StringVar(&f.job.AspectRatio, "aspect-ratio", "", "aspect ratio such as 16:9 (default \"1:1\")")
	flags.IntVar(&f.variants, "variants", 1, fmt.Sprintf("images for each prompt, 1 to %d", jobs.MaxVariants))
	flags.StringVar(&f.job.Mode, "mode", "", "online, batch or auto (default \"online\")")
	flags.IntVar(&f.onlineRate, "online-rate", submit.DefaultOnlineRate, "online calls a minute that auto estimates times with")
	flags.StringVar(&f.job.Region, "region", "", "data region that the jobs may not leave (default \"global\")")
	flags.StringVar(&f.job.Retention, "retention", "", "how long assets are kept: "+strings.Join(jobs.Retentions(), ", ")+" (default \"keep\")")
	flags.StringArrayVar(&f.labels, "label", nil, "label as key=value; may be repeated")
	flags.StringVar(&f.submission, "submission", "", "id of the submission (default: derived from the files and these flags).\nWith the same id, a corrected file pays only for the rows that are new")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check and estimate only; publish nothing")
	flags.BoolVar(&f.skipInvalid, "skip-invalid", false, "publish the valid rows although others are invalid")
	flags.StringVar(&f.errorsFile, "errors", "", "file for the invalid rows (default: FILE.errors.csv beside the first file)")
	flags.BoolVar(&f.watch, "watch", false, "wait until every job has ended and print what became of them")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	return cmd
}

// submitConnections are the services that a submission talks to, and how to leave them.
type submitConnections struct {
	ports  submit.Ports
	status *statusReader
	close  func()
}

func (a *app) submit(ctx context.Context, f *submitFlags, names []string) error {
	opts, err := a.submitOptions(f)
	if err != nil {
		return err
	}
	files, err := openFiles(names)
	if err != nil {
		return err
	}
	conn := &submitConnections{close: func() {}}
	if !f.dryRun {
		if conn, err = a.connectSubmit(ctx); err != nil {
			return err
		}
	}
	defer conn.close()

	rejects := &rejectWriter{path: f.errorsFile, out: a.err}
	if rejects.path == "" {
		rejects.path = strings.TrimSuffix(names[0], filepath.Ext(names[0])) + ".errors.csv"
	}
	opts.Reject = rejects.add
	opts.Planned = func(r *schemas.SubmissionRow) error { return a.showPlan(f, r) }
	bar := newProgress(a.err)
	opts.Progress = func(p submit.Progress) {
		if p.Phase == submit.Checking {
			bar.show("checking rows (bytes)", p.Bytes, p.Total, "")
		} else {
			bar.show("publishing jobs", p.Published, p.Jobs, "")
		}
	}
	receipt, err := submit.Run(ctx, files, opts, conn.ports)
	bar.finish()
	if closing := rejects.close(); err == nil {
		err = closing
	}
	if err := a.reportSubmit(f, receipt, rejects, err); err != nil || !f.watch || f.dryRun {
		return err
	}
	return a.watch(ctx, conn.status, receipt.GetSubmission(), f.json)
}

func (a *app) submitOptions(f *submitFlags) (submit.Options, error) {
	for _, l := range f.labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return submit.Options{}, usageError("--label %q is not key=value", l)
		}
		if f.job.Labels == nil {
			f.job.Labels = map[string]string{}
		}
		f.job.Labels[key] = value
	}
	if f.variants < 1 || f.variants > jobs.MaxVariants {
		return submit.Options{}, usageError("--variants is %d; allowed: 1 to %d", f.variants, jobs.MaxVariants)
	}
	if f.onlineRate < 1 {
		return submit.Options{}, usageError("--online-rate is %d; at least 1 is needed", f.onlineRate)
	}
	catalogue, err := a.catalogue()
	if err != nil {
		return submit.Options{}, err
	}
	// A wrong flag is wrong for every row: say so once, as the mistake on the command line that it is.
	trial := &schemas.Job{
		Prompt: "trial", Submission: f.submission, Campaign: f.job.Campaign, Client: f.job.Client, Model: f.job.Model, Size: f.job.Size,
		AspectRatio: f.job.AspectRatio, Mode: f.job.Mode, Region: f.job.Region, Retention: f.job.Retention, Labels: f.job.Labels,
	}
	switch jobs.Mode(trial.Mode) {
	case "", jobs.Online, jobs.Batch:
	case jobs.Auto:
		trial.Mode = ""
	default:
		return submit.Options{}, usageError("flag --mode %q is unknown; allowed: online, batch, auto", trial.Mode)
	}
	var problems jobs.Problems
	if _, err := catalogue.Parse(trial); errors.As(err, &problems) {
		return submit.Options{}, usageError("flag --%s", strings.ReplaceAll(problems[0].String(), "aspect_ratio", "aspect-ratio"))
	}
	return submit.Options{
		Submission: f.submission, Defaults: &f.job, Variants: f.variants, Catalogue: catalogue,
		SkipInvalid: f.skipInvalid, DryRun: f.dryRun, Submitter: submitter(), OnlineRate: f.onlineRate,
	}, nil
}

// submitter is who runs the command, for the receipt.
func submitter() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func openFiles(names []string) ([]submit.File, error) {
	var files []submit.File
	for _, name := range names {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return nil, usageError("%w", err)
		case !info.Mode().IsRegular():
			return nil, usageError("%s is no regular file: files are read twice, so a pipe or a folder will not do", name)
		}
		files = append(files, submit.File{
			Name: filepath.Base(name), Size: info.Size(),
			Open: func() (io.ReadCloser, error) { return os.Open(name) },
		})
	}
	return files, nil
}

// connectSubmit opens what a submission needs and checks that it is there, before minutes are spent on checking rows.
func (a *app) connectSubmit(ctx context.Context) (_ *submitConnections, err error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	c := &closer{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	pubsubClient, err := s.pubsubClient(ctx)
	if err != nil {
		return nil, err
	}
	c.add(pubsubClient.Close)
	storageClient, err := s.storageClient(ctx)
	if err != nil {
		return nil, err
	}
	c.add(storageClient.Close)
	rows, err := lineage.New(ctx, s.lineageConfig())
	if err != nil {
		return nil, err
	}
	c.add(func() error { return closeLineage(rows) })
	observed, err := a.openTelemetry(ctx, "submit-"+rand.Text()[:8], zap.NewNop())
	if err != nil {
		return nil, err
	}
	c.add(func() error { return observed.Close(context.WithoutCancel(ctx)) })
	q := queue.New(pubsubClient, queue.Config{Mode: jobs.Online, Log: zap.NewNop(), Tracer: observed.Tracer()})
	c.add(func() error { q.Close(); return nil })
	receipts := ledger.NewReceipts(storageClient, s.workBucket)
	if err := errors.Join(q.Check(ctx, schemas.TopicJobs), receipts.Check(ctx), rows.Check(ctx, schemas.TableSubmissions)); err != nil {
		return nil, err
	}
	return &submitConnections{
		ports: submit.Ports{
			Publisher: q, Lineage: doneRows{rows}, Receipts: receipts, References: assets.New(storageClient, assets.Config{Bucket: s.bucket}),
		},
		status: &statusReader{receipts, ledger.NewControls(storageClient, s.workBucket), rows}, close: c.close,
	}, nil
}

// doneRows is lineage as package submit asks it.
type doneRows struct{ *lineage.Lineage }

// DoneIDs implements submit.Lineage.
func (d doneRows) DoneIDs(ctx context.Context, submission string, since time.Time) iter.Seq2[string, error] {
	return d.Lineage.DoneIDs(ctx, lineage.Scope{Submission: submission, Since: since})
}

// Ended implements submit.Lineage.
func (d doneRows) Ended(ctx context.Context, submission string, since time.Time) (ended int64, err error) {
	counts, err := d.Counts(ctx, lineage.Scope{Submission: submission, Since: since})
	for _, c := range counts {
		ended += c.Jobs
	}
	return ended, err
}

// rejectWriter prints the first invalid rows and writes all of them to the errors file, which it creates when there is one.
type rejectWriter struct {
	path  string
	out   io.Writer
	file  *os.File
	rows  *csvfile.ErrorWriter
	count int
}

func (w *rejectWriter) add(bad *csvfile.RowError) error {
	if w.file == nil {
		f, err := os.Create(w.path)
		if err != nil {
			return fmt.Errorf("errors file: %w", err)
		}
		w.file, w.rows = f, csvfile.NewErrorWriter(f)
	}
	w.count++
	if w.count <= maxShownErrors {
		fmt.Fprintln(w.out, bad)
	}
	return w.rows.Write(bad)
}

func (w *rejectWriter) close() error {
	if w.file == nil {
		return nil
	}
	if more := w.count - maxShownErrors; more > 0 {
		fmt.Fprintf(w.out, "… and %d more\n", more)
	}
	if err := errors.Join(w.rows.Flush(), w.file.Close()); err != nil {
		return fmt.Errorf("errors file: %w", err)
	}
	return nil
}

// reportSubmit prints the receipt and turns the submission's error into an exit code.
func (a *app) reportSubmit(f *submitFlags, r *schemas.SubmissionRow, rejects *rejectWriter, err error) error {
	var fileError *csvfile.FileError
	switch {
	case errors.Is(err, submit.ErrInvalidRows):
		err = codeError{fmt.Errorf("%d of %d rows are invalid; nothing was published. %s lists them: mend them, or publish the others with --skip-invalid",
			r.GetRowsRejected(), r.GetRowsRead(), rejects.path), exitInvalid}
	case errors.As(err, &fileError), errors.Is(err, submit.ErrNoJobs), errors.Is(err, submit.ErrBrokenRows):
		err = codeError{err, exitInvalid}
	}
	switch {
	case r == nil:
	case f.json && !f.watch:
		if printing := a.printJSON(r); err == nil {
			err = printing
		}
	case err == nil && !f.json:
		a.printReceipt(f, r, rejects)
	}
	return err
}

func (a *app) printReceipt(f *submitFlags, r *schemas.SubmissionRow, rejects *rejectWriter) {
	verb := "Published"
	if f.dryRun {
		verb = "Dry run: nothing published. Would publish up to"
		r.Published = r.Jobs
	}
	fmt.Fprintf(a.out, "%s %d of %d jobs from %d rows", verb, r.GetPublished(), r.GetJobs(), r.GetRowsRead())
	if n := r.GetBatchJobs(); n > 0 {
		fmt.Fprintf(a.out, ", %d of them for batch", n)
	}
	if n := r.GetAlreadyDone(); n > 0 {
		fmt.Fprintf(a.out, "; %d had ended before", n)
	}
	if n := r.GetRowsRejected(); n > 0 {
		fmt.Fprintf(a.out, "; %d rows rejected, see %s", n, rejects.path)
	}
	fmt.Fprintf(a.out, ".\nSubmission %s, estimated at $%s (prices of %s).\n", r.GetSubmission(), dollars(r.GetEstimatedCostUsd()), r.GetPriceVersion())
}
