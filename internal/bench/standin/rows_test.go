package standin

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
)

func appendRequest(t *testing.T, stream string, rows ...proto.Message) *storagepb.AppendRowsRequest {
	t.Helper()
	data := &storagepb.ProtoRows{}
	for _, row := range rows {
		text, err := proto.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		data.SerializedRows = append(data.SerializedRows, text)
	}
	return &storagepb.AppendRowsRequest{
		WriteStream: stream, Rows: &storagepb.AppendRowsRequest_ProtoRows{ProtoRows: &storagepb.AppendRowsRequest_ProtoData{Rows: data}},
	}
}

func TestRowsAreCountedByJob(t *testing.T) {
	t.Parallel()
	b := NewRows()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	storagepb.RegisterBigQueryWriteServer(srv, b)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	row := func(id, outcome string) *schemas.GenerationRow {
		return &schemas.GenerationRow{JobId: id, Outcome: outcome, Reason: "why"}
	}
	for table, requests := range map[string][]*storagepb.AppendRowsRequest{
		"generations_raw": {appendRequest(t, "", row("a", "succeeded"), row("b", "failed")), appendRequest(t, "", row("a", "succeeded"))},
		"attempts_raw":    {appendRequest(t, "", &schemas.AttemptRow{JobId: "c"})},
	} {
		stream, err := storagepb.NewBigQueryWriteClient(conn).AppendRows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		requests[0].WriteStream = "projects/p/datasets/d/tables/" + table + "/streams/_default"
		for _, req := range requests {
			if err := stream.Send(req); err != nil {
				t.Fatal(err)
			}
			if resp, err := stream.Recv(); err != nil || resp.GetAppendResult() == nil {
				t.Fatalf("%v: %v", resp, err)
			}
		}
	}
	if got := b.Stats(); got != (RowsStats{Rows: 4, Requests: 3, Jobs: 2, Succeeded: 1, Repeated: 1, Reason: "failed: why"}) {
		t.Errorf("counted %+v", got)
	}
	if b.Jobs.Count() != 2 {
		t.Errorf("%d jobs", b.Jobs.Count())
	}
}

func TestRowsServeTheRESTClient(t *testing.T) {
	t.Parallel()
	b := NewRows()
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	client, err := bigquery.NewClient(t.Context(), "p", option.WithEndpoint(srv.URL), option.WithHTTPClient(http.DefaultClient))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	ds := client.Dataset("d")
	if _, err := ds.Metadata(t.Context()); err != nil {
		t.Error(err)
	}
	for _, table := range schemas.Tables() {
		if meta, err := ds.Table(table.Name).Metadata(t.Context()); err != nil || len(meta.Schema) == 0 {
			t.Errorf("%s: %v", table.Name, err)
		}
	}
	if _, err := ds.Table("other").Metadata(t.Context()); err == nil || !strings.Contains(err.Error(), "Not found") {
		t.Errorf("an unknown table: %v", err)
	}
	type naiveRow struct {
		JobID   string `bigquery:"job_id"`
		Outcome string `bigquery:"outcome"`
	}
	if err := ds.Table("generations_raw").Inserter().Put(t.Context(), []naiveRow{{"a", "succeeded"}, {"b", "succeeded"}}); err != nil {
		t.Error(err)
	}
	if got := b.Stats(); got != (RowsStats{Rows: 2, Requests: 1, Jobs: 2, Succeeded: 2}) {
		t.Errorf("counted %+v", got)
	}
}
