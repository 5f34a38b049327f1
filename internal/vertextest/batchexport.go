package vertextest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// exporter writes the output files of a job, row by row, without holding them.
type exporter struct {
	create      func(ctx context.Context, bucket, name, contentType string) (io.WriteCloser, error)
	read        func(ctx context.Context, bucket, name string) (io.ReadCloser, error)
	ctx         context.Context
	bucket, dir string // dir without a slash at the end
	partRows    int    // rows until the file is closed; 0: never
	grow        bool   // the next part begins with the last: there is one file
	closed      func(uri string)

	parts  int
	rows   int // in the open file
	name   string
	file   io.WriteCloser // nil: none is open
	cancel context.CancelFunc
	buf    *bufio.Writer
}

// exportBuffer gathers the small pieces of a row into writes of a sensible size.
const exportBuffer = 256 << 10

// row writes one line: what write writes, and a newline.
func (e *exporter) row(write func(io.Writer) error) error {
	if e.file == nil {
		if err := e.open(); err != nil {
			return err
		}
	}
	err := write(e.buf)
	if err == nil {
		err = e.buf.WriteByte('\n')
	}
	if err != nil {
		return errors.Join(err, e.abort())
	}
	if e.rows++; e.rows == e.partRows {
		return e.close()
	}
	return nil
}

func (e *exporter) open() error {
	e.name = e.dir + "/predictions.jsonl"
	if e.partRows > 0 && !e.grow {
		e.name = fmt.Sprintf("%s/predictions_%04d.jsonl", e.dir, e.parts)
	}
	ctx, cancel := context.WithCancel(e.ctx)
	file, err := e.create(ctx, e.bucket, e.name, "application/octet-stream")
	if err != nil {
		cancel()
		return err
	}
	e.file, e.cancel, e.rows = file, cancel, 0
	if e.buf == nil {
		e.buf = bufio.NewWriterSize(nil, exportBuffer)
	}
	e.buf.Reset(file)
	e.parts++
	if e.grow && e.parts > 1 {
		return e.copyLast(ctx)
	}
	return nil
}

// copyLast begins the file with what is visible of it.
func (e *exporter) copyLast(ctx context.Context) error {
	last, err := e.read(ctx, e.bucket, e.name)
	if err == nil {
		_, err = io.Copy(e.buf, last)
		err = errors.Join(err, last.Close())
	}
	if err != nil {
		return errors.Join(err, e.abort())
	}
	return nil
}

// close makes the open file visible, if one is open.
func (e *exporter) close() error {
	if e.file == nil {
		return nil
	}
	if err := e.buf.Flush(); err != nil {
		return errors.Join(err, e.abort())
	}
	err := e.file.Close()
	e.cancel()
	e.file = nil
	if err == nil {
		e.closed("gs://" + e.bucket + "/" + e.name)
	}
	return err
}

// abort drops the open file.
func (e *exporter) abort() error {
	if e.file == nil {
		return nil
	}
	e.cancel() // before Close, which would make half a file visible
	err := e.file.Close()
	e.file = nil
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
