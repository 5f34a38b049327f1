package vertex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/worker"
)

const (
	// maxBodyBytes bounds a whole answer, in bytes: the largest image as base64, a thought signature of that size, and as
	// much again for interim images. Past it, the answer is broken.
	maxBodyBytes = 256 << 20
	// maxErrorBytes bounds how much of an error answer is read, in bytes.
	maxErrorBytes = 64 << 10
	// firstReadSize is the buffer of an answer until its image begins. It is what thousands of answers hold while they
	// wait for the byte budget.
	firstReadSize = 4 << 10
	// readSize is the buffer of an answer while its image is read: two TLS records.
	readSize = 32 << 10
	// transferTimeout bounds reading an image once the byte budget has let it in. Forty megabytes of base64 in two minutes are
	// 3 Mbit/s; slower, and the connection is as good as dead.
	transferTimeout = 2 * time.Minute
)

var (
	errCallTimeout  = errors.New("no answer within the call's time")
	errBodyTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxBodyBytes)
)

// buffers are what an answer needs while its image is read. They are pooled, and bounded by what the byte budget lets in.
type buffers struct {
	decoder decoder
	read    [readSize]byte
}

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

// call is the state of one Generate. It travels to the RoundTripper in the request's context. The goroutine in Generate
// owns it; only what is atomic is touched by others.
type call struct {
	worker.Call
	budget   *blob.Budget
	maxImage int64
	clock    *clock
	capture
	buffers *buffers

	sent       atomic.Bool // the request's head is on its way on the current connection
	status     int         // HTTP status; 0 before the head of the answer
	retryAfter time.Duration

	strayed      bool // the model wrote an image elsewhere than below Prefix
	aboutOutput  bool // the service refused, and it was about Prefix
	agentMissing bool // the service refused, since it has no service agent yet
}

// release gives back everything that the call holds and did not hand over.
func (c *call) release() {
	c.capture.release()
	if c.buffers != nil {
		bufferPool.Put(c.buffers)
		c.buffers = nil
	}
}

// trace watches whether the request leaves. When net/http repeats a request because nothing of it was written, it asks
// for a connection again.
func (c *call) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { c.sent.Store(false) },
		WroteHeaders: func() { c.sent.Store(true) },
	})
}

// read takes the images out of an answer and returns the remainder. length is the answer's, or -1.
func (c *call) read(ctx context.Context, body io.Reader, length int64) ([]byte, error) {
	var total int64
	c.reserve = func() (*blob.Blob, error) { return c.admit(ctx, length-total) }
	s := &scanner{sink: &c.capture}
	buf := make([]byte, firstReadSize)
	for {
		n, readErr := body.Read(buf)
		if total += int64(n); total > maxBodyBytes {
			return nil, errBodyTooLarge
		}
		if _, err := s.Write(buf[:n]); err != nil {
			return nil, fmt.Errorf("take the image out of the answer: %w", err)
		}
		if readErr == io.EOF {
			if err := s.Close(); err != nil {
				return nil, fmt.Errorf("read the answer: %w", err)
			}
			return s.remainder, nil
		}
		if readErr != nil {
			return nil, fmt.Errorf("read the answer: %w", readErr)
		}
		if c.buffers != nil {
			buf = c.buffers.read[:]
		}
	}
}

// admit waits for the byte budget with the call's clock stopped: the answer is paid for, and the wait is ours. left is the
// rest of the answer's length, negative when it is unknown.
func (c *call) admit(ctx context.Context, left int64) (*blob.Blob, error) {
	want := expectedBytes(c.Job.Size)
	if left >= 0 {
		// A thought signature as large as the image may be part of the length. Too small a reservation is better than one
		// that keeps another answer waiting: the blob may grow.
		want = min(left/4*3+firstReadSize, 2*want)
	}
	c.clock.pause()
	b, err := c.budget.Reserve(ctx, want, c.maxImage)
	if err != nil {
		return nil, err
	}
	c.clock.restart(transferTimeout)
	c.buffers = bufferPool.Get().(*buffers)
	c.decoder = &c.buffers.decoder
	return b, nil
}

// clock ends a call whose time is up. Unlike a context's deadline it can be stopped.
type clock struct{ timer *time.Timer }

func startClock(d time.Duration, cancel context.CancelCauseFunc) *clock {
	return &clock{time.AfterFunc(d, func() { cancel(errCallTimeout) })}
}

func (c *clock) pause()                  { c.timer.Stop() }
func (c *clock) restart(d time.Duration) { c.timer.Reset(d) }

// callKey is the context key of a call.
type callKey struct{}

// callFrom returns the call of a request. Every request of this package has one.
func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }
