package vertex

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	simd "github.com/segmentio/asm/base64"

	"github.com/assetmill/assetmill/internal/blob"
)

// BenchmarkScanner takes an image out of an answer, as a call does, in reads of one TLS record. The metric `x-floor` is its
// time divided by that of decoding the same base64 in memory in the same run.
func BenchmarkScanner(b *testing.B) {
	for _, size := range []int{3 << 19, 6 << 20} {
		for _, form := range []string{"plain", "escaped"} {
			b.Run(fmt.Sprintf("%s/%.1fMiB", form, float64(size)/(1<<20)), func(b *testing.B) { benchmarkScanner(b, size, form == "escaped") })
		}
	}
}

func benchmarkScanner(b *testing.B, size int, escaped bool) {
	image := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(image)
	b64 := []byte(base64.StdEncoding.EncodeToString(image))
	text := b64
	if escaped {
		text = bytes.ReplaceAll(b64, []byte("/"), []byte(`\/`))
	}
	doc := append([]byte(`{"candidates":[{"content":{"role":"model","parts":[{"inlineData":{"mimeType":"image/png","data":"`), text...)
	doc = append(doc, `"}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":12},"modelVersion":"m"}`...)
	budget := blob.NewBudget(64 << 20)
	buffers := new(buffers)
	out := make([]byte, size+3)

	var floor time.Duration
	b.SetBytes(int64(size))
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		if _, err := simd.StdEncoding.Decode(out, b64); err != nil {
			b.Fatal(err)
		}
		floor += time.Since(start)
		b.StartTimer()

		c := &capture{decoder: &buffers.decoder}
		c.reserve = func() (*blob.Blob, error) { return budget.Reserve(b.Context(), int64(size), maxImageBytes) }
		s := &scanner{sink: c}
		for rest := doc; len(rest) > 0; {
			n := copy(buffers.read[:16<<10], rest)
			rest = rest[n:]
			if _, err := s.Write(buffers.read[:n]); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Close(); err != nil || c.blob.Len() != int64(size) {
			b.Fatal(err)
		}
		c.release()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(floor), "x-floor")
}
