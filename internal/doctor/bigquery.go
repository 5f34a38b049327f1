package doctor

import (
	"context"
	"strings"
	"time"

	"google.golang.org/api/bigquery/v2"

	"github.com/assetmill/assetmill/schemas"
)

const bigqueryAPI = "bigquery.googleapis.com"

func (a *area) checkBigQuery(ctx context.Context) {
	if !a.checkDataset(ctx) {
		return
	}
	tables := schemas.Tables()
	found, errs := a.lookAtTables(ctx, len(tables), func(i int) string { return tables[i].Name })
	for i, t := range tables {
		a.checkTable(ctx, t, found[i], errs[i])
	}
	a.checkViews(ctx)
	if !a.cfg.Local.BigQuery {
		a.checkNeeds(ctx, onDataset, onTable)
	}
}

// lookAtTables looks at tables or views.
func (a *area) lookAtTables(ctx context.Context, n int, name func(i int) string) ([]*bigquery.Table, []error) {
	found, errs := make([]*bigquery.Table, n), make([]error, n)
	each(n, func(i int) {
		ctx, done := look(ctx)
		defer done()
		found[i], errs[i] = a.bigquery.Tables.Get(a.cfg.Project, a.cfg.Dataset, name(i)).Context(ctx).Do()
	})
	return found, errs
}

// id is what bq calls a table.
func (x *exam) id(table string) string { return x.cfg.Project + ":" + x.cfg.Dataset + "." + table }

const tfDataset = "google_bigquery_dataset.lineage"

// checkDataset reports whether the dataset can be looked into.
func (a *area) checkDataset(ctx context.Context) bool {
	at := place{kind: onDataset, name: a.cfg.Dataset}
	lookCtx, done := look(ctx)
	defer done()
	d, err := a.bigquery.Datasets.Get(a.cfg.Project, a.cfg.Dataset).Context(lookCtx).Do()
	home := a.facts.buckets[a.cfg.Bucket].region()
	switch f, _ := classify(err); {
	case f == missing:
		words := []string{"bq", "mk", "--dataset"}
		if home != "" {
			words = append(words, "--location="+home)
		}
		a.fail(idDatasetMissing, Error, at.String(), sentence("It does not exist in project %s: no job can end", a.cfg.Project),
			Fix{Command: line(append(words, a.cfg.Project+":"+a.cfg.Dataset)...), Terraform: tfDataset, Note: "Tables and views have to be made as well."})
		return false
	case f == denied:
		a.fail(idPermission, Error, at.String(), "bigquery.datasets.get is missing: neither workers nor commands start, since they can't check the tables.",
			Fix{Command: a.grant(at, metadataViewer, a.member()), Terraform: tfDatasetGrants})
		return false
	case err != nil:
		a.trouble(ctx, bigqueryAPI, at.String(), err)
		return false
	}
	a.pass(idDatasetMissing, at.String(), sentence("It exists, in %s", d.Location))
	if a.cfg.Local.BigQuery {
		return true
	}
	if where := strings.ToLower(d.Location); home != "" {
		if contains(where, home) || contains(home, where) {
			a.pass(idDatasetLocation, at.String(), "It is where the assets are.")
		} else {
			a.fail(idDatasetLocation, Warning, at.String(), sentence("It is in %s and the assets are in %s: prompts rest in both, and no table of the objects can be made", where, home),
				Fix{Command: line("bq", "mk", "--dataset", "--location="+home, a.cfg.Project+":"+a.cfg.Dataset+"_"+strings.ReplaceAll(home, "-", "_")), Terraform: "variable region",
					Note: "A dataset can't be moved: make another one, with its tables, and point ASSETMILL_DATASET to it."})
		}
	}
	if ms := d.DefaultTableExpirationMs; ms > 0 {
		a.fail(idTableExpires, Warning, at.String(), sentence("Tables that are made in it expire after %s", days(time.Duration(ms)*time.Millisecond)),
			Fix{Command: line("bq", "update", "--default_table_expiration=0", a.cfg.Project+":"+a.cfg.Dataset), Terraform: tfDataset, Note: "In the BigQuery sandbox, which has no billing, this can't be changed."})
	}
	return true
}
