package standin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
)

// RowsStats is what was said of jobs.
type RowsStats struct {
	Rows      int `json:"rows"`      // of any table
	Requests  int `json:"requests"`  // that brought them
	Jobs      int `json:"jobs"`      // that have ended
	Succeeded int `json:"succeeded"` // of these, the ones with an image
	Repeated  int `json:"repeated"`  // rows of jobs that had ended
	// Reason is that of the last job that ended without an image.
	Reason string `json:"reason,omitempty"`
}

// Rows is BigQuery as far as lineage needs it: the Storage Write API's default stream by gRPC, and by REST the metadata of the dataset and the
// tables, and insertAll. Rows are counted, and dropped.
type Rows struct {
	storagepb.UnimplementedBigQueryWriteServer
	Jobs Meter // that have ended

	mu    sync.Mutex
	ended map[string]bool
	stats RowsStats
}

// NewRows returns a place without rows.
func NewRows() *Rows { return &Rows{ended: map[string]bool{}} }

// Stats returns what was said of jobs.
func (b *Rows) Stats() RowsStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

// end is how a job ended, as a row says.
type end struct {
	JobID   string `json:"job_id"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// take counts the rows of one request; ends has those of them that end jobs.
func (b *Rows) take(rows int, ends []end) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Rows += rows
	b.stats.Requests++
	for _, e := range ends {
		if b.ended[e.JobID] {
			b.stats.Repeated++
			continue
		}
		b.ended[e.JobID] = true
		b.stats.Jobs++
		if e.Outcome == "succeeded" {
			b.stats.Succeeded++
		} else {
			b.stats.Reason = e.Outcome + ": " + e.Reason
		}
		b.Jobs.Add(1)
	}
}

// GetWriteStream implements storagepb.BigQueryWriteServer.
func (b *Rows) GetWriteStream(_ context.Context, req *storagepb.GetWriteStreamRequest) (*storagepb.WriteStream, error) {
	return &storagepb.WriteStream{Name: req.GetName()}, nil
}

// generations is in the name of the stream of the table that has a row for each job's end.
const generations = "/tables/generations"

// AppendRows implements storagepb.BigQueryWriteServer.
func (b *Rows) AppendRows(stream storagepb.BigQueryWrite_AppendRowsServer) error {
	var name string // only the first request of a stream need have it
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetWriteStream() != "" {
			name = req.GetWriteStream()
		}
		rows := req.GetProtoRows().GetRows().GetSerializedRows()
		var ends []end
		if strings.Contains(name, generations) {
			if ends, err = readEnds(rows); err != nil {
				return err
			}
		}
		b.take(len(rows), ends)
		err = stream.Send(&storagepb.AppendRowsResponse{
			WriteStream: name,
			Response:    &storagepb.AppendRowsResponse_AppendResult_{AppendResult: &storagepb.AppendRowsResponse_AppendResult{}},
		})
		if err != nil {
			return err
		}
	}
}

func readEnds(rows [][]byte) ([]end, error) {
	ends := make([]end, 0, len(rows))
	for _, data := range rows {
		var row schemas.GenerationRow
		if err := proto.Unmarshal(data, &row); err != nil {
			return nil, fmt.Errorf("row: %w", err)
		}
		ends = append(ends, end{row.GetJobId(), row.GetOutcome(), row.GetReason()})
	}
	return ends, nil
}

var tablePath = regexp.MustCompile(`/projects/([^/]+)/datasets/([^/]+)(?:/tables/([^/]+)(/insertAll)?)?$`)

// ServeHTTP serves the REST API.
func (b *Rows) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := tablePath.FindStringSubmatch(r.URL.Path)
	switch {
	case m == nil:
		http.NotFound(w, r)
	case m[4] != "":
		b.insertAll(w, r, m[3])
	case m[3] != "":
		describeTable(w, m[1], m[2], m[3])
	default:
		writeJSON(w, http.StatusOK, map[string]any{
			"kind": "bigquery#dataset", "datasetReference": map[string]string{"projectId": m[1], "datasetId": m[2]},
		})
	}
}

func describeTable(w http.ResponseWriter, project, dataset, table string) {
	for _, t := range schemas.Tables() {
		if t.Name == table {
			writeJSON(w, http.StatusOK, map[string]any{
				"kind": "bigquery#table", "tableReference": map[string]string{"projectId": project, "datasetId": dataset, "tableId": table},
				"schema": map[string]any{"fields": json.RawMessage(t.Schema)},
			})
			return
		}
	}
	writeJSON(w, http.StatusNotFound, map[string]any{"error": map[string]any{"code": http.StatusNotFound, "message": "Not found: Table " + table}})
}

// insertAll takes rows as JSON.
func (b *Rows) insertAll(w http.ResponseWriter, r *http.Request, table string) {
	var req struct {
		Rows []struct {
			JSON end `json:"json"`
		} `json:"rows"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var ends []end
	if strings.Contains("/tables/"+table, generations) {
		for _, row := range req.Rows {
			ends = append(ends, row.JSON)
		}
	}
	b.take(len(req.Rows), ends)
	writeJSON(w, http.StatusOK, map[string]string{"kind": "bigquery#tableDataInsertAllResponse"})
}
