package lineage_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/lineage"
)

const (
	project = "lineage-test"
	dataset = "lineage"
)

// env is what TestMain starts once: the emulator takes a while to come up.
type env struct {
	server *localbq.Server
	client *bigquery.Client
	names  atomic.Int64
}

var shared env

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if shared.server, err = localbq.Start(ctx, localbq.Config{Project: project, Dataset: dataset}); err != nil {
		log.Print(err)
		return 1
	}
	defer shared.server.Close()
	if shared.client, err = bigquery.NewClient(ctx, project, shared.server.RESTOptions()...); err == nil {
		err = localbq.EnsureTables(ctx, shared.client, project, dataset)
	}
	if err != nil {
		log.Print(err)
		return 1
	}
	return m.Run()
}

// unique returns a name that no other test uses: all share the tables.
func unique(prefix string) string { return fmt.Sprintf("%s-%d", prefix, shared.names.Add(1)) }

func open(t *testing.T, cfg lineage.Config) *lineage.Lineage {
	t.Helper()
	l, err := lineage.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// local returns a Lineage on the shared emulator.
func local(t *testing.T) *lineage.Lineage {
	t.Helper()
	return open(t, lineage.Config{
		Project: project, Dataset: dataset,
		REST: shared.server.RESTOptions(), GRPC: shared.server.GRPCOptions(),
	})
}

func micros(t testing.TB, text string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMicro()
}

// generation returns a row of a job that succeeded.
func generation(t testing.TB, submission, job string) *schemas.GenerationRow {
	t.Helper()
	return &schemas.GenerationRow{
		JobId: job, Submission: submission, Campaign: "spring", Model: "gemini-3-pro-image", Tier: "standard", Lane: "global-standard",
		Prompt: "A \"quoted\" 'näive' prompt\nwith lines\\ and a back slash", Outcome: "succeeded", Reason: "image",
		Labels:     []*schemas.KeyValue{{Key: "season", Value: "spring"}, {Key: "vip"}},
		Source:     []*schemas.KeyValue{{Key: "sku", Value: "4711"}},
		References: []string{"gs://brand/logo.png"},
		CostUsd:    "0.134400000", Attempts: proto.Int64(1), Throttled: proto.Int64(0), CostIsFallback: proto.Bool(false),
		Seed: proto.Int64(0), FinishedAt: micros(t, "2026-11-23T10:00:00.123456Z"),
		AssetUri: "gs://assets/keep/spring/" + job + ".png", Worker: "w1",
	}
}

func attempt(t *testing.T, submission, job, call, result string) *schemas.AttemptRow {
	t.Helper()
	row := &schemas.AttemptRow{
		AttemptId: job + "/" + call, JobId: job, Submission: submission, Campaign: "spring", Model: "gemini-3-pro-image",
		Lane: "global-standard", Tier: "standard", Result: result, CostUsd: "0", CallMs: proto.Int64(9000), EndedAt: micros(t, "2026-11-23T10:00:00Z"),
	}
	if result == "image" {
		row.CostUsd = "0.1344"
	}
	return row
}

// rows runs a query and returns its rows as JSON-like values.
func rows(t *testing.T, l *lineage.Lineage, sql, submission string) [][]any {
	t.Helper()
	result, err := l.Query(t.Context(), sql, 0, bigquery.QueryParameter{Name: "s", Value: submission})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all(t, result)
}
