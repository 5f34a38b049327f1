package vertex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/worker"
)

const (
	// rowsReadSize is the buffer of an output's reader: large enough for files, small enough to stay in the CPU's second-level cache.
	rowsReadSize = 128 << 10
	// rowsReadLeast is how much of it is filled before it is looked at, however little a connection gives at a time: a TLS record has 16 KB at most, and
	// what is shorter than a step can't be raced through.
	rowsReadLeast = 96 << 10
	// rowsStepSize is how much is scanned at a time. It stays in the first-level cache, since it is looked at several times: for the line's
	// end, for the string's, for escapes, and to be decoded.
	rowsStepSize = 16 << 10
	// maxRowRemainder bounds what is left of a row without its images and thought signatures, in bytes: a request of a megabyte, which an
	// output may spell with several bytes a character, and the answer's rest.
	maxRowRemainder = 4 << 20
	// keptRemainder is the largest buffer for a remainder that is kept for the next row. Most take a few kilobytes.
	keptRemainder = 256 << 10
	// maxEmptyReads is how often in a row a reader may give nothing, as in package bufio.
	maxEmptyReads = 100
)

// Rows calls each for the lines of a part of a file, in their order. at is the part's place in the file, length its size, and r reads
// the file from there on; it must not end with the part, since the last line may not. An error of each ends the reading and is returned as it
// is. A row's answer belongs to each, also when that fails.
//
// A part has the lines that begin behind its first byte, up to and including the one that begins right behind its last. The first part, at 0, also has
// the file's first line. So every line is in one part, whatever the parts are, and none needs to know the byte before its own.
// Lines of white space are left out.
//
// The memory that Rows takes does not depend on the length of the file or of a line, but for the image, which is decoded as it arrives into a
// blob of the byte budget. One blob is reserved at a time, when the line's image begins, and Rows holds nothing else while it waits
// for the budget. So readers can't block each other, nor those that each hands rows to, as long as these release their
// images without waiting for a reader.
//
// A row's answer is that of an online call, with one exception: an answer without counts has no usage, and UsageMissing says so. What it
// should have cost depends on the job, which only the caller can find out.
func (f *BatchFormat) Rows(ctx context.Context, r io.Reader, at, length int64, each func(worker.OutputRow) error) error {
	if length <= 0 {
		return nil
	}
	s := &rowScanner{format: f, ctx: ctx, each: each, place: at}
	s.begin()
	s.skip = at > 0
	end := at + min(length, math.MaxInt64-at)
	buf := make([]byte, rowsReadSize)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, readErr := fill(r, buf)
		over, err := s.write(buf[:n], end)
		switch {
		case err != nil || over:
			s.drop()
			return err
		case readErr == io.EOF:
			return s.finish()
		case readErr != nil:
			s.drop()
			return fmt.Errorf("read the output at byte %d: %w", s.place, readErr)
		}
	}
}

// fill reads until there is enough to look at, or an error.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for empty := 0; n < rowsReadLeast && err == nil; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty == maxEmptyReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// rowScanner cuts a file into lines, and takes the image out of each as it arrives.
type rowScanner struct {
	format *BatchFormat
	ctx    context.Context
	each   func(worker.OutputRow) error
	place  int64 // in the file, of the next byte

	// Of the line that is being read.
	start   int64 // where it begins
	skip    bool  // it is of another part
	call    *call
	sink    rowSink
	scanner scanner
	broken  error // why it is not scanned any further

	decoder decoder
	last    int64 // bytes of the last image
}

// begin begins a line.
func (s *rowScanner) begin() {
	s.start, s.skip, s.broken = s.place, false, nil
	s.call = &call{budget: s.format.budget, maxImage: s.format.maxImage}
	s.call.decoder, s.call.reserve = &s.decoder, s.reserve
	s.sink = rowSink{capture: &s.call.capture}
	remainder := s.scanner.remainder[:0]
	if cap(remainder) > keptRemainder {
		remainder = nil
	}
	s.scanner = scanner{
		sink: &s.sink, within: responseKey, limit: maxRowRemainder,
		remainder: remainder, stack: s.scanner.stack[:0], name: s.scanner.name[:0],
	}
}

// reserve waits for the byte budget. A batch's images are much of a size: the last one tells what to reserve for the next.
func (s *rowScanner) reserve() (*blob.Blob, error) {
	return s.format.budget.Reserve(s.ctx, max(expected1K, s.last), s.format.maxImage)
}

// drop gives up the line that is being read.
func (s *rowScanner) drop() { s.call.release() }

// write takes the next bytes of the file. It reports whether the part, which ends at the given place, is over.
func (s *rowScanner) write(p []byte, end int64) (over bool, err error) {
	for len(p) > 0 {
		n := s.race(p)
		p = p[n:]
		s.place += int64(n)
		step := p[:min(len(p), rowsStepSize)]
		newline := bytes.IndexByte(step, '\n')
		if newline >= 0 {
			step = step[:newline]
		}
		if err := s.scan(step); err != nil {
			return false, err
		}
		p = p[len(step):]
		s.place += int64(len(step))
		if newline < 0 {
			continue
		}
		if err := s.finish(); err != nil {
			return false, err
		}
		p = p[1:]
		s.place++
		s.begin()
		if s.place > end {
			return true, nil
		}
	}
	return false, nil
}

// race decodes what is nothing but an image's base64 without looking for the end of anything, and returns how much that is. Whatever else
// comes, the decoder stumbles on it.
func (s *rowScanner) race(p []byte) int {
	if s.skip || s.broken != nil || s.scanner.state != inImage || s.scanner.escape > 0 || s.sink.bad != nil {
		return 0
	}
	n, err := s.decoder.race(p)
	s.sink.bad = err
	return n
}

// scan takes the next bytes of a line.
func (s *rowScanner) scan(p []byte) error {
	if s.skip || s.broken != nil || len(p) == 0 {
		return nil
	}
	_, s.broken = s.scanner.Write(p)
	return s.sink.fatal
}

// finish ends a line, and hands it over.
func (s *rowScanner) finish() error {
	err := s.broken
	if s.skip || err == nil && len(bytes.Trim(s.scanner.remainder, " \t\r")) == 0 {
		s.drop()
		return nil
	}
	if err == nil {
		err = s.scanner.Close()
	}
	row := worker.OutputRow{Offset: s.start, Length: s.place - s.start}
	s.read(&row, err)
	s.drop() // what the row did not take
	if row.Answer != nil && row.Answer.Image != nil {
		s.last = row.Answer.Image.Blob.Len()
	}
	return s.each(row)
}

// read fills in a row from what was scanned of its line. damage is why the line was not scanned to its end.
func (s *rowScanner) read(row *worker.OutputRow, damage error) {
	fields, err := splitRow(s.scanner.remainder)
	echo := readEcho(fields.request)
	row.Hash, row.Hi, row.Lo = echo.hash, echo.Labels[rowHighLabel], echo.Labels[rowLowLabel]
	s.call.Job = echo.job()
	switch {
	case damage != nil && !errors.Is(damage, io.ErrUnexpectedEOF):
		row.Damaged = damage
	case err != nil: // which tells a line that is cut from one that is no JSON
		row.Damaged = err
	case damage != nil:
		row.Damaged = errCut
	case s.sink.bad != nil:
		row.Damaged = s.sink.bad
	default:
		row.Answer, row.Err, row.Damaged = s.call.row(fields)
	}
}

// rowSink is the sink of a row. An image that is not base64 spoils its row, whose rest is read all the same: it may say whose it is.
type rowSink struct {
	*capture
	bad   error // what is wrong with an image
	fatal error // why nothing more can be read
}

func (s *rowSink) begin() error {
	s.fatal = s.capture.begin()
	return s.fatal
}

func (s *rowSink) Write(p []byte) (int, error) {
	if s.bad == nil {
		_, s.bad = s.capture.Write(p)
	}
	return len(p), nil
}

func (s *rowSink) end() (string, error) {
	name, err := s.capture.end()
	if s.bad == nil {
		s.bad = err
	}
	return name, nil
}

var _ sink = (*rowSink)(nil)
