package vertextest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxBatchLine bounds one line of a batch input: a request, or in an output to
// resume from a request and an answer with an image of the largest size.
const maxBatchLine = maxRequestBytes + 2*maxImageBytes

// spool is the input of a job on disk, with an index of its lines: rows are
// answered in an order of their own, and an input may be larger than memory
// should be. The file has no name, so nothing is left behind.
type spool struct {
	file *os.File
	ends []int64 // where each line ends
	done []bool  // lines of an earlier output that need no work; nil: none
}

// newSpool copies the lines of r and checks them as the service does.
func newSpool(dir string, r io.Reader) (*spool, error) {
	file, err := os.CreateTemp(dir, "vertextest-batch-*")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &spool{file: file}
	err = os.Remove(file.Name())
	if err == nil {
		err = s.fill(r)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *spool) close() error { return s.file.Close() }

// rows returns how many lines there are.
func (s *spool) rows() int { return len(s.ends) }

func (s *spool) fill(r io.Reader) error {
	in := bufio.NewReaderSize(r, 256<<10)
	out := bufio.NewWriterSize(s.file, 256<<10)
	var line []byte
	fresh := int64(0) // bytes of lines without an answer
	for end := false; !end; {
		var err error
		if line, err = readLine(in, line[:0]); err == io.EOF {
			end = true
		} else if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		done, err := checkLine(line)
		if err != nil {
			return invalid("Failed to read the input file: line %d: %v", len(s.ends)+1, err)
		}
		if !done {
			fresh += int64(len(line)) + 1
		}
		if len(s.ends) == maxBatchRows || fresh > maxBatchInputBytes {
			return invalid("The input file exceeds the limit of %d requests or %d bytes.", maxBatchRows, maxBatchInputBytes)
		}
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		s.add(len(line), done)
	}
	if len(s.ends) == 0 {
		return invalid("The input file has no requests.")
	}
	return out.Flush()
}

func (s *spool) add(length int, done bool) {
	start := int64(0)
	if n := len(s.ends); n > 0 {
		start = s.ends[n-1]
	}
	s.ends = append(s.ends, start+int64(length))
	if done && s.done == nil {
		s.done = make([]bool, len(s.ends)-1)
	}
	if s.done != nil {
		s.done = append(s.done, done)
	}
}

// readLine appends the next line to buf, without its newline. The last line
// comes with io.EOF.
func readLine(r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		piece, err := r.ReadSlice('\n')
		buf = append(buf, piece...)
		if len(buf) > maxBatchLine {
			return nil, invalid("A line of the input file exceeds %d bytes.", maxBatchLine)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		return bytes.TrimSuffix(buf, []byte("\n")), err
	}
}

// checkLine reports whether a line is a row of an earlier output that succeeded.
func checkLine(line []byte) (done bool, err error) {
	var row struct {
		Request  map[string]json.RawMessage `json:"request"`
		Status   string                     `json:"status"`
		Response map[string]json.RawMessage `json:"response"`
	}
	if err := json.Unmarshal(line, &row); err != nil {
		return false, err
	}
	if row.Request == nil {
		return false, errors.New(`no field "request"`)
	}
	return row.Status == "" && len(row.Response) > 0, nil
}

// isDone reports whether line i needs no work.
func (s *spool) isDone(i int) bool { return s.done != nil && s.done[i] }

// line reads line i into buf, which it may replace.
func (s *spool) line(i int, buf []byte) ([]byte, error) {
	start := int64(0)
	if i > 0 {
		start = s.ends[i-1]
	}
	n := int(s.ends[i] - start)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := s.file.ReadAt(buf[:n], start); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return buf[:n], nil
}
