package csvfile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs/csvfile"
)

const advice = `; write the cell in quotes, and quotes inside it twice ("")`

func TestQuotes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"quotes inside are literal": {
			"prompt,size\na poster that says \"Hello\",1K\nb,2K\n",
			[]string{`2: ["a poster that says \"Hello\"" "1K"]`, `3: ["b" "2K"]`}},
		"a single inch mark is literal": {"prompt,size\na 5\" tree,1K\n", []string{`2: ["a 5\" tree" "1K"]`}},
		"quoted": {
			"prompt,size\n\"say \"\"hi\"\", then\nleave\",1K\n\"\"\"all\"\"\",\"2K\"\n",
			[]string{`2: ["say \"hi\", then\nleave" "1K"]`, `3: ["\"all\"" "2K"]`}},
		"text behind a quote": {
			"prompt,size\n\"Hello\" on a poster,1K\nb,2K\n",
			[]string{"2! prompt: has text after its closing quote" + advice, `3: ["b" "2K"]`}},
		"text behind a quote, lines later": {
			"prompt,size\n\"Hello,1K\nb,2K\nc \"d\" e,1K\nf,1K\n",
			[]string{"2! prompt: has text after its closing quote (opened in line 2, closed in line 4)" + advice, `3: ["f" "1K"]`}},
		"space before a quote":        {"prompt,size\n \"a\",1K\nb,2K\n", []string{"2! prompt: has a space before its opening quote; remove the space", `3: ["b" "2K"]`}},
		"quoted across cells":         {"prompt,size,note\nsays \"a, b\",1K,\n", []string{"2! prompt: has a quote that seems to be closed in a later cell" + advice}},
		"open at the end":             {"prompt,size\na,1K\n\"b,1K\n", []string{`2: ["a" "1K"]`, "end: prompts.csv row 3, column prompt has a quote, opened in line 3, that is not closed before the end of the file" + advice}},
		"open at the end, no newline": {"prompt,size\na,\"b", []string{"end: prompts.csv row 2, column size has a quote, opened in line 2, that is not closed before the end of the file" + advice}},
		"tabs: whole cell quoted":     {"prompt\tsize\n\"a \"\"b\"\"\"\t1K\n", []string{`2: ["a \"b\"" "1K"]`}},
		"tabs: literal at the beginning": {
			"prompt\tsize\n\"H E Y\" on a wall\t1K\n \"x\" y\t1K\nodd 5\" and\t\"\n",
			[]string{`2: ["\"H E Y\" on a wall" "1K"]`, `3: [" \"x\" y" "1K"]`, "end: prompts.csv row 4, column size has a quote, opened in line 4, that is not closed before the end of the file" + advice}},
		"tabs: text behind a quote, a line later": {
			"prompt\tsize\n\"open\t1K\nb \"c\" d\t2K\ne\t2K\n",
			[]string{"2! prompt: has text after its closing quote (opened in line 2, closed in line 3)" + advice, `3: ["e" "2K"]`}},
		"tabs: inches in two cells": {"prompt\tnote\na 5\" tree\ta 6\" tree\n", []string{`2: ["a 5\" tree" "a 6\" tree"]`}},
		"tabs: quoted over rows": {
			"prompt\tsize\n\"open\t1K\nb 5\"\t2K\nc\t2K\n",
			[]string{"2! prompt: has a quote, opened in line 2, that is closed only in line 3, behind a tab" + advice, `3: ["c" "2K"]`}}, // a spreadsheet shows one row less, too
		"list of prompts: literal at the beginning": {"prompt\n\"H E Y\" on a wall, red\n", []string{`2: ["\"H E Y\" on a wall, red"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := outline(t, test.file, options(t))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBrokenIsMarked(t *testing.T) {
	t.Parallel()
	_, rowErrors, err := read(t, "prompt,size\n\"a\" b,1K\nc,9K\n", options(t))
	if err != nil || len(rowErrors) != 2 {
		t.Fatalf("row errors %v, error %v", rowErrors, err)
	}
	if !rowErrors[0].Broken || rowErrors[1].Broken {
		t.Errorf("broken is %t and %t, want true for the quotes and false for the size", rowErrors[0].Broken, rowErrors[1].Broken)
	}
}

// TestLongRecords covers records beyond the bound, which must neither be kept nor hide the rows behind them.
func TestLongRecords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", csvfile.MaxRecordBytes)
	t.Run("line", func(t *testing.T) {
		t.Parallel()
		got := outline(t, "prompt,size\na,1K\n"+long+",1K\nb,1K\n", options(t))
		want := []string{`2: ["a" "1K"]`, "3! : is longer than 1048576 bytes; is a line break or a quote missing?", `4: ["b" "1K"]`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("quote over many lines", func(t *testing.T) {
		t.Parallel()
		_, _, err := read(t, "prompt,size\na,\"1K\n"+strings.Repeat("b,1K\n", csvfile.MaxRecordBytes/5)+"c,1K\n", options(t))
		var file *csvfile.FileError
		if !errors.As(err, &file) || file.Row != 2 || file.Line != 2 || !strings.Contains(err.Error(), "column size has a quote, opened in line 2, that is not closed within 1048576 bytes") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("quote in one long line", func(t *testing.T) {
		t.Parallel()
		_, _, err := read(t, "prompt,size\n\"a\n"+long+"\",1K\nb,1K\n", options(t))
		if err == nil || !strings.Contains(err.Error(), "not closed within") {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("longest", func(t *testing.T) {
		t.Parallel()
		file := "prompt\n" + long[:csvfile.MaxRecordBytes-1] + "\nb\n"
		_, rowErrors, err := read(t, file, options(t))
		if err != nil || len(rowErrors) != 1 || rowErrors[0].Broken || rowErrors[0].Problems[0].Message != "is 1048575 bytes long; at most 32768 are allowed" {
			t.Errorf("row errors %v, error %v; want the prompt's own bound", rowErrors, err)
		}
	})
}
