package csvfile

import (
	"fmt"
	"strings"
)

// CellProblem is one thing that is wrong with one cell.
type CellProblem struct {
	Column  string // header as written (shortened if it is very long), a spreadsheet's letters for a column without one, or empty for the whole row or file
	Value   string // what was given, shortened; empty when nothing was
	Message string // what is wrong and what is allowed
}

// text returns the problem as the rest of a sentence that begins with where.
func (p CellProblem) text() string {
	var b strings.Builder
	if p.Column != "" {
		fmt.Fprintf(&b, "column %s", p.Column)
	}
	if p.Value != "" {
		fmt.Fprintf(&b, ": %q", p.Value)
	}
	fmt.Fprintf(&b, " %s", p.Message)
	return strings.TrimSpace(b.String())
}

// RowError is everything that is wrong with one row. Reading can go on after it.
type RowError struct {
	File     string
	Row      int64 // as a spreadsheet shows it
	Line     int64 // of the file, on which the row begins
	Problems []CellProblem
	// Broken says that the row's quotes or length leave open where it ends, so that the rows after it may have been cut in
	// the wrong place. A caller that skips invalid rows must not use the rows after this one.
	Broken bool
}

// Error returns all problems in one line, such as
// `prompts.csv row 17, column size: "3K" is not offered by gemini-3-pro-image; allowed: 1K, 2K, 4K`.
func (e *RowError) Error() string { return describe(e.File, e.Row, e.Problems) }

// FileError is a problem that ends the file.
type FileError struct {
	File     string
	Row      int64 // as a spreadsheet shows it; 0 for the file as a whole
	Line     int64
	Problems []CellProblem
}

// Error returns all problems in one line.
func (e *FileError) Error() string { return describe(e.File, e.Row, e.Problems) }

func describe(file string, row int64, problems []CellProblem) string {
	var b strings.Builder
	b.WriteString(file)
	if row > 0 {
		fmt.Fprintf(&b, " row %d", row)
	}
	for i, p := range problems {
		switch {
		case i > 0:
			b.WriteString("; ")
		case p.Column != "":
			b.WriteString(", ")
		default:
			b.WriteString(" ")
		}
		b.WriteString(p.text())
	}
	return b.String()
}

// columnLetters returns the name that spreadsheets give to a column, from index 0: A, B ... Z, AA.
func columnLetters(index int) string {
	var letters []byte
	for n := index + 1; n > 0; n = (n - 1) / 26 {
		letters = append([]byte{byte('A' + (n-1)%26)}, letters...)
	}
	return string(letters)
}
