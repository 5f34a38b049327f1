package rival

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/segmentio/asm/base64"
	"golang.org/x/sync/errgroup"
)

// FloorConfig says what to relay.
type FloorConfig struct {
	ModelURL   string // base URL
	StorageURL string // base URL
	Bucket     string
	Project    string
	Jobs       int
	InFlight   int
	// Decode turns the base64 of the image into bytes on the way, without a look at the JSON around it, so that the upload is the image. Otherwise it is
	// the answer as it came.
	Decode bool
}

const (
	// relayBlock is how much is decoded at a time: two TLS records.
	relayBlock = 32 << 10
	// writeBuffer gathers what arrives, record by record, so that it leaves in fewer writes. More does not make the floor any lower.
	writeBuffer = 64 << 10
)

// Floor passes the answers of the model on to the storage: a POST, whose response is the body of a PUT, both by HTTP/1.1 with a connection for each call in
// flight. It is what the bytes cost on their way through a process, with TLS on both sides.
func Floor(ctx context.Context, cfg FloorConfig) error {
	transport := &http.Transport{
		MaxConnsPerHost: cfg.InFlight, MaxIdleConnsPerHost: cfg.InFlight, DisableCompression: true,
		WriteBufferSize: writeBuffer, Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	defer transport.CloseIdleConnections()
	f := &floor{cfg: cfg, client: &http.Client{Transport: transport}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cfg.InFlight)
	for i := range cfg.Jobs {
		group.Go(func() error { return f.relay(ctx, i) })
	}
	return group.Wait()
}

type floor struct {
	cfg    FloorConfig
	client *http.Client
}

func (f *floor) relay(ctx context.Context, i int) error {
	answer, err := f.do(ctx, http.MethodPost, f.cfg.ModelURL+callPath(f.cfg.Project), strings.NewReader(request("picture of the floor")))
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	defer answer.Body.Close()
	var body io.Reader = answer.Body
	if f.cfg.Decode {
		body = &imageReader{from: body}
	}
	name := fmt.Sprintf("%s/%s/floor/%d", f.cfg.StorageURL, f.cfg.Bucket, i)
	stored, err := f.do(ctx, http.MethodPut, name, body)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return stored.Body.Close()
}

func (f *floor) do(ctx context.Context, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s %s: %s", method, req.URL.Path, resp.Status), resp.Body.Close())
	}
	return resp, nil
}

// imageReader decodes the first long string of a JSON text.
type imageReader struct {
	from    io.Reader
	text    [relayBlock]byte
	have    int  // bytes of text
	inside  bool // of the string
	decoded [relayBlock]byte
	rest    []byte // of decoded
	ended   bool
}

// mark is what stands before the image.
var mark = []byte(`"data": "`)

func (r *imageReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended {
			// The connection can be used again only when its answer was read to the end.
			if _, err := io.Copy(io.Discard, r.from); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// fill reads on, and decodes what whole quads it can.
func (r *imageReader) fill() error {
	n, err := r.from.Read(r.text[r.have:])
	r.have += n
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !r.inside {
		at := bytes.Index(r.text[:r.have], mark)
		switch {
		case at >= 0:
			r.inside = true
		case err != nil || r.have == len(r.text):
			return errors.New("the answer does not begin with an image")
		default:
			return nil
		}
		r.have = copy(r.text[:], r.text[at+len(mark):r.have])
	}
	text := r.text[:r.have]
	if quote := bytes.IndexByte(text, '"'); quote >= 0 {
		text, r.ended = text[:quote], true
	} else {
		text = text[:len(text)&^3]
	}
	n, decodeErr := base64.StdEncoding.Decode(r.decoded[:], text)
	r.rest = r.decoded[:n]
	r.have = copy(r.text[:], r.text[len(text):r.have])
	if r.ended {
		return decodeErr
	}
	return errors.Join(err, decodeErr)
}
