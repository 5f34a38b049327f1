package csvfile_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

func encodeUTF16(order binary.AppendByteOrder, text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// TestFormats reads the same table as different programs write it.
func TestFormats(t *testing.T) {
	t.Parallel()
	const (
		first  = "A café, \"Chez Zoé\"\nat night 🌃"
		second = "plain"
	)
	quoted := `"A café, ""Chez Zoé""` + "\n" + `at night 🌃"`
	table := func(delim, end string) string {
		return strings.Join([]string{"Prompt" + delim + "Size" + delim + "SKU", quoted + delim + "2K" + delim + "0042", second + delim + delim + "7", ""}, end)
	}
	files := map[string]string{
		"Google Sheets":                             strings.TrimSuffix(table(",", "\r\n"), "\r\n"),
		"LF":                                        table(",", "\n"),
		"Excel CSV UTF-8":                           "\ufeff" + table(",", "\r\n"),
		"Excel CSV UTF-8, comma is decimal":         "\ufeff" + table(";", "\r\n"),
		"Excel with sep line":                       "sep=;\r\n" + table(";", "\r\n"),
		"sep line decides":                          "\ufeffSEP=|\n" + table("|", "\n"),
		"tabs":                                      table("\t", "\n"),
		"Excel Unicode text":                        encodeUTF16(binary.LittleEndian, "\ufeff"+table("\t", "\r\n")),
		"UTF-16 BE":                                 encodeUTF16(binary.BigEndian, "\ufeff"+table(",", "\r\n")),
		"UTF-16 LE without mark":                    encodeUTF16(binary.LittleEndian, table("\t", "\r\n")),
		"UTF-16 BE without mark":                    encodeUTF16(binary.BigEndian, table("\t", "\r\n")),
		"line breaks in cells as CRLF":              strings.ReplaceAll(table(",", "\n"), "\n", "\r\n"),
		"line ends translated twice":                strings.ReplaceAll(table(",", "\n"), "\n", "\r\r\n"),
		"quoted throughout":                         "\"Prompt\",\"Size\",\"SKU\"\n" + quoted + ",\"2K\",\"0042\"\n\"plain\",\"\",\"7\"\n",
		"blank lines and trailing empty cells":      "\n" + strings.ReplaceAll(table(",", "\r\n"), "SKU\r\n", "SKU,,\r\n , ,\r\n\r\n") + ",,,,\r\n",
		"trailing empty columns after the header's": strings.ReplaceAll(table(",", "\n"), "0042", "0042,,,"),
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, rowErrors, err := read(t, file, options(t))
			if err != nil || len(rowErrors) > 0 {
				t.Fatalf("error %v, row errors %v", err, rowErrors)
			}
			var got [][3]string
			for _, row := range rows {
				got = append(got, [3]string{row.Jobs[0].Prompt, row.Jobs[0].Size, row.Jobs[0].Source["SKU"]})
			}
			if diff := cmp.Diff([][3]string{{first, "2K", "0042"}, {second, "1K", "7"}}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDelimiter(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"one column has no delimiter":      {"prompt\na cat, sitting; still\tthere\n", []string{`2: ["a cat, sitting; still\tthere"]`}},
		"one column, quoted":               {"prompt\n\"a cat, sitting\"\n", []string{`2: ["a cat, sitting"]`}},
		"quoted header with delimiters":    {"\"notes, or; more\";prompt\nx;a, b\n", []string{`2: ["x" "a, b"]`}},
		"known names beat more columns":    {"prompt;size;a,b,c,d\nx;1K;y\n", []string{`2: ["x" "1K" "y"]`}},
		"header words beat single columns": {"prompt\tnotes, if any\nx, y\tz\n", []string{`2: ["x, y" "z"]`}},
		"sep line beats the header":        {"sep=,\nprompt;a,size\nx,1K\n", []string{`end: prompts.csv row 1 has no column prompt in its header; columns found: prompt;a, size`}},
		"sep line with one column":         {"sep=;\nprompt\na,b\n", []string{`2: ["a,b"]`}},
		"strange sep line":                 {"sep=ab\nprompt\n", []string{`end: prompts.csv names the delimiter "ab" in its first line; allowed: comma, semicolon, tab, |`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, outline(t, test.file, options(t))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRowNumbers(t *testing.T) {
	t.Parallel()
	// Spreadsheets count blank rows and rows with line breaks as one each, and don't show the sep line.
	rows, _, err := read(t, "sep=,\nprompt,note\n\n\"a\nb\",\n,\nc,x\n", options(t))
	if err != nil || len(rows) != 2 {
		t.Fatalf("rows %v, error %v", rows, err)
	}
	got := [][3]int64{}
	for _, row := range rows {
		got = append(got, [3]int64{row.Number, row.Line, row.Jobs[0].SourceRow})
	}
	if diff := cmp.Diff([][3]int64{{3, 4, 3}, {5, 7, 5}}, got); diff != "" {
		t.Error(diff)
	}
	if file := rows[0].Jobs[0].SourceFile; file != "prompts.csv" {
		t.Errorf("source file is %q, want the name without folders", file)
	}
}

func TestNotCSV(t *testing.T) {
	t.Parallel()
	header := "prompt,size\n"
	for name, test := range map[string]struct{ file, want string }{
		"empty":                {"", "prompts.csv is empty; the first row must name the columns, one of them prompt"},
		"only a mark":          {"\ufeff", "prompts.csv is empty; the first row must name the columns, one of them prompt"},
		"blank lines":          {"\n\r\n,,\n", "prompts.csv is empty; the first row must name the columns, one of them prompt"},
		"header only":          {header, "prompts.csv has a header but no rows"},
		"header and blanks":    {header + ",\n\n", "prompts.csv has a header but no rows"},
		"no prompt column":     {"text,size\na,1K\n", "prompts.csv row 1 has no column prompt in its header; columns found: text, size"},
		"xlsx":                 {"PK\x03\x04\x14\x00", `prompts.csv is a workbook (xlsx, ods) or a zip file, not a CSV file; save the file as "CSV UTF-8"`},
		"gzip":                 {"\x1f\x8b\x08", `prompts.csv is compressed (gzip), not a CSV file; save the file as "CSV UTF-8"`},
		"old Macintosh":        {"prompt\ra\rb\r", `prompts.csv row 1 ends with CR only, as old Macintosh files do; save the file as "CSV UTF-8"`},
		"NUL in the header":    {"prompt,a\x00b\nx,y\n", `prompts.csv row 1, column B: "a␀b" holds a NUL character; remove it; save the file as "CSV UTF-8"`},
		"Latin-1 in header":    {"prompt,Gr\xf6\xdfe\nx,y\n", `prompts.csv row 1, column B: "Gr�e" is not UTF-8: it holds the byte 0xF6 (ö in Windows-1252); save the file as "CSV UTF-8"`},
		"header too long":      {"prompt," + strings.Repeat("x", 65_536), "prompts.csv row 1 is longer than the 65536 bytes of a header; does the file have line breaks?"},
		"header's quote open":  {"prompt,\"a\nb,c\n", `prompts.csv row 1, column B has a quote, opened in line 1, that is not closed before the end of the file; write the cell in quotes, and quotes inside it twice ("")`},
		"header's quote wrong": {"prompt,\"a\"b\nb,c\n", `prompts.csv row 1, column B has text after its closing quote; write the cell in quotes, and quotes inside it twice ("")`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, rowErrors, err := read(t, test.file, options(t))
			if err == nil || len(rowErrors) > 0 {
				t.Fatalf("error %v, row errors %v; want a file error", err, rowErrors)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
