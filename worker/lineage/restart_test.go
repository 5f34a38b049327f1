package lineage_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"cloud.google.com/go/bigquery"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/worker/lineage"
)

// When BigQuery goes away and comes back, the same Lineage goes on, with all tables, and what was stored is still there.
func TestRestartOfBigQuery(t *testing.T) {
	t.Parallel()
	cfg := localbq.Config{Project: project, Dataset: dataset, File: filepath.Join(t.TempDir(), "bq.db")}
	start := func() *localbq.Server {
		s, err := localbq.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	server := start()
	cfg.RESTAddr, cfg.GRPCAddr = server.RESTURL()[len("http://"):], server.GRPCAddr()
	client, err := bigquery.NewClient(t.Context(), project, server.RESTOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := localbq.EnsureTables(t.Context(), client, project, dataset); err != nil {
		t.Fatal(err)
	}
	l := open(t, lineage.Config{Project: project, Dataset: dataset, REST: server.RESTOptions(), GRPC: server.GRPCOptions()})
	const runs = 2
	for run := range runs {
		id := fmt.Sprintf("job-%d", run)
		if err := l.AppendGeneration(t.Context(), generation(t, "s", id)); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if err := l.AppendAttempt(t.Context(), attempt(t, "s", id, "a", "image")); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		server = start()
	}
	defer server.Close()
	for _, view := range []string{"generations", "attempts"} {
		if got := rows(t, l, "SELECT COUNT(*) FROM "+view+" WHERE submission = @s", "s"); len(got) != 1 || got[0][0] != int64(runs) {
			t.Errorf("%s: %v", view, got)
		}
	}
}
