package vertex

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	dialTimeout         = 10 * time.Second // Google's front ends are tens of milliseconds away
	tlsHandshakeTimeout = 10 * time.Second
	// keepAlive is the period of TCP keep-alives, which also tell a dead connection from a model that thinks for a minute.
	keepAlive = 15 * time.Second
	// idleConnTimeout closes unused connections well before Google's front ends do, after some minutes: a request on a
	// connection that the other side is closing ends unanswered, and might be paid for.
	idleConnTimeout = 90 * time.Second
	// maxHeaderBytes bounds the head of an answer. Real ones take less than two kilobytes.
	maxHeaderBytes = 64 << 10
	// windowSize bounds what HTTP/2 holds for a stream that waits for the byte budget. The default of 4 MiB would, with
	// thousands of answers at a time, take gigabytes. The window of a connection stays at its default of 1 GiB: it must
	// never be full of streams that wait, or the one that holds the budget would get no more bytes, for ever.
	windowSize = 64 << 10
	// pingAfter is how long an HTTP/2 connection may be silent before it is checked. Models are silent for a minute.
	pingAfter = 30 * time.Second
	// maxRetryAfter bounds what a service may ask us to wait. Capacity is shared and comes back within minutes.
	maxRetryAfter = 10 * time.Minute
)

// newTransport returns the transport beneath the calls.
//
// HTTP/1.1 with a connection for each call in flight is the default: receiving an image costs about a third less CPU than
// on HTTP/2, no window has to be tuned, and one lost packet holds up one image. HTTP/2 takes a hundredth of the
// connections, for where those are short.
//
// Compression is never asked for: images don't shrink, and a gzip reply costs several times the CPU of the image.
func newTransport(maxConns int, http2 bool) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    tlsHandshakeTimeout,
		DisableCompression:     true,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxConns,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if http2 {
		t.Protocols.SetHTTP2(true)
		t.HTTP2 = &http.HTTP2Config{
			MaxReceiveBufferPerStream: windowSize,
			SendPingTimeout:           pingAfter,
		}
	}
	return t
}

// roundTripper takes the images out of the answers to calls, whose state is in their context. It reads an answer to its
// end, so the body that it hands on is in memory.
type roundTripper struct{ base http.RoundTripper }

func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callFrom(req.Context())
	resp, err := t.base.RoundTrip(req.WithContext(c.trace(req.Context())))
	if err != nil {
		return nil, err
	}
	c.status = resp.StatusCode
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		c.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
		resp.Body = limit(resp.Body, maxErrorBytes)
		return resp, nil
	}
	defer resp.Body.Close()
	remainder, err := c.read(req.Context(), resp.Body, resp.ContentLength)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(remainder))
	resp.ContentLength = int64(len(remainder))
	return resp, nil
}

// limit cuts a body off after n bytes.
func limit(body io.ReadCloser, n int64) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, n), body}
}

// parseRetryAfter reads the header of that name: seconds, or a date. What it can't read, and what is past, is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		return boundRetryAfter(seconds)
	}
	if at, err := http.ParseTime(value); err == nil {
		return boundRetryAfter(at.Sub(now).Seconds())
	}
	return 0
}

func boundRetryAfter(seconds float64) time.Duration {
	if !(seconds > 0) { // also NaN
		return 0
	}
	return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
}
