package lineage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"

	"github.com/assetmill/assetmill/schemas"
)

const (
	writeRole = "roles/bigquery.dataEditor on the dataset"
	// checkTimeout bounds a check, since the client repeats a request that fails with a 5xx for as long as it may.
	checkTimeout = 30 * time.Second
)

// Check says in one sentence for each what would keep rows from being stored: a dataset or a table that does not exist,
// columns that a table lacks, a permission to append to the named tables that is missing. It appends nothing.
func (l *Lineage) Check(ctx context.Context, appends ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, fmt.Errorf("BigQuery did not answer within %s", checkTimeout))
	defer cancel()
	ds := l.client.DatasetInProject(l.cfg.Project, l.cfg.Dataset)
	if _, err := ds.Metadata(ctx); err != nil {
		return fmt.Errorf("lineage dataset %s.%s: %w", l.cfg.Project, l.cfg.Dataset, explain(ctx, err))
	}
	var all []error
	for _, t := range schemas.Tables() {
		if err := checkTable(ctx, ds.Table(t.Name), t); err != nil {
			all = append(all, fmt.Errorf("lineage table %s: %w", l.tableName(t.Name), err))
		}
	}
	if len(all) > 0 {
		return errors.Join(all...)
	}
	for _, a := range l.appenders() {
		if !slices.ContainsFunc(appends, func(table string) bool { return l.tableName(table) == a.table }) {
			continue // this account need not be allowed to
		}
		if _, err := a.open(); err != nil {
			all = append(all, fmt.Errorf("lineage table %s: open its stream: %w", a.table, classify(err).err))
		}
	}
	return errors.Join(all...)
}

func checkTable(ctx context.Context, table *bigquery.Table, t schemas.Table) error {
	meta, err := table.Metadata(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	want, err := bigquery.SchemaFromJSON(t.Schema)
	if err != nil {
		return err
	}
	if drift := drift("", want, meta.Schema); len(drift) > 0 {
		return fmt.Errorf("its schema is not this version's: %s; apply this version's Terraform", strings.Join(drift, ", "))
	}
	return nil
}

// explain turns an error of the REST API into what to do.
func explain(ctx context.Context, err error) error {
	var api *googleapi.Error
	if errors.As(err, &api) {
		switch api.Code {
		case http.StatusNotFound:
			return errors.New("it does not exist; create it with Terraform")
		case http.StatusForbidden, http.StatusUnauthorized:
			return fmt.Errorf("%s is missing: %w", writeRole, err)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// drift lists what would make an append fail: columns of ours that the table lacks or has with another type or mode, and
// required columns that we do not know. Further columns are none of our business.
func drift(prefix string, want, have bigquery.Schema) (all []string) {
	known := map[string]bool{}
	for _, w := range want {
		known[strings.ToLower(w.Name)] = true
		h := column(have, w.Name)
		switch {
		case h == nil:
			all = append(all, fmt.Sprintf("column %s%s is missing", prefix, w.Name))
		case h.Type != w.Type:
			all = append(all, fmt.Sprintf("column %s%s is %s instead of %s", prefix, w.Name, h.Type, w.Type))
		case h.Repeated != w.Repeated:
			all = append(all, fmt.Sprintf("column %s%s is %s instead of %s", prefix, w.Name, mode(h), mode(w)))
		case h.Required && !w.Required:
			all = append(all, fmt.Sprintf("column %s%s is REQUIRED instead of NULLABLE", prefix, w.Name))
		default:
			all = append(all, drift(prefix+w.Name+".", w.Schema, h.Schema)...)
		}
	}
	for _, h := range have {
		if h.Required && !known[strings.ToLower(h.Name)] {
			all = append(all, fmt.Sprintf("column %s%s is REQUIRED and unknown", prefix, h.Name))
		}
	}
	return all
}

// column finds a column as BigQuery does, whatever its case.
func column(schema bigquery.Schema, name string) *bigquery.FieldSchema {
	for _, f := range schema {
		if strings.EqualFold(f.Name, name) {
			return f
		}
	}
	return nil
}

func mode(f *bigquery.FieldSchema) string {
	switch {
	case f.Repeated:
		return "REPEATED"
	case f.Required:
		return "REQUIRED"
	}
	return "NULLABLE"
}
