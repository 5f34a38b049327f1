package csvfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// MaxRecordBytes bounds one record in memory. The largest valid row has texts of 128 KiB, source columns of 16 KiB and 14 images
// with names of 1 KiB, all of whose characters may be doubled quotes: under 350 KiB.
const MaxRecordBytes = 1 << 20

// noDelimiter is the delimiter of a file with one column: lines are searched without their end, so it is never found.
const noDelimiter = '\n'

// scanner cuts a stream of UTF-8 into records and cells. It does not check the encoding.
type scanner struct {
	in    *bufio.Reader
	delim byte
	line  int64 // lines read so far; the first is 1

	size   int    // bytes of the current record
	ended  bool   // the last line ended with LF rather than with the file
	long   []byte // holds a line that is longer than the buffer of in
	quoted []byte // holds the cells of a record that has quotes

	broken    *syntaxError // first fault of a record that has quotes
	oddQuotes int          // index of its first unquoted cell with an odd number of quotes, or -1

	rec record
}

// record is valid until the next call of scanner.next.
type record struct {
	line  int64 // on which it begins
	data  []byte
	cells []span // of data
}

type span struct{ start, end int }

func (r *record) cell(i int) []byte { return r.data[r.cells[i].start:r.cells[i].end] }

// blank reports whether every cell is empty or white space.
func (r *record) blank() bool {
	for i := range r.cells {
		if len(bytes.TrimSpace(r.cell(i))) > 0 {
			return false
		}
	}
	return true
}

// syntaxError is a record that can't be cut into cells. Where the record ends is uncertain, so the ones that follow may
// have been cut in the wrong place.
type syntaxError struct {
	column  int // index of the cell, or -1 for the whole record
	message string
	fatal   bool // the end of the record was not found at all
}

func (e *syntaxError) Error() string { return e.message }

// errLineTooLong is returned by readLine after it has skipped the line.
var errLineTooLong = errors.New("line is too long")

// next reads the next record into s.rec. It returns io.EOF at the end, a *syntaxError for a record that can't be cut into
// cells, or the reader's error.
func (s *scanner) next() error {
	s.size = 0
	s.rec = record{cells: s.rec.cells[:0], line: s.line + 1}
	line, err := s.readLine()
	if errors.Is(err, errLineTooLong) {
		return &syntaxError{column: -1, message: fmt.Sprintf("is longer than %d bytes; is a line break or a quote missing?", MaxRecordBytes)}
	}
	if err != nil {
		return err
	}
	if bytes.IndexByte(line, '"') >= 0 {
		return s.splitQuoted(line)
	}
	s.rec.data = line
	start := 0
	for {
		i := bytes.IndexByte(line[start:], s.delim)
		if i < 0 {
			s.rec.cells = append(s.rec.cells, span{start, len(line)})
			return nil
		}
		s.rec.cells = append(s.rec.cells, span{start, start + i})
		start += i + 1
	}
}

// splitQuoted cuts a record whose first line has a quote somewhere, reading more lines when a quoted cell goes on.
func (s *scanner) splitQuoted(line []byte) (err error) {
	s.quoted, s.broken, s.oddQuotes = s.quoted[:0], nil, -1
	for more := true; more; {
		start := len(s.quoted)
		if line, more, err = s.cutCell(line); err != nil {
			s.rec.data = s.quoted
			return err
		}
		s.rec.cells = append(s.rec.cells, span{start, len(s.quoted)})
	}
	s.rec.data = s.quoted
	if s.broken != nil {
		return s.broken
	}
	return nil
}

// cutCell appends the cell at the beginning of line to s.quoted. rest is what follows the cell and its delimiter, and more
// says whether there was a delimiter. Its error means that the end of the cell is unknown; what is wrong with a cell whose
// end is known goes to s.broken.
func (s *scanner) cutCell(line []byte) (rest []byte, more bool, err error) {
	start, opened := len(s.quoted), s.line
	if len(line) > 0 && line[0] == '"' {
		rest, more, err = s.quotedCell(line[1:])
		if !errors.Is(err, errTextBehind) {
			if err == nil && s.delim == '\t' && s.line != opened && bytes.IndexByte(s.quoted[start:], '\t') >= 0 {
				s.fault(len(s.rec.cells), fmt.Sprintf("has a quote, opened in line %d, that is closed only in line %d, behind a tab%s", opened, s.line, advice))
			}
			return rest, more, err
		}
		if s.line != opened || !s.plainQuotes() {
			return nil, false, s.textBehind(opened)
		}
		// Programs that quote cells write quotes twice, so this one did not: the quotes belong to the text.
		s.quoted = s.quoted[:start]
	}
	cell, rest, more := bytes.Cut(line, []byte{s.delim})
	s.quoted = append(s.quoted, cell...)
	s.checkPlain(cell)
	return rest, more, nil
}

// plainQuotes reports whether the file may have been written by a program that does not quote at all: tab-separated files
// and lists of prompts need no quotes for a comma.
func (s *scanner) plainQuotes() bool { return s.delim == '\t' || s.delim == noDelimiter }

const advice = `; write the cell in quotes, and quotes inside it twice ("")`

// errTextBehind is returned by quotedCell for text behind the closing quote.
var errTextBehind = errors.New("text behind a closing quote")

func (s *scanner) textBehind(opened int64) *syntaxError {
	where := ""
	if s.line != opened {
		where = fmt.Sprintf(" (opened in line %d, closed in line %d)", opened, s.line)
	}
	return &syntaxError{column: len(s.rec.cells), message: "has text after its closing quote" + where + advice}
}

// quotedCell appends a quoted cell to s.quoted. line is what follows its opening quote.
func (s *scanner) quotedCell(line []byte) (rest []byte, more bool, err error) {
	opened := s.line
	for {
		i := bytes.IndexByte(line, '"')
		if i < 0 {
			s.quoted = append(append(s.quoted, line...), '\n')
			if line, err = s.continueCell(opened); err != nil {
				return nil, false, err
			}
			continue
		}
		s.quoted = append(s.quoted, line[:i]...)
		line = line[i+1:]
		switch {
		case len(line) == 0:
			return nil, false, nil
		case line[0] == '"':
			s.quoted = append(s.quoted, '"')
			line = line[1:]
		case line[0] == s.delim:
			return line[1:], true, nil
		default:
			return nil, false, errTextBehind
		}
	}
}

// checkPlain looks at the next unquoted cell of a record for signs that its quotes were meant to quote.
func (s *scanner) checkPlain(cell []byte) {
	odd := bytes.Count(cell, []byte{'"'})%2 == 1
	column := len(s.rec.cells)
	switch text := bytes.TrimLeft(cell, " \t"); {
	case len(text) < len(cell) && len(text) > 0 && text[0] == '"' && (odd || !s.plainQuotes()):
		s.fault(column, "has a space before its opening quote; remove the space")
	case !odd || s.plainQuotes():
	case s.oddQuotes >= 0:
		s.fault(s.oddQuotes, "has a quote that seems to be closed in a later cell"+advice)
	default:
		s.oddQuotes = column
	}
}

// fault records what is wrong with a cell, unless the record has a fault already.
func (s *scanner) fault(column int, message string) {
	if s.broken == nil {
		s.broken = &syntaxError{column: column, message: message}
	}
}

// continueCell reads the next line of a quoted cell that was opened in the line given.
func (s *scanner) continueCell(opened int64) ([]byte, error) {
	fatal := func(why string) error {
		return &syntaxError{column: len(s.rec.cells), fatal: true, message: fmt.Sprintf("has a quote, opened in line %d, that is not closed %s%s", opened, why, advice)}
	}
	if !s.ended {
		return nil, fatal("before the end of the file")
	}
	line, err := s.readLine()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fatal("before the end of the file")
	case errors.Is(err, errLineTooLong):
		return nil, fatal(fmt.Sprintf("within %d bytes", MaxRecordBytes))
	}
	return line, err
}

// readLine returns the next line without its end, valid until the next call. It counts the line in s.line and s.size. A line
// with which the record exceeds MaxRecordBytes is read to its end but not kept.
func (s *scanner) readLine() ([]byte, error) {
	line, err := s.in.ReadSlice('\n')
	s.size += len(line)
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = s.readLong(line)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(line) == 0 {
		return nil, io.EOF
	}
	s.line++
	if s.size > MaxRecordBytes {
		return nil, errLineTooLong
	}
	n := len(line)
	if s.ended = line[n-1] == '\n'; s.ended {
		n--
	}
	// More than one CR comes from programs that write CRLF through a layer that makes CRLF of every LF.
	for n > 0 && line[n-1] == '\r' {
		n--
	}
	return line[:n], nil
}

// readLong reads the rest of a line that begins with what is given, keeping no more than MaxRecordBytes of it.
func (s *scanner) readLong(begin []byte) ([]byte, error) {
	s.long = append(s.long[:0], begin...)
	for {
		part, err := s.in.ReadSlice('\n')
		s.size += len(part)
		if s.size <= MaxRecordBytes {
			s.long = append(s.long, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return s.long, err
		}
	}
}
