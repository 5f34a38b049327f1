package vertextest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assetmill/assetmill/internal/vertextest"
)

// countingWriter is an object that is thrown away.
type countingWriter struct{ n int64 }

func (c *countingWriter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }
func (c *countingWriter) Close() error                { return nil }

// BenchmarkBatchRows measures how fast a job exports rows, without storage.
func BenchmarkBatchRows(b *testing.B) {
	for _, bc := range []struct {
		name  string
		bytes int
	}{{"small", 0}, {"1.5MB", 1_500_000}, {"6MiB", 6 << 20}} {
		b.Run(bc.name, func(b *testing.B) {
			var out countingWriter
			var input bytes.Buffer
			for i := range b.N {
				fmt.Fprintf(&input, "{\"request\":%s}\n", rowRequest(i, fmt.Sprintf("Lighthouse %d %0512d", i, 0)))
			}
			s, err := vertextest.Start(vertextest.Config{
				PlainPictures: true, ImageBytes: bc.bytes, CallLog: io.Discard,
				OpenObject: func(context.Context, string, string) (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(input.Bytes())), nil
				},
				CreateObject: func(context.Context, string, string, string) (io.WriteCloser, error) { return &out, nil },
				Batch:        vertextest.Batch{SpoolDir: b.TempDir()},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			body, err := protojson.Marshal(batchRequest("x", nil))
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			resp, err := http.Post(s.URL()+"/v1/"+batchParent+"/batchPredictionJobs", "application/json", bytes.NewReader(body))
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatal(resp, err)
			}
			resp.Body.Close()
			for s.BatchJobs()[0].Ended.IsZero() {
				<-time.After(time.Millisecond)
			}
			b.StopTimer()
			if job := s.BatchJobs()[0]; job.Exported != b.N {
				b.Fatalf("%+v", job)
			}
			b.SetBytes(out.n / int64(b.N))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
