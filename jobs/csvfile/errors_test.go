package csvfile_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

func TestRowErrors(t *testing.T) {
	t.Parallel()
	const seedRule = "is not a seed; write a whole number from 0 to 2147483647 in digits only"
	const variantsRule = "is not a number of variants; write a whole number from 1 to 100 in digits only"
	const idRule = "may hold only a-z, 0-9 and -, 1 to 63 of them, and begins and ends with a letter or digit"
	const nameRule = "may hold only a-z, 0-9, _ and -, 1 to 63 of them, and begins with a letter or digit"
	const deadlineRule = "is not a time with a zone; write it as 2026-12-01T09:00:00Z or 2026-12-01 09:00+01:00"
	const utf8 = `; save the file as "CSV UTF-8"`
	for name, test := range map[string]struct{ file, want string }{
		"size":               {"prompt,Image Model,Size\na,,3K\n", `column Size: "3K" is not offered by pro; allowed: 1K, 2K, 4K`},
		"model":              {"prompt,model\na,imagen\n", `column model: "imagen" is unknown; allowed: lite, mini, pro`},
		"no prompt":          {"Prompt,size\n ,1K\n", "column Prompt is missing: say what the image should show"},
		"long prompt":        {"prompt\n" + strings.Repeat("é", 16_385) + "\n", `column prompt: "` + strings.Repeat("é", 30) + `…" is 32770 bytes long; at most 32768 are allowed`},
		"NUL":                {"prompt,size\na\x00b,1K\n", `column prompt: "a␀b" holds a NUL character; remove it` + utf8},
		"Latin-1":            {"prompt,SKU\na,caf\xe9\n", `column SKU: "caf�" is not UTF-8: it holds the byte 0xE9 (é in Windows-1252)` + utf8},
		"undefined byte":     {"prompt\na\x81\n", `column prompt: "a�" is not UTF-8: it holds the byte 0x81` + utf8},
		"half a character":   {"\xff\xfep\x00r\x00o\x00m\x00p\x00t\x00\n\x00a\x00\x00\xd8\n\x00", `column prompt: "a�" holds a character that is no valid UTF-16` + utf8},
		"id with slash":      {"prompt,ID\na,a/b\n", `column ID: "a/b" ` + idRule},
		"id with dots":       {"prompt,id\na,..\n", `column id: ".." ` + idRule},
		"long id":            {"prompt,id,variants\na," + strings.Repeat("a", 64) + ",2\n", `column id: "` + strings.Repeat("a", 60) + `…" ` + idRule},
		"campaign with dots": {"prompt,Campaign\na,../x\n", `column Campaign: "../x" ` + nameRule + "; try x"},
		"client":             {"prompt,client\na,Acme Inc.\n", `column client: "Acme Inc." ` + nameRule + "; try acme-inc"},
		"label":              {"prompt,Label.Team\na,a/b\n", `column Label.Team: "a/b" ` + nameRule + "; try a-b"},
		"seed with point":    {"prompt,seed\na,1.0\n", `column seed: "1.0" ` + seedRule},
		"seed with comma":    {"prompt,seed\na,\"1,000\"\n", `column seed: "1,000" ` + seedRule},
		"seed below":         {"prompt,seed\na,-5\n", `column seed: "-5" ` + seedRule},
		"seed above":         {"prompt,seed\na,2147483648\n", `column seed: "2147483648" ` + seedRule},
		"variants":           {"prompt,variants\na,101\n", `column variants: "101" ` + variantsRule},
		"no variants":        {"prompt,variants\na,0\n", `column variants: "0" ` + variantsRule},
		"variants with sign": {"prompt,variants\na,+2\n", `column variants: "+2" ` + variantsRule},
		"deadline":           {"prompt,deadline\na,2026-12-01\n", `column deadline: "2026-12-01" ` + deadlineRule},
		"deadline, no zone":  {"prompt,deadline\na,2026-12-01 09:00\n", `column deadline: "2026-12-01 09:00" ` + deadlineRule},
		"reference":          {"prompt,references\na,https://x/y.png\n", `column references: "https://x/y.png" is not a Cloud Storage object; write gs://bucket/object`},
		"references":         {"prompt,references\na,gs://bkt/a.png gs://bkt/a.png gs://bkt/a.png\n", "column references are 3; pro takes at most 2"},
		"safety":             {"prompt,safety\na,hate=maybe\n", `column safety: "maybe" is not a threshold for hate; allowed: low, medium, high, none, off, or Vertex's names such as BLOCK_MEDIUM_AND_ABOVE`},
		"cells too many":     {"prompt,size\na,1K,b,,c\n", `column C: "b" is one cell too many: the header has 2 columns; if it is part of the cell before, put that cell in quotes; column E: "c" is one cell too many: the header has 2 columns; if it is part of the cell before, put that cell in quotes`},
		"cell without name":  {"prompt,,size\na,x,1K\n", `column B: "x" stands in a column without a header; name the column or empty the cell`},
		"all of them":        {"size,seed,prompt,id,mode\n3K,x,,A,batches\n", `column size: "3K" is not offered by pro; allowed: 1K, 2K, 4K; column seed: "x" ` + seedRule + `; column prompt is missing: say what the image should show; column id: "A" ` + idRule + `; column mode: "batches" is unknown; allowed: online, batch, auto`},
		"size of a model":    {"prompt,model,size\na,lite,2K\n", `column size: "2K" is not offered by lite; allowed: 1K`},
		"region of a model":  {"prompt,model,region\na,pro,europe-west4\n", `column region: "europe-west4" is not served by pro; models served there: lite`},
		"built-in default":   {"prompt,model\na,mini\n", `column aspect_ratio: "1:1" is not offered by mini; allowed: 4:3; the value is the default`},
		"source too long":    {"prompt,note\na," + strings.Repeat("n", 16_381) + "\n", "column source is 16385 bytes in all; at most 16384 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, rowErrors, err := read(t, test.file, options(t))
			if err != nil || len(rows) > 0 || len(rowErrors) != 1 {
				t.Fatalf("%d rows, row errors %v, error %v; want one row error", len(rows), rowErrors, err)
			}
			if diff := cmp.Diff("prompts.csv row 2, "+test.want, rowErrors[0].Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrorsOfOptions(t *testing.T) {
	t.Parallel()
	opts := options(t)
	opts.Defaults = &schemas.Job{Campaign: "A B", Size: "3K", Labels: map[string]string{"team": "R D"}}
	_, rowErrors, err := read(t, "prompt,size,region\na,,mars\nb,9K,\n", opts)
	if err != nil || len(rowErrors) != 2 {
		t.Fatalf("row errors %v, error %v", rowErrors, err)
	}
	const option = "; the value comes from the options of the submission, not from the row"
	want := []csvfile.CellProblem{
		{Column: "size", Value: "3K", Message: "is not offered by pro; allowed: 1K, 2K, 4K" + option},
		{Column: "region", Value: "mars", Message: "is no region that a model is served in; pro allows: global"},
		{Column: "campaign", Value: "A B", Message: "may hold only a-z, 0-9, _ and -, 1 to 63 of them, and begins with a letter or digit; try a-b" + option},
		{Column: "label.team", Value: "R D", Message: "may hold only a-z, 0-9, _ and -, 1 to 63 of them, and begins with a letter or digit; try r-d" + option},
	}
	if diff := cmp.Diff(want, rowErrors[0].Problems); diff != "" {
		t.Error(diff)
	}
	if p := rowErrors[1].Problems[0]; p.Column != "size" || p.Value != "9K" || strings.Contains(p.Message, "options") {
		t.Errorf("the row's own size is reported as %v", p)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 101} {
		opts := options(t)
		opts.Variants = n
		if _, err := csvfile.NewReader(strings.NewReader("prompt\na\n"), opts); err == nil {
			t.Errorf("%d variants are accepted", n)
		}
	}
	opts := options(t)
	opts.Name = strings.Repeat("n", 256)
	if _, _, err := read(t, "prompt\na\n", opts); err == nil || !strings.Contains(err.Error(), "256 bytes long") {
		t.Errorf("a name of 256 bytes: error is %v", err)
	}
}

func TestReaderError(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	for _, text := range []string{"", "\ufeffpro", "prompt\na\nb"} {
		r, err := csvfile.NewReader(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), options(t))
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "read prompts.csv: ") {
			t.Errorf("after %q: error is %v", text, err)
		}
	}
	rows := 0
	file := "prompt\n" + strings.Repeat("a prompt\n", 20_000) + "cut o"
	r, err := csvfile.NewReader(io.MultiReader(strings.NewReader(file), iotest.ErrReader(broken)), options(t))
	for ; err == nil; rows++ {
		_, err = r.Next()
	}
	if rows--; rows != 20_000 || !errors.Is(err, broken) {
		t.Errorf("%d rows, then %v; want 20000 and the reader's error, not the row that was cut off", rows, err)
	}
}

func TestErrorWriter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := csvfile.NewErrorWriter(&out)
	for _, err := range []error{
		&csvfile.RowError{File: "a.csv", Row: 7, Problems: []csvfile.CellProblem{{"size", "3K", "is not offered"}, {"note, or", "x \"y\"\nz", "is odd"}}},
		&csvfile.FileError{File: "=b.csv", Problems: []csvfile.CellProblem{{Message: "is empty"}}},
		errors.New("no such bucket"),
	} {
		if err := w.Write(err); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range []string{"=1+1", "+1+1", "-5", "+1.5", "-x", "@cmd", " =1", "\t=1", "＝1", "a=b", "-1-1", "'=1"} {
		if err := w.WriteProblem("a.csv", 8, csvfile.CellProblem{Column: "seed", Value: value, Message: "m"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"file", "row", "column", "value", "problem"},
		{"a.csv", "7", "size", "3K", "is not offered"},
		{"a.csv", "7", "note, or", "x \"y\"\nz", "is odd"},
		{"'=b.csv", "", "", "", "is empty"},
		{"", "", "", "", "no such bucket"},
	}
	for _, value := range []string{"'=1+1", "'+1+1", "-5", "+1.5", "'-x", "'@cmd", "' =1", "'\t=1", "'＝1", "a=b", "'-1-1", "'=1"} {
		want = append(want, []string{"a.csv", "8", "seed", value, "m"})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrorWriterWithoutErrors(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := csvfile.NewErrorWriter(&out).Flush(); err != nil || out.String() != "file,row,column,value,problem\n" {
		t.Errorf("wrote %q, error %v; want the header", out.String(), err)
	}
}
