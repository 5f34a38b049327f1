package localbq

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/googleapi"

	"github.com/assetmill/assetmill/schemas"
)

// EnsureTables creates what is missing: the dataset, the tables of package schemas and its views. A view whose SQL or
// description differs is dropped and created again, so grants belong on the dataset; a table is never changed. It may run any number of times, and against BigQuery itself.
func EnsureTables(ctx context.Context, client *bigquery.Client, project, dataset string) error {
	ds := client.DatasetInProject(project, dataset)
	if _, err := ds.Metadata(ctx); isNotFound(err) {
		err = ds.Create(ctx, &bigquery.DatasetMetadata{})
		if err != nil && !isConflict(err) {
			return fmt.Errorf("create dataset %s.%s: %w", project, dataset, err)
		}
	} else if err != nil {
		return fmt.Errorf("look up dataset %s.%s: %w", project, dataset, err)
	}
	for _, t := range schemas.Tables() {
		if err := ensureTable(ctx, ds.Table(t.Name), t); err != nil {
			return fmt.Errorf("table %s.%s.%s: %w", project, dataset, t.Name, err)
		}
	}
	for _, v := range schemas.Views(project, dataset) {
		if err := ensureView(ctx, ds.Table(v.Name), v); err != nil {
			return fmt.Errorf("view %s.%s.%s: %w", project, dataset, v.Name, err)
		}
	}
	return nil
}

func ensureTable(ctx context.Context, table *bigquery.Table, t schemas.Table) error {
	if _, err := table.Metadata(ctx); !isNotFound(err) {
		return err
	}
	schema, err := bigquery.SchemaFromJSON(t.Schema)
	if err != nil {
		return err
	}
	err = table.Create(ctx, &bigquery.TableMetadata{
		Description:      t.Description,
		Schema:           schema,
		TimePartitioning: &bigquery.TimePartitioning{Type: bigquery.DayPartitioningType, Field: t.PartitionBy},
		Clustering:       &bigquery.Clustering{Fields: t.ClusterBy},
	})
	if isConflict(err) {
		return nil // somebody else was faster
	}
	return err
}

func ensureView(ctx context.Context, table *bigquery.Table, v schemas.View) error {
	meta, err := table.Metadata(ctx)
	switch {
	case isNotFound(err):
		return createView(ctx, table, v)
	case err != nil:
		return err
	case meta.ViewQuery == v.SQL && meta.Description == v.Description:
		return nil
	}
	// Not an update: the emulator would change the view's metadata and go on running the old SQL.
	if err := table.Delete(ctx); err != nil && !isNotFound(err) {
		return err
	}
	return createView(ctx, table, v)
}

func createView(ctx context.Context, table *bigquery.Table, v schemas.View) error {
	err := table.Create(ctx, &bigquery.TableMetadata{ViewQuery: v.SQL, Description: v.Description})
	if isConflict(err) {
		return nil // somebody else was faster
	}
	return err
}

func isNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }
func isConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

func hasStatus(err error, code int) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == code
}
