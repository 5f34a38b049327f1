package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/bigquery/v2"

	"github.com/assetmill/assetmill/schemas"
)

func (x *exam) tfTable(name string) string { return `google_bigquery_table.this["` + name + `"]` }

// createTable is the command that creates a table.
func (x *exam) createTable(t schemas.Table) string {
	return line("bq", "mk", "--table", "--schema=schemas/bigquery/"+t.SchemaFile, "--time_partitioning_type=DAY", "--time_partitioning_field="+t.PartitionBy,
		"--clustering_fields="+strings.Join(t.ClusterBy, ","), x.id(t.Name))
}

// rebuild is the fix of what can't be changed in a table: its rows are kept under another name.
func (x *exam) rebuild(t schemas.Table) Fix {
	sql := fmt.Sprintf("ALTER TABLE `%s.%s.%s` RENAME TO `%s_before`", x.cfg.Project, x.cfg.Dataset, t.Name, t.Name)
	return Fix{
		Command:   line("bq", "query", "--project_id="+x.cfg.Project, "--use_legacy_sql=false", sql) + " && " + x.createTable(t),
		Terraform: x.tfTable(t.Name),
		Note:      "Stop the workers first. Then copy the rows from " + t.Name + "_before with INSERT ... SELECT.",
	}
}

func (a *area) checkTable(ctx context.Context, t schemas.Table, have *bigquery.Table, err error) {
	at := place{kind: onTable, name: t.Name}.String()
	switch f, _ := classify(err); {
	case f == missing:
		a.gone[at] = true
		a.fail(idTableMissing, Error, at, sentence("It does not exist in dataset %s: its rows can't be stored, and no job ends", a.cfg.Dataset), Fix{Command: a.createTable(t), Terraform: a.tfTable(t.Name)})
		return
	case f == denied:
		a.limited(at, "its columns are not checked.", Fix{Command: a.grant(place{kind: onDataset, name: a.cfg.Dataset}, metadataViewer, a.member()), Terraform: tfDatasetGrants})
		return
	case err != nil:
		a.trouble(ctx, bigqueryAPI, at, err)
		return
	}
	a.pass(idTableMissing, at, "It exists.")
	a.checkColumns(t, have)
	if a.cfg.Local.BigQuery {
		return
	}
	a.checkLayout(t, have)
	if have.ExpirationTime > 0 {
		a.fail(idTableExpires, Error, at, sentence("It expires, with all its rows, at %s", time.UnixMilli(have.ExpirationTime).UTC().Format(time.DateTime)),
			Fix{Command: line("bq", "update", "--expiration=0", a.id(t.Name)), Terraform: a.tfTable(t.Name)})
	} else {
		a.pass(idTableExpires, at, "It does not expire.")
	}
}

// columnDrift is how a table's columns differ from this version's.
type columnDrift struct {
	lacking []string // that the table lacks, and that can be added
	wrong   []string // that can't be changed into what they should be
	strict  []string // that need only be made nullable, by name in SQL
	more    []string // that do no harm
}

func (a *area) checkColumns(t schemas.Table, have *bigquery.Table) {
	at := place{kind: onTable, name: t.Name}.String()
	var want []*bigquery.TableFieldSchema
	if err := json.Unmarshal(t.Schema, &want); err != nil {
		panic(fmt.Sprintf("doctor: embedded schema of %s: %v", t.Name, err)) // generated with the program
	}
	var fields []*bigquery.TableFieldSchema
	if have.Schema != nil {
		fields = have.Schema.Fields
	}
	d := &columnDrift{}
	d.compare("", want, fields)
	switch {
	case len(d.wrong) > 0:
		a.fail(idTableColumns, Error, at, sentence("Its columns are not this version's, so rows are refused: %s", enumerate(slices.Concat(d.wrong, d.lacking, d.strict))), a.rebuild(t))
	case len(d.lacking) > 0:
		a.fail(idTableColumns, Error, at, sentence("Its columns are not this version's, so rows are refused: %s", enumerate(slices.Concat(d.lacking, d.strict))),
			Fix{Command: line("bq", "update", a.id(t.Name), "schemas/bigquery/"+t.SchemaFile), Terraform: a.tfTable(t.Name)})
	case len(d.strict) > 0:
		a.fail(idTableColumns, Error, at, sentence("Its columns are not this version's, so rows are refused: %s", enumerate(d.strict)),
			Fix{Command: line("bq", "update", a.id(t.Name), "schemas/bigquery/"+t.SchemaFile), Terraform: a.tfTable(t.Name)})
	default:
		a.pass(idTableColumns, at, sentence("It has all %d columns", len(want)))
	}
	if len(d.more) > 0 {
		a.fail(idTableColumns, Info, at, sentence("It differs from this version's in what does no harm: %s", enumerate(d.more)), Fix{})
	}
}

// compare goes through columns and the fields of records.
func (d *columnDrift) compare(prefix string, want, have []*bigquery.TableFieldSchema) {
	for _, w := range want {
		h := column(have, w.Name)
		name := prefix + w.Name
		switch {
		case h == nil && mode(w) == "REQUIRED":
			d.wrong = append(d.wrong, "column "+name+" is missing, and one that is REQUIRED can't be added")
		case h == nil:
			d.lacking = append(d.lacking, "column "+name+" is missing ("+mode(w)+" "+typeOf(w)+")")
		case typeOf(h) != typeOf(w):
			d.wrong = append(d.wrong, "column "+name+" is "+typeOf(h)+" instead of "+typeOf(w))
		case (mode(h) == "REPEATED") != (mode(w) == "REPEATED"):
			d.wrong = append(d.wrong, "column "+name+" is "+mode(h)+" instead of "+mode(w))
		default:
			if mode(h) == "REQUIRED" && mode(w) == "NULLABLE" {
				d.strict = append(d.strict, "column "+name+" is REQUIRED instead of NULLABLE")
			} else if mode(h) != mode(w) {
				d.more = append(d.more, "column "+name+" is "+mode(h)+" instead of "+mode(w))
			}
			d.compare(name+".", w.Fields, h.Fields)
		}
	}
	for _, h := range have {
		switch {
		case column(want, h.Name) != nil:
		case mode(h) == "REQUIRED":
			d.wrong = append(d.wrong, "column "+prefix+h.Name+" is REQUIRED and unknown")
		default:
			d.more = append(d.more, "column "+prefix+h.Name+" is unknown")
		}
	}
}

// column finds a column as BigQuery does, whatever its case.
func column(all []*bigquery.TableFieldSchema, name string) *bigquery.TableFieldSchema {
	for _, f := range all {
		if strings.EqualFold(f.Name, name) {
			return f
		}
	}
	return nil
}

func mode(f *bigquery.TableFieldSchema) string {
	if f.Mode == "" {
		return "NULLABLE"
	}
	return strings.ToUpper(f.Mode)
}

// typeOf returns a column's type by one of its two names, and with its bounds, if it has any.
func typeOf(f *bigquery.TableFieldSchema) string {
	name := strings.ToUpper(f.Type)
	switch name {
	case "INT64":
		name = "INTEGER"
	case "FLOAT64":
		name = "FLOAT"
	case "BOOL":
		name = "BOOLEAN"
	case "STRUCT":
		name = "RECORD"
	}
	if f.MaxLength > 0 {
		name += fmt.Sprintf("(%d)", f.MaxLength)
	}
	if f.Precision > 0 {
		name += fmt.Sprintf("(%d,%d)", f.Precision, f.Scale)
	}
	return name
}

func (a *area) checkLayout(t schemas.Table, have *bigquery.Table) {
	at := place{kind: onTable, name: t.Name}.String()
	by := "nothing"
	if p := have.TimePartitioning; p != nil {
		by = p.Type + " of " + p.Field
		if p.Field == "" {
			by = p.Type + " of the time that rows come in"
		}
	}
	right := true
	if want := "DAY of " + t.PartitionBy; by != want {
		right = false
		a.fail(idTableLayout, Warning, at, sentence("It is partitioned by %s instead of %s: questions about some days read all of it", by, want), a.rebuild(t))
	}
	if have.RequirePartitionFilter {
		right = false
		a.fail(idTableLayout, Warning, at, "It requires a filter on its partitions, so the views, which read all days, fail.",
			Fix{Command: line("bq", "update", "--norequire_partition_filter", a.id(t.Name)), Terraform: a.tfTable(t.Name)})
	}
	var clusters []string
	if have.Clustering != nil {
		clusters = have.Clustering.Fields
	}
	if !slices.Equal(clusters, t.ClusterBy) {
		right = false
		a.fail(idTableLayout, Warning, at, sentence("It is clustered by %s instead of %s: questions about one campaign or model read more than they need", orNothing(clusters), strings.Join(t.ClusterBy, ", ")),
			Fix{Command: line("bq", "update", "--clustering_fields="+strings.Join(t.ClusterBy, ","), a.id(t.Name)), Terraform: a.tfTable(t.Name)})
	}
	if right {
		a.pass(idTableLayout, at, sentence("It is partitioned by day of %s and clustered by %s", t.PartitionBy, strings.Join(t.ClusterBy, ", ")))
	}
}

func orNothing(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
