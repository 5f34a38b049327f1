package lineage_test

import (
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/lineage"
)

// callers is how many appends wait at a time: about what a worker at its peak of 250 jobs a second has under way.
const callers = 250

// BenchmarkAppend measures rows a second into the emulator, which is what bounds the local cloud.
func BenchmarkAppend(b *testing.B) {
	l, err := lineage.New(b.Context(), lineage.Config{
		Project: project, Dataset: dataset, REST: shared.server.RESTOptions(), GRPC: shared.server.GRPCOptions(),
	})
	if err != nil {
		b.Fatal(err)
	}
	benchmarkAppend(b, l)
}

// BenchmarkAppendWithoutBigQuery measures our own part: a service that accepts everything at once.
func BenchmarkAppendWithoutBigQuery(b *testing.B) {
	f := &faulty{stored: map[string]int{}, decide: func(int, []string) (*storagepb.AppendRowsResponse, bool, error) { return accepted(), false, nil }}
	l, err := lineage.New(b.Context(), listen(b, f))
	if err != nil {
		b.Fatal(err)
	}
	benchmarkAppend(b, l)
}

func benchmarkAppend(b *testing.B, l *lineage.Lineage) {
	defer l.Close(b.Context())
	rows := make(chan *schemas.GenerationRow)
	failures := make(chan error, callers)
	for range callers {
		go func() {
			var failed error
			for row := range rows {
				if err := l.AppendGeneration(b.Context(), row); err != nil {
					failed = err
				}
			}
			failures <- failed
		}()
	}
	began := time.Now()
	for i := range b.N {
		rows <- generation(b, "bench", fmt.Sprintf("bench-%d", i))
	}
	close(rows)
	for range callers {
		if err := <-failures; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "rows/s")
}
