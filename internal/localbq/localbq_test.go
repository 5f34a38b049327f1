package localbq_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/schemas"
)

const (
	project = "local-test"
	dataset = "lineage"
)

func start(t *testing.T, ctx context.Context, file string) (*localbq.Server, *bigquery.Client) {
	t.Helper()
	s, err := localbq.Start(ctx, localbq.Config{Project: project, Dataset: dataset, File: file})
	if err != nil {
		t.Fatal(err)
	}
	client, err := bigquery.NewClient(ctx, project, s.RESTOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

// The tables and views are made once, found again after a restart, and a view that changed is replaced.
func TestEnsureTablesSurvivesRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	file := filepath.Join(t.TempDir(), "bq.db")
	s, client := start(t, ctx, file)
	if err := localbq.EnsureTables(ctx, client, project, dataset); err != nil {
		t.Fatal(err)
	}
	old := client.Dataset(dataset).Table("paid_twice")
	if err := old.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := old.Create(ctx, &bigquery.TableMetadata{ViewQuery: "SELECT 1 AS one"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, client = start(t, ctx, file)
	defer s.Close()
	for range 2 {
		if err := localbq.EnsureTables(ctx, client, project, dataset); err != nil {
			t.Fatal(err)
		}
	}
	ds := client.Dataset(dataset)
	for _, v := range schemas.Views(project, dataset) {
		meta, err := ds.Table(v.Name).Metadata(ctx)
		if err != nil || meta.ViewQuery != v.SQL || meta.Description != v.Description {
			t.Errorf("view %s: %v, %+v", v.Name, err, meta)
		}
	}
	for _, table := range schemas.Tables() {
		meta, err := ds.Table(table.Name).Metadata(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want, err := bigquery.SchemaFromJSON(table.Schema)
		if err != nil {
			t.Fatal(err)
		}
		compareSchemas(t, table.Name, want, meta.Schema)
		if meta.TimePartitioning == nil || meta.TimePartitioning.Field != table.PartitionBy {
			t.Errorf("%s is partitioned by %+v", table.Name, meta.TimePartitioning)
		}
	}
}

func compareSchemas(t *testing.T, at string, want, have bigquery.Schema) {
	t.Helper()
	if len(want) != len(have) {
		t.Fatalf("%s has %d columns instead of %d", at, len(have), len(want))
	}
	for i, w := range want {
		h := have[i]
		if h.Name != w.Name || h.Type != w.Type || h.Repeated != w.Repeated || h.Required != w.Required || h.Description != w.Description {
			t.Errorf("%s: column %+v instead of %+v", at, h, w)
		}
		compareSchemas(t, at+"."+w.Name, w.Schema, h.Schema)
	}
}

func TestStartRefusesAnAddressInUse(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, _ := start(t, ctx, "")
	defer s.Close()
	for name, cfg := range map[string]localbq.Config{
		"grpc": {Project: project, Dataset: dataset, GRPCAddr: s.GRPCAddr()},
		"rest": {Project: project, Dataset: dataset, RESTAddr: s.RESTURL()[len("http://"):]},
	} {
		if second, err := localbq.Start(ctx, cfg); err == nil {
			t.Errorf("%s: started on an address in use: %v", name, second.Close())
		}
	}
}
