package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strconv"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
)

// maxManifestBytes bounds what a manifest's query may read, as the command query does.
const maxManifestBytes = 100 << 30

// assetsSQL lists the assets of a submission, in the order of its files. Tables are asked instead of views for the reasons that
// lineage.Counts has.
const assetsSQL = `
SELECT job_id, asset_uri, source_file, source_row
FROM (
  SELECT job_id, asset_uri, source_file, source_row, variant, outcome
  FROM generations_raw
  WHERE submission = @submission AND finished_at >= @since
  QUALIFY ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY finished_at, received_at, worker) = 1
)
WHERE outcome = 'succeeded' AND asset_uri IS NOT NULL
ORDER BY source_file, source_row, variant, job_id`

// signFlags are the command line of sign.
type signFlags struct {
	ttl        time.Duration
	submission string
	account    string
	json       bool
}

func (a *app) signCommand() *cobra.Command {
	f := &signFlags{}
	cmd := &cobra.Command{
		Use:   "sign [URI...]",
		Short: "Make links that anybody can open images with for some hours",
		Long: fmt.Sprintf(`Make links that anybody who has them can open images with, for %s at most. URIs are gs://bucket/object, as in the column asset_uri.
With --submission it prints a manifest as CSV: a row for each image of the submission, in the order of its files.

Links are signed by Google in the name of a service account (V4, signBlob); no key is needed. The account has to be allowed to read the
images, and whoever runs this, iam.serviceAccounts.signBlob on the account. The local cloud needs no signatures: its links are plain.`, hours(assets.MaxLinkTime)),
		Example: `  assetmill sign gs://my-assets/keep/spring/sku-1.png --ttl 2h
  assetmill sign --submission s-4kq2vzsh7yxgq5iawbnm > links.csv
  assetmill sign --account assetmill-console@my-project.iam.gserviceaccount.com gs://my-assets/keep/spring/sku-1.png`,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) == (f.submission == "") {
				return usageError("name images as gs://bucket/object, or a submission with --submission; see assetmill sign --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.sign(cmd.Context(), f, args) },
	}
	cmd.Flags().DurationVar(&f.ttl, "ttl", time.Hour, fmt.Sprintf("how long links are valid, at most %s", hours(assets.MaxLinkTime)))
	cmd.Flags().StringVar(&f.submission, "submission", "", "print a manifest of all images of this submission")
	cmd.Flags().StringVar(&f.account, "account", "", "service account that signs (default: the one that the credentials are of)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object a link")
	return cmd
}

// signedAsset is one line of what sign prints.
type signedAsset struct {
	JobID      string    `json:"job_id,omitempty"`
	AssetURI   string    `json:"asset_uri"`
	URL        string    `json:"url"`
	Expires    time.Time `json:"expires,omitzero"` // none: it does not
	SourceFile string    `json:"source_file,omitempty"`
	SourceRow  int64     `json:"source_row,omitempty"`
}

func (a *app) sign(ctx context.Context, f *signFlags, uris []string) error {
	if f.ttl < assets.MinLinkTime || f.ttl > assets.MaxLinkTime {
		return usageError("--ttl is %s; allowed: %s to %s, since Google may change the key after that", f.ttl, assets.MinLinkTime, hours(assets.MaxLinkTime))
	}
	for _, uri := range uris {
		if _, _, err := jobs.SplitURI(uri); err != nil {
			return usageError("%q %w", uri, err)
		}
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	c := &closer{}
	defer c.close()
	each, err := a.linker(ctx, f, s, c)
	if err != nil {
		return err
	}
	if f.submission != "" {
		return a.manifest(ctx, f, s, c, each)
	}
	rows := func(yield func(signedAsset, error) bool) {
		for _, uri := range uris {
			if !yield(signedAsset{AssetURI: uri}, nil) {
				return
			}
		}
	}
	return each(rows, func(row signedAsset) error {
		if f.json {
			return a.printLine(row)
		}
		_, err := fmt.Fprintln(a.out, row.URL)
		return err
	})
}

// linker makes links for rows and hands these on, in their order.
type linker func(rows iter.Seq2[signedAsset, error], use func(signedAsset) error) error

func (a *app) linker(ctx context.Context, f *signFlags, s *settings, c *closer) (linker, error) {
	if s.storageLocal {
		return a.plainLinker()
	}
	client, err := s.storageClient(ctx)
	if err != nil {
		return nil, err
	}
	c.add(client.Close)
	signer, err := assets.NewSigner(ctx, client, assets.SignerConfig{Account: f.account})
	if err != nil {
		return nil, err
	}
	return func(rows iter.Seq2[signedAsset, error], use func(signedAsset) error) error {
		return assets.SignEach(ctx, signer, f.ttl, rows, func(row signedAsset) string { return row.AssetURI }, func(row signedAsset, link assets.Link) error {
			row.URL, row.Expires = link.URL, link.Expires
			return use(row)
		})
	}, nil
}

// plainLinker makes links to an emulator, which lets everybody read everything.
func (a *app) plainLinker() (linker, error) {
	base, err := baseURL("STORAGE_EMULATOR_HOST", a.env("STORAGE_EMULATOR_HOST"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(a.err, "The local cloud needs no signatures: these links are plain and don't expire.")
	return func(rows iter.Seq2[signedAsset, error], use func(signedAsset) error) error {
		for row, err := range rows {
			if err != nil {
				return err
			}
			bucket, object, err := jobs.SplitURI(row.AssetURI)
			if err != nil {
				return fmt.Errorf("%s %w", row.AssetURI, err)
			}
			row.URL = base + "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(object) + "?alt=media"
			if err := use(row); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// manifest prints links to all images of a submission.
func (a *app) manifest(ctx context.Context, f *signFlags, s *settings, c *closer, each linker) error {
	if !jobs.ValidID(f.submission) {
		return usageError("%q is no id of a submission", f.submission)
	}
	rows, err := lineage.New(ctx, s.lineageConfig())
	if err != nil {
		return err
	}
	c.add(func() error { return closeLineage(rows) })
	scope, err := a.manifestScope(ctx, f.submission, s)
	if err != nil {
		return err
	}
	counts, err := rows.Counts(ctx, scope)
	if err != nil {
		return err
	}
	var total, done int64
	for _, count := range counts {
		if count.Outcome == string(jobs.Succeeded) {
			total += count.Jobs
		}
	}
	bar := newProgress(a.err)
	defer bar.finish()
	out := a.manifestWriter(f)
	err = each(assetRows(ctx, rows, scope), func(row signedAsset) error {
		done++
		bar.show("signing links", done, total, "")
		return out.write(row)
	})
	bar.finish()
	if err := errors.Join(err, out.flush()); err != nil {
		return fmt.Errorf("%d of %d links were made: %w", done, total, err)
	}
	if done == 0 {
		fmt.Fprintf(a.err, "Submission %s has no images yet.\n", f.submission)
	}
	return nil
}

// manifestScope finds out since when the submission has rows, so that not all days are read.
func (a *app) manifestScope(ctx context.Context, submission string, s *settings) (lineage.Scope, error) {
	scope := lineage.Scope{Submission: submission}
	if submission == jobs.DefaultSubmission {
		return scope, nil // of jobs that producers publish themselves, which have no receipt
	}
	client, err := s.storageClient(ctx)
	if err != nil {
		return scope, err
	}
	defer client.Close()
	receipt, err := ledger.NewReceipts(client, s.workBucket).Receipt(ctx, submission)
	if err != nil {
		return scope, err
	}
	if receipt == nil {
		return scope, errNoSubmission(submission)
	}
	scope.Since = time.UnixMicro(receipt.GetFirstSubmittedAt()).Add(-submit.ClockSkew)
	return scope, nil
}

// assetRows yields the assets of a submission as they come from BigQuery, page by page.
func assetRows(ctx context.Context, l *lineage.Lineage, scope lineage.Scope) iter.Seq2[signedAsset, error] {
	since := scope.Since
	if since.IsZero() {
		since = time.Unix(0, 0)
	}
	return func(yield func(signedAsset, error) bool) {
		rows, err := l.Query(ctx, assetsSQL, maxManifestBytes,
			bigquery.QueryParameter{Name: "submission", Value: scope.Submission}, bigquery.QueryParameter{Name: "since", Value: since.UTC()})
		for err == nil {
			var values []any
			if values, err = rows.Next(); err != nil {
				break
			}
			var row signedAsset
			row.JobID, _ = values[0].(string)
			row.AssetURI, _ = values[1].(string)
			row.SourceFile, _ = values[2].(string)
			row.SourceRow, _ = values[3].(int64)
			if !yield(row, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(signedAsset{}, err)
		}
	}
}

// manifestWriter prints the lines of a manifest.
type manifestWriter struct {
	write func(signedAsset) error
	flush func() error
}

func (a *app) manifestWriter(f *signFlags) manifestWriter {
	if f.json {
		return manifestWriter{func(row signedAsset) error { return a.printLine(row) }, func() error { return nil }}
	}
	out := csv.NewWriter(a.out)
	head := false
	return manifestWriter{
		write: func(row signedAsset) error {
			if !head {
				head = true
				if err := out.Write([]string{"job_id", "asset_uri", "url", "expires", "source_file", "source_row"}); err != nil {
					return err
				}
			}
			expires, line := "", ""
			if !row.Expires.IsZero() {
				expires = row.Expires.UTC().Format(time.RFC3339)
			}
			if row.SourceRow > 0 {
				line = strconv.FormatInt(row.SourceRow, 10)
			}
			return out.Write([]string{row.JobID, row.AssetURI, row.URL, expires, row.SourceFile, line})
		},
		flush: func() error { out.Flush(); return out.Error() },
	}
}

// printLine prints a value as JSON on one line.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
