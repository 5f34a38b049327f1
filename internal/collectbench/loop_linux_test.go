package collectbench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	simd "github.com/segmentio/asm/base64"
	"golang.org/x/sync/errgroup"
)

// loopBuffer is how much the loop reads and decodes at a time. It stays in the CPU's second-level cache.
const loopBuffer = 128 << 10

// loop reads an output, decodes its base64 and writes each image. It looks for what stands before an image and trusts everything else, the image's length
// included. It decodes as the collector does, with SIMD.
func loop(ctx context.Context, p *place, parts int) error {
	transport, err := newTransport(p)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	transport.WriteBufferSize = loopBuffer / 2
	client := &http.Client{Transport: transport}
	group, ctx := errgroup.WithContext(ctx)
	for part := range parts {
		group.Go(func() error {
			l := &looper{p: p, client: client, at: p.Size * int64(part) / int64(parts), to: p.Size * int64(part+1) / int64(parts)}
			l.name = fmt.Sprintf("loop-%d-%d", parts, part)
			return l.run(ctx)
		})
	}
	return group.Wait()
}

// looper is the loop over a part of the output.
type looper struct {
	p      *place
	client *http.Client
	name   string
	at, to int64
	in     *bufio.Reader
	images int
}

func (l *looper) run(ctx context.Context) error {
	resp, err := l.do(ctx, http.MethodGet, workBucket+"/"+l.p.Output, nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	l.in = bufio.NewReaderSize(resp.Body, loopBuffer)
	if l.at > 0 {
		if err := l.skipLine(); err != nil {
			return err
		}
	}
	for l.at < l.to {
		if err := l.line(ctx); err != nil {
			return err
		}
	}
	return nil
}

// line takes the image out of a line, and writes it while it is being read.
func (l *looper) line(ctx context.Context) error {
	mark := []byte(`"inlineData":{"data":"`)
	head, err := l.in.Peek(4 << 10)
	if err != nil {
		return err
	}
	at := bytes.Index(head, mark)
	if at < 0 {
		return errors.New("a line without an image")
	}
	n, err := l.in.Discard(at + len(mark))
	l.at += int64(n)
	if err != nil {
		return err
	}
	l.images++
	encoded := int64(base64.StdEncoding.EncodedLen(l.p.ImageBytes))
	body := &decoding{in: io.LimitReader(l.in, encoded)}
	resp, err := l.do(ctx, http.MethodPut, fmt.Sprintf("%s/%s/%d.png", assetsBucket, l.name, l.images), body, int64(l.p.ImageBytes))
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	l.at += encoded
	return l.skipLine()
}

func (l *looper) skipLine() error {
	for {
		text, err := l.in.ReadSlice('\n')
		l.at += int64(len(text))
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func (l *looper) do(ctx context.Context, method, path string, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, l.p.URL+"/"+path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if method == http.MethodGet && l.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", l.at))
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, errors.Join(fmt.Errorf("%s %s: %s", method, path, resp.Status), resp.Body.Close())
	}
	return resp, nil
}

// decoding is the bytes that a base64 text of whole quads stands for.
type decoding struct {
	in   io.Reader
	text [loopBuffer / 2]byte
	have int
	out  [loopBuffer / 2]byte
	rest []byte // of out
}

func (d *decoding) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *decoding) fill() error {
	for d.have < 4 {
		n, err := d.in.Read(d.text[d.have:])
		d.have += n
		if n == 0 && err != nil {
			return err
		}
	}
	whole := d.have &^ 3
	n, err := simd.StdEncoding.Decode(d.out[:], d.text[:whole])
	d.rest = d.out[:n]
	d.have = copy(d.text[:], d.text[whole:d.have])
	return err
}

// WriteTo spares a copy.
func (d *decoding) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := d.fill(); errors.Is(err, io.EOF) {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(d.rest)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}
