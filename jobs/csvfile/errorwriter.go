package csvfile

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// ErrorWriter writes an errors file: CSV in UTF-8 with the columns file, row, column, value and problem, and one line for
// each problem. It has no byte order mark, since scripts would find it in the name of the first column.
//
// Cells that a spreadsheet would run as a formula get an apostrophe in front: values are other people's text, and
// the file is made to be opened in a spreadsheet. Plain numbers such as -5 stay as they are.
//
// An ErrorWriter is not safe for concurrent use.
type ErrorWriter struct {
	out   *csv.Writer
	begun bool
}

// NewErrorWriter returns a writer to w. Nothing is written before the first problem or Flush.
func NewErrorWriter(w io.Writer) *ErrorWriter { return &ErrorWriter{out: csv.NewWriter(w)} }

// Write writes the problems of a *RowError or a *FileError. Another error becomes one line without row and column.
func (w *ErrorWriter) Write(err error) error {
	var row *RowError
	var file *FileError
	switch {
	case errors.As(err, &row):
		return w.problems(row.File, row.Row, row.Problems)
	case errors.As(err, &file):
		return w.problems(file.File, file.Row, file.Problems)
	default:
		return w.WriteProblem("", 0, CellProblem{Message: err.Error()})
	}
}

func (w *ErrorWriter) problems(file string, row int64, problems []CellProblem) error {
	for _, p := range problems {
		if err := w.WriteProblem(file, row, p); err != nil {
			return err
		}
	}
	return nil
}

// WriteProblem writes one line, for problems that were found outside this package. Row 0 leaves the row empty.
func (w *ErrorWriter) WriteProblem(file string, row int64, p CellProblem) error {
	number := ""
	if row > 0 {
		number = strconv.FormatInt(row, 10)
	}
	return w.line(file, number, p.Column, p.Value, p.Message)
}

func (w *ErrorWriter) line(cells ...string) error {
	if !w.begun {
		w.begun = true
		if err := w.line("file", "row", "column", "value", "problem"); err != nil {
			return err
		}
	}
	for i, cell := range cells {
		cells[i] = inert(cell)
	}
	if err := w.out.Write(cells); err != nil {
		return fmt.Errorf("write errors file: %w", err)
	}
	return nil
}

// Flush writes what is buffered, and the header if there was no problem. Call it once at the end.
func (w *ErrorWriter) Flush() error {
	if !w.begun {
		w.begun = true
		if err := w.line("file", "row", "column", "value", "problem"); err != nil {
			return err
		}
	}
	w.out.Flush()
	if err := w.out.Error(); err != nil {
		return fmt.Errorf("write errors file: %w", err)
	}
	return nil
}

var plainNumber = regexp.MustCompile(`^[+-][0-9]+([.,][0-9]+)?$`)

// inert returns a cell that no spreadsheet takes for a formula. Space in front does not help, some programs strip it;
// the full-width signs count in East Asian editions.
func inert(cell string) string {
	text := strings.TrimSpace(cell)
	if text == "" || plainNumber.MatchString(text) {
		return cell
	}
	if strings.ContainsAny(firstRune(text), "=+-@＝＋－＠") {
		return "'" + cell
	}
	return cell
}

func firstRune(s string) string {
	for _, r := range s {
		return string(r)
	}
	return ""
}
