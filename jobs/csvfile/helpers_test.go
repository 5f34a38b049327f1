package csvfile_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
)

// testCatalogue keeps these tests apart from changes of the real one.
const testCatalogue = `{
	"version": "test", "source": "test", "default_model": "pro",
	"tiers": {"standard": {"price_factor": "1"}},
	"models": [
		{"id": "pro", "name": "Pro", "locations": ["global"], "tiers": ["standard"], "sizes": {"1K": 1, "2K": 1, "4K": 1},
		 "batch_sizes": ["1K"], "aspect_ratios": ["1:1", "16:9", "4:3"], "max_references": 2, "max_prompt_bytes": 32768,
		 "usd_per_million_tokens": {"input": "2.00", "text_output": "12.00", "image_output": "120.00"}},
		{"id": "lite", "name": "Lite", "locations": ["global", "europe-west4"], "tiers": ["standard"], "sizes": {"1K": 1},
		 "batch_sizes": [], "aspect_ratios": ["1:1"], "max_references": 1, "max_prompt_bytes": 100,
		 "usd_per_million_tokens": {"input": "2.00", "text_output": "12.00", "image_output": "120.00"}},
		{"id": "mini", "name": "Mini", "locations": ["global"], "tiers": ["standard"], "sizes": {"1K": 1},
		 "batch_sizes": [], "aspect_ratios": ["4:3"], "max_references": 0, "max_prompt_bytes": 100,
		 "usd_per_million_tokens": {"input": "2.00", "text_output": "12.00", "image_output": "120.00"}}
	]}`

func catalogue(tb testing.TB) *jobs.Catalogue {
	tb.Helper()
	c, err := jobs.ParseCatalogue([]byte(testCatalogue))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func options(tb testing.TB) csvfile.Options {
	tb.Helper()
	return csvfile.Options{Name: "uploads/prompts.csv", Catalogue: catalogue(tb)}
}

// read reads a whole file: its rows, the text of its row errors, and the error that ended it, if it was not the end.
func read(tb testing.TB, file string, opts csvfile.Options) (rows []*csvfile.Row, rowErrors []*csvfile.RowError, end error) {
	tb.Helper()
	r, err := csvfile.NewReader(strings.NewReader(file), opts)
	if err != nil {
		return nil, nil, err
	}
	for {
		row, err := r.Next()
		var rowErr *csvfile.RowError
		switch {
		case err == nil:
			rows = append(rows, row)
		case errors.Is(err, io.EOF):
			return rows, rowErrors, nil
		case errors.As(err, &rowErr):
			rowErrors = append(rowErrors, rowErr)
		default:
			if _, again := r.Next(); again != err {
				tb.Errorf("after the end Next returned %v, then %v", err, again)
			}
			return rows, rowErrors, err
		}
	}
}

// one reads a file that must have exactly one valid row.
func one(tb testing.TB, file string, opts csvfile.Options) *csvfile.Row {
	tb.Helper()
	rows, rowErrors, err := read(tb, file, opts)
	if err != nil || len(rowErrors) > 0 || len(rows) != 1 {
		tb.Fatalf("read %q: %d rows, row errors %v, error %v; want one row", file, len(rows), rowErrors, err)
	}
	return rows[0]
}

// outline is a file as a list: `row number: cells` for rows, `row number! column: message` for problems.
func outline(tb testing.TB, file string, opts csvfile.Options) (lines []string) {
	tb.Helper()
	r, err := csvfile.NewReader(strings.NewReader(file), opts)
	for err == nil {
		var row *csvfile.Row
		row, err = r.Next()
		var rowErr *csvfile.RowError
		switch {
		case err == nil:
			lines = append(lines, fmt.Sprintf("%d: %q", row.Number, row.Record))
		case errors.As(err, &rowErr):
			for _, p := range rowErr.Problems {
				lines = append(lines, fmt.Sprintf("%d! %s: %s", rowErr.Row, p.Column, p.Message))
			}
			err = nil
		}
	}
	if !errors.Is(err, io.EOF) {
		lines = append(lines, "end: "+err.Error())
	}
	return lines
}
