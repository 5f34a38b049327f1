package csvfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/assetmill/assetmill/jobs"
)

// FuzzReader checks that any bytes are read to an end, that every record is one row, one row error or blank, and that
// rows hold text only.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"", "prompt\na\n", "prompt,size,label.a,sku\na,2K,b,c\n,,,\n\"x\ny\",3K,,\n", "\ufeffsep=;\r\nPrompt;Seed\r\na;1\r\n",
		"\xff\xfep\x00r\x00o\x00m\x00p\x00t\x00\n\x00a\x00", "prompt\tnote\n\"a\" b\tc\n", "prompt,id,variants\na,x,3\na\xe9,\x00,\n", "prompt,a\n\"x\" y,\nb,\"z",
		"prompt,references,safety,deadline\na,gs://bkt/a.png|gs://bkt/b.png,low,2026-12-01T09:00Z\n",
	} {
		f.Add([]byte(seed))
	}
	catalogue := jobs.DefaultCatalogue()
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file), Options{Name: "f.csv", Catalogue: catalogue})
		if err != nil {
			checkFileError(t, err)
			return
		}
		headerRow := r.number
		var last, results int64
		for last = headerRow; ; results++ {
			row, err := r.Next()
			if rowErr := (*RowError)(nil); errors.As(err, &rowErr) {
				if rowErr.Row <= last || len(rowErr.Problems) == 0 || !utf8.ValidString(err.Error()) {
					t.Fatalf("after row %d: row error %q", last, err)
				}
				last = rowErr.Row
				continue
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				checkFileError(t, err)
				return
			}
			checkRow(t, row, last)
			last = row.Number
		}
		if want := countRecords(file, r.scan.delim, headerRow); want != results {
			t.Errorf("%d rows and row errors, but %d records that are not blank", results, want)
		}
	})
}

func checkFileError(t *testing.T, err error) {
	t.Helper()
	var file *FileError
	if !errors.As(err, &file) || len(file.Problems) == 0 || !utf8.ValidString(err.Error()) {
		t.Fatalf("error is %q, want a file error", err)
	}
}

func checkRow(t *testing.T, row *Row, last int64) {
	t.Helper()
	if row.Number <= last || len(row.Jobs) == 0 {
		t.Fatalf("row %d with %d jobs comes after row %d", row.Number, len(row.Jobs), last)
	}
	for _, j := range row.Jobs {
		if !utf8.ValidString(j.Prompt) || strings.ContainsRune(j.Prompt, 0) || j.SourceRow != row.Number || (j.ID != "") != row.HasID {
			t.Fatalf("row %d has job %+v", row.Number, j)
		}
	}
}

// countRecords counts the records behind the header that are not blank, by another pass over the file.
func countRecords(file []byte, delim byte, headerRow int64) (n int64) {
	in, _, err := openText(bytes.NewReader(file))
	if err != nil {
		return -1
	}
	s := scanner{in: in, delim: delim}
	if sample, _ := peekHeader(in); bytes.HasPrefix(bytes.ToLower(bytes.TrimPrefix(sample, []byte{'"'})), []byte("sep=")) {
		if _, err := s.readLine(); err != nil {
			return -1
		}
	}
	for row := int64(1); ; row++ {
		err := s.next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if row > headerRow && (err != nil || !s.rec.blank()) {
			n++
		}
	}
}

// stream is a file of any size that is never in memory.
type stream struct {
	rows, next int
	row        func(b []byte, row int) []byte // appends the header (row 0) or a row
	rest       []byte
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.next > s.rows {
			return 0, io.EOF
		}
		s.rest = s.row(s.rest[:0], s.next)
		s.next++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// appendRow appends the header (row 0) or a row as marketing files have them; every tenth is quoted.
func appendRow(b []byte, row int) []byte {
	switch {
	case row == 0:
		return append(b, "Prompt,Campaign,Size,Aspect Ratio,label.team,SKU,Notes\r\n"...)
	case row%10 == 0:
		return fmt.Appendf(b, "\"A red bicycle, no. %d, leaning on a \"\"blue\"\" wall\nin the rain, soft morning light, 35 mm\",spring-2026,2K,16:9,bikes,%08d,\"ok, print\"\r\n", row, row)
	default:
		return fmt.Appendf(b, "A red bicycle no. %d leaning on a blue wall in the rain with soft morning light on 35 mm film,spring-2026,2K,16:9,bikes,%08d,\r\n", row, row)
	}
}

// TestMemory reads streams and looks at the heap on the way: it must not grow with the rows or with what is wrong with them.
func TestMemory(t *testing.T) {
	many := 300_000
	if testing.Short() {
		many = 30_000
	}
	notes := strings.Repeat("n", 16_000)
	prompt := strings.Repeat("a cat, ", 4_000)
	for _, test := range []struct {
		name      string
		rows      int
		row       func(b []byte, row int) []byte
		rowErrors []int64 // rows that are not valid
	}{
		{"many rows", many, appendRow, nil},
		{"200 MB with a bad row at the end", 4_600, func(b []byte, row int) []byte {
			switch row {
			case 0:
				return append(b, "prompt,size,notes\n"...)
			case 4_600:
				return append(b, "the last,3K,\n"...)
			default:
				return fmt.Appendf(b, "\"%s\",1K,%s\n", prompt, notes)
			}
		}, []int64{4_601}},
		{"a line of 160 MB", 10_003, func(b []byte, row int) []byte {
			switch row {
			case 0:
				return append(b, "prompt,notes\n"...)
			case 1, 10_002, 10_003:
				return append(b, "\na,b\n"...)
			default:
				return append(b, notes...)
			}
		}, []int64{4}},
	} {
		t.Run(test.name, func(t *testing.T) { // not parallel: it measures the heap of the process
			checkMemory(t, &stream{rows: test.rows, row: test.row}, test.rowErrors)
		})
	}
}

func checkMemory(t *testing.T, in *stream, wantErrors []int64) {
	t.Helper()
	const heapBound = 6 << 20 // a record of MaxRecordBytes in two buffers that grow by doubling, with room
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	catalogue := jobs.DefaultCatalogue()
	before, most := heap(), uint64(0)
	r, err := NewReader(in, Options{Name: "f.csv", Catalogue: catalogue})
	if err != nil {
		t.Fatal(err)
	}
	var rowErrors []int64
	for rows := 0; ; rows++ {
		_, err := r.Next()
		if rowErr := (*RowError)(nil); errors.As(err, &rowErr) {
			rowErrors = append(rowErrors, rowErr.Row)
		} else if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if rows%50_000 == 0 || rowErrors != nil {
			most = max(most, heap())
		}
	}
	if !slices.Equal(rowErrors, wantErrors) {
		t.Errorf("rows %d are not valid, want %d", rowErrors, wantErrors)
	}
	if most > before+heapBound {
		t.Errorf("heap grew from %d to %d bytes, more than by %d", before, most, heapBound)
	}
	t.Logf("heap before %d, most %d bytes, last row %d", before, most, r.number)
}

// BenchmarkReader reads rows into validated jobs, cuts the same bytes into cells only, and does that with encoding/csv as
// the floor, by turns in one run. ns/op is for all three; the metrics count.
func BenchmarkReader(b *testing.B) {
	const rows = 10_000
	file, err := io.ReadAll(&stream{rows: rows, row: appendRow})
	if err != nil {
		b.Fatal(err)
	}
	catalogue := jobs.DefaultCatalogue()
	timed := func(read func() (int, error), total *time.Duration) {
		begin := time.Now()
		if n, err := read(); err != nil || n != rows {
			b.Fatalf("%d rows, %v", n, err)
		}
		*total += time.Since(begin)
	}
	var floor, scan, full time.Duration
	for b.Loop() {
		timed(func() (int, error) { return readFloor(file) }, &floor)
		timed(func() (int, error) { return readCells(file) }, &scan)
		timed(func() (int, error) { return readJobs(file, catalogue) }, &full)
	}
	all := float64(b.N * rows)
	b.ReportMetric(all/full.Seconds(), "rows/s")
	b.ReportMetric(float64(b.N*len(file))/full.Seconds()/1e6, "MB/s")
	b.ReportMetric(float64(b.N*len(file))/floor.Seconds()/1e6, "floor-MB/s")
	b.ReportMetric(full.Seconds()/floor.Seconds(), "jobs/floor")
	b.ReportMetric(scan.Seconds()/floor.Seconds(), "cells/floor")
}

// BenchmarkJobs measures the allocations of the reader alone, for one row.
func BenchmarkJobs(b *testing.B) {
	r, err := NewReader(&stream{rows: 1 << 40, row: appendRow}, Options{Name: "f.csv"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func readFloor(file []byte) (rows int, err error) {
	r := csv.NewReader(bytes.NewReader(file))
	r.ReuseRecord = true
	for {
		if _, err := r.Read(); errors.Is(err, io.EOF) {
			return rows - 1, nil
		} else if err != nil {
			return rows, err
		}
		rows++
	}
}

func readCells(file []byte) (rows int, err error) {
	s := scanner{in: bufio.NewReaderSize(bytes.NewReader(file), MaxHeaderBytes), delim: ','}
	for {
		if err := s.next(); errors.Is(err, io.EOF) {
			return rows - 1, nil
		} else if err != nil {
			return rows, err
		}
		rows++
	}
}

func readJobs(file []byte, catalogue *jobs.Catalogue) (rows int, err error) {
	r, err := NewReader(bytes.NewReader(file), Options{Name: "f.csv", Catalogue: catalogue})
	if err != nil {
		return 0, err
	}
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return rows, err
		}
		rows++
	}
}
