package vertex

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	simd "github.com/segmentio/asm/base64"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/worker"
)

// BenchmarkRows reads an output of many rows from a file. The metric `of-floor` is its best speed divided by the best of a loop
// that reads the same file, decodes the same base64 with the same decoder and writes it to io.Discard, in the same run.
func BenchmarkRows(b *testing.B) {
	for _, size := range []int{1_500_000, 6_000_000} {
		b.Run(fmt.Sprintf("%.1fMB", float64(size)/1e6), func(b *testing.B) { benchmarkRows(b, size) })
	}
}

// benchFileBytes is the size of the output: enough rows to matter, and little enough for the page cache.
const benchFileBytes = 64 << 20

func benchmarkRows(b *testing.B, size int) {
	pixels := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(pixels)
	copy(pixels, pngImage(b, 1024, 1024))
	encoded := base64.StdEncoding.EncodeToString(pixels)
	request, err := encodeRequest(newJob(b, nil), "012", "345")
	if err != nil {
		b.Fatal(err)
	}
	head := `{"status":"","processed_time":"2026-11-23T10:00:00.000+00:00","request":` + string(request) + `,"response":{"candidates":[{"content":{"parts":[{"inlineData":{"data":"`
	tail := `","mimeType":"image/png"}}],"role":"model"},"finishReason":"STOP"}],"modelVersion":"gemini-3-pro-image","responseId":"r-1","usageMetadata":` + usageJSON + "}}\n"
	line := head + encoded + tail
	rows := benchFileBytes / len(line)
	name := filepath.Join(b.TempDir(), "predictions.jsonl")
	if err := os.WriteFile(name, bytes.Repeat([]byte(line), rows), 0o600); err != nil {
		b.Fatal(err)
	}
	format := NewBatchFormat(blob.NewBudget(256 << 20))

	// The best of each: the machine may be busy with other things.
	floor, ours := time.Hour, time.Hour
	b.SetBytes(int64(rows) * int64(len(line)))
	for b.Loop() {
		b.StopTimer()
		file := openBench(b, name)
		start := time.Now()
		if err := benchFloor(file, len(head), len(encoded), len(tail)); err != nil {
			b.Fatal(err)
		}
		floor = min(floor, time.Since(start))
		file.Close()
		file = openBench(b, name)
		b.StartTimer()
		start = time.Now()

		n := 0
		err := format.Rows(b.Context(), file, 0, benchFileBytes, func(row worker.OutputRow) error {
			if row.Answer == nil || row.Answer.Image.Blob.Len() != int64(size) {
				return fmt.Errorf("row %+v", row)
			}
			n++
			row.Answer.Image.Blob.Release()
			return nil
		})
		if err != nil || n != rows {
			b.Fatalf("%d rows of %d, %v", n, rows, err)
		}
		b.StopTimer()
		ours = min(ours, time.Since(start))
		file.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(floor)/float64(ours), "of-floor")
	b.ReportMetric(benchFileBytes/1e6/ours.Seconds(), "best-MB/s")
}

func openBench(b *testing.B, name string) *os.File {
	b.Helper()
	file, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// benchFloor reads a file of equal lines and decodes the base64 in each, which it knows the place of.
func benchFloor(r io.Reader, head, length, tail int) error {
	buf := make([]byte, rowsReadSize)
	out := make([]byte, rowsReadSize)
	for {
		if _, err := io.ReadFull(r, buf[:head]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for left := length; left > 0; {
			n := min(left, len(buf))
			if _, err := io.ReadFull(r, buf[:n]); err != nil {
				return err
			}
			left -= n
			m, err := simd.StdEncoding.Decode(out, buf[:n])
			if err != nil {
				return err
			}
			if _, err := io.Discard.Write(out[:m]); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(r, buf[:tail]); err != nil {
			return err
		}
	}
}

// BenchmarkBatchLine makes the line of a job, and its hash.
func BenchmarkBatchLine(b *testing.B) {
	f, j := NewBatchFormat(nil), newJob(b, nil)
	for b.Loop() {
		if _, _, err := f.Line(j, "012", "345"); err != nil {
			b.Fatal(err)
		}
	}
}
