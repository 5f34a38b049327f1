package gcs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	raw "google.golang.org/api/storage/v1"
)

// Uploader writes objects whose length is known, each as one request of the JSON API. The client's own writer passes all bytes through two pipes,
// each with a goroutine, in chunks of unknown number: for the ledger's records, and for images that are in memory anyway, that costs
// more than the writing (docs/performance.md).
//
// It makes no second try. What goes wrong at the service is a *googleapi.Error, as with the client, and [Retryable] judges it. It is safe for
// concurrent use. A nil Uploader writes through the client.
type Uploader struct {
	client  *http.Client
	base    string
	timeout time.Duration // uploadTimeout, but for tests
}

const (
	// defaultEndpoint is where Cloud Storage is.
	defaultEndpoint = "https://storage.googleapis.com"
	// uploadTimeout bounds one request. The largest image, 64 MiB, takes that long at 4.5 Mbit/s; slower, and the connection is as good as dead.
	uploadTimeout = 2 * time.Minute
	// maxAnswerBytes bounds an answer: the resource of an object, whose metadata may take 8 KiB.
	maxAnswerBytes = 256 << 10
)

// errStalled says that an upload was given up. Another connection may do better.
var errStalled = errors.New("the upload did not come to its end in time")

// NewUploader returns an uploader that sends its requests by a client, which must add the credentials. The endpoint is a base URL, or
// host:port for plain HTTP, as in STORAGE_EMULATOR_HOST; empty stands for Google's.
func NewUploader(client *http.Client, endpoint string) *Uploader {
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	return &Uploader{client, strings.TrimSuffix(endpoint, "/"), uploadTimeout}
}

// Upload is an object to be written.
type Upload struct {
	ContentType string // a media type
	Metadata    map[string]string
	CRC32C      *uint32          // what arrives with another one is refused; nil: not checked
	Size        int64            // bytes
	Open        func() io.Reader // of the bytes, from the start; may be called more than once, but not when Write has returned
}

// Write writes an object on the condition, of which DoesNotExist and GenerationMatch count. The attributes that it returns are the object's name, generation,
// size, checksum, type and metadata.
func (u *Uploader) Write(ctx context.Context, o *storage.ObjectHandle, cond storage.Conditions, up Upload) (*storage.ObjectAttrs, error) {
	if u == nil {
		return writeByClient(ctx, o, cond, up)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.timeout, errStalled)
	defer cancel()
	l := &loan{open: up.Open}
	defer l.end()
	req, err := u.request(ctx, o, cond, up, l)
	if err != nil {
		return nil, err
	}
	attrs, err := u.do(req)
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return nil, errors.Join(errStalled, err)
	}
	return attrs, err
}

// loan lends bytes to a transport. That may go on reading when the answer is there, or when a request was given up; whoever owns the
// bytes may have put others in their place by then.
type loan struct {
	mu   sync.Mutex
	open func() io.Reader
	over bool
}

// end returns when nobody reads any more.
func (l *loan) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

// reader starts from the beginning.
func (l *loan) reader() io.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return &borrowed{l, nil}
	}
	return &borrowed{l, l.open()}
}

type borrowed struct {
	*loan
	from io.Reader
}

func (b *borrowed) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, errLoanOver
	}
	return b.from.Read(p)
}

var errLoanOver = errors.New("the upload is over")

// request makes a request of two parts: what the object is, and its bytes.
func (u *Uploader) request(ctx context.Context, o *storage.ObjectHandle, cond storage.Conditions, up Upload, l *loan) (*http.Request, error) {
	if strings.ContainsAny(up.ContentType, "\r\n") { // it becomes a line between the parts
		return nil, fmt.Errorf("%q is no media type", up.ContentType)
	}
	resource := &raw.Object{Bucket: o.BucketName(), Name: o.ObjectName(), ContentType: up.ContentType, Metadata: up.Metadata}
	if up.CRC32C != nil {
		resource.Crc32c = EncodeCRC32C(*up.CRC32C)
	}
	meta, err := json.Marshal(resource)
	if err != nil {
		return nil, err
	}
	boundary := rand.Text() // which nobody can have put into an image
	head := fmt.Appendf(nil, "--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n--%s\r\nContent-Type: %s\r\n\r\n",
		boundary, meta, boundary, up.ContentType)
	tail := "\r\n--" + boundary + "--\r\n"
	body := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(head), io.LimitReader(l.reader(), up.Size), strings.NewReader(tail))), nil
	}
	first, _ := body() // never fails
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.address(o, cond), first)
	if err != nil {
		return nil, err
	}
	// With GetBody, net/http takes another connection when an idle one turns out to be closed before anything was written.
	req.GetBody = body
	req.ContentLength = int64(len(head)) + up.Size + int64(len(tail))
	req.Header.Set("Content-Type", "multipart/related; boundary="+boundary)
	return req, nil
}

// EncodeCRC32C returns a checksum as the JSON API has it: big endian, base64.
func EncodeCRC32C(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func (u *Uploader) address(o *storage.ObjectHandle, cond storage.Conditions) string {
	query := url.Values{"uploadType": {"multipart"}, "name": {o.ObjectName()}, "prettyPrint": {"false"}}
	if cond.DoesNotExist || cond.GenerationMatch != 0 {
		query.Set("ifGenerationMatch", strconv.FormatInt(cond.GenerationMatch, 10))
	}
	return u.base + "/upload/storage/v1/b/" + url.PathEscape(o.BucketName()) + "/o?" + query.Encode()
}

func (u *Uploader) do(req *http.Request) (*storage.ObjectAttrs, error) {
	resp, err := u.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := googleapi.CheckResponse(resp); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes)) // to its end, so that the connection is used again
	if err != nil {
		return nil, &url.Error{Op: "read answer", URL: req.URL.Path, Err: err} // as the client would say it
	}
	var stored raw.Object
	if err := json.Unmarshal(text, &stored); err != nil {
		return nil, fmt.Errorf("answer of Cloud Storage: %w", err)
	}
	sum, err := base64.StdEncoding.DecodeString(stored.Crc32c)
	if err != nil || len(sum) != 4 {
		return nil, fmt.Errorf("answer of Cloud Storage: %q is no CRC32C", stored.Crc32c)
	}
	return &storage.ObjectAttrs{
		Bucket: stored.Bucket, Name: stored.Name, Generation: stored.Generation, Metageneration: stored.Metageneration, Size: int64(stored.Size),
		CRC32C: binary.BigEndian.Uint32(sum), ContentType: stored.ContentType, Metadata: stored.Metadata,
	}, nil
}

// writeByClient is Write without an uploader.
func writeByClient(ctx context.Context, o *storage.ObjectHandle, cond storage.Conditions, up Upload) (*storage.ObjectAttrs, error) {
	ctx, abort := context.WithCancel(ctx)
	defer abort() // a writer is given up by its context; after Close this does nothing
	if cond != (storage.Conditions{}) {
		o = o.If(cond)
	}
	w := o.NewWriter(ctx)
	w.ContentType, w.Metadata, w.ChunkSize = up.ContentType, up.Metadata, 0
	if up.CRC32C != nil {
		w.CRC32C, w.SendCRC32C = *up.CRC32C, true
	}
	if _, err := io.Copy(w, io.LimitReader(up.Open(), up.Size)); err != nil {
		abort()
		return nil, errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}
