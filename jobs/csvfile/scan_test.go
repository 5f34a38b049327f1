package csvfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzScanner compares the scanner with encoding/csv wherever that accepts the whole file: there both must agree.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		"a,b\nc,d\n", "\"a\",\"b \"\"c\"\"\"\r\n\"d\ne\",\n", "a\n\n\"\"\nb", ",,\n,\"\n\",", "a\t\"b\nc\"\td\n", "x;\"y\r\nz\";\r\n", "\"a\"b\n", "a \"b\" c\n", "\"",
	} {
		for delim := range byte(len(delimiters)) {
			f.Add([]byte(seed), delim, uint8(16))
		}
	}
	f.Fuzz(func(t *testing.T, file []byte, which, buffer byte) {
		delim := delimiters[int(which)%len(delimiters)]
		if bytes.IndexByte(bytes.ReplaceAll(file, []byte("\r\n"), nil), '\r') >= 0 {
			return // CRs that encoding/csv keeps in cells; here they end a line or are kept, by position
		}
		reference := csv.NewReader(bytes.NewReader(file))
		reference.Comma, reference.FieldsPerRecord = rune(delim), -1
		want, err := reference.ReadAll()
		if err != nil {
			return
		}
		got, lines, err := scanAll(file, delim, int(buffer))
		if broken := (*syntaxError)(nil); errors.As(err, &broken) {
			if delim == '\t' && strings.Contains(broken.message, "behind a tab") {
				return // refused on purpose
			}
		}
		if err != nil {
			t.Fatalf("encoding/csv accepts %q, we don't: %v", file, err)
		}
		if diff := cmp.Diff(withoutBlankLines(want), withoutBlankLines(got)); diff != "" {
			t.Errorf("%q: %s", file, diff)
		}
		if wantLines := int64(len(bytes.SplitAfter(file, []byte{'\n'}))); len(file) > 0 && lines != wantLines && lines != wantLines-1 {
			t.Errorf("%d lines counted in %q, want about %d", lines, file, wantLines)
		}
	})
}

// scanAll returns all records, or the first error.
func scanAll(file []byte, delim byte, buffer int) (records [][]string, lines int64, err error) {
	s := scanner{in: bufio.NewReaderSize(bytes.NewReader(file), buffer), delim: delim}
	for {
		err := s.next()
		if errors.Is(err, io.EOF) {
			return records, s.line, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var record []string
		for i := range s.rec.cells {
			record = append(record, string(s.rec.cell(i)))
		}
		records = append(records, record)
	}
}

// withoutBlankLines leaves out what encoding/csv skips or what only it tells apart from a blank line.
func withoutBlankLines(records [][]string) (rest [][]string) {
	for _, r := range records {
		if len(r) > 1 || r[0] != "" {
			rest = append(rest, r)
		}
	}
	return rest
}

// TestWrittenByEncodingCSV reads back what encoding/csv writes, for random cells made of what matters.
func TestWrittenByEncodingCSV(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", `"`, ",", ";", "\t", "\n", " ", "é", ""}
	for range 2_000 {
		want := make([][]string, 1+random.IntN(4))
		for i := range want {
			want[i] = make([]string, 2+random.IntN(3))
			for j := range want[i] {
				for range random.IntN(5) {
					want[i][j] += pieces[random.IntN(len(pieces))]
				}
			}
		}
		var file bytes.Buffer
		w := csv.NewWriter(&file)
		w.UseCRLF = random.IntN(2) == 0
		w.Comma = rune(delimiters[random.IntN(2)]) // with tabs, a tab and a line break in one cell are refused
		if err := w.WriteAll(want); err != nil {
			t.Fatal(err)
		}
		got, _, err := scanAll(file.Bytes(), byte(w.Comma), 16)
		if err != nil {
			t.Fatalf("%q: %v", file.Bytes(), err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q: %s", file.Bytes(), diff)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"prompt", "prompt", 0}, {"promt", "prompt", 1}, {"prmopt", "prompt", 1}, {"prompts", "prompt", 1}, {"pronpt", "prompt", 1},
		{"rpomtp", "prompt", 2}, {"ca", "abc", 3}, {"größe", "grösse", 2}, {"", "id", 2}, {"a", "prompt", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%s to %s is %d, want %d", test.a, test.b, got, test.want)
		}
		if got := distance(test.b, test.a); got != test.want {
			t.Errorf("%s to %s is %d, want %d", test.b, test.a, got, test.want)
		}
	}
}

func TestColumnLetters(t *testing.T) {
	t.Parallel()
	for index, want := range map[int]string{0: "A", 25: "Z", 26: "AA", 27: "AB", 701: "ZZ", 702: "AAA"} {
		if got := columnLetters(index); got != want {
			t.Errorf("column %d is %s, want %s", index, got, want)
		}
	}
}
