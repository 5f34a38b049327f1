package gcs_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/gcs/gcstest"
)

const bucket = "some-bucket"

func upload(data []byte) gcs.Upload {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return gcs.Upload{
		ContentType: "image/png", Metadata: map[string]string{"Key": "värde\r\n--"}, CRC32C: &sum, Size: int64(len(data)),
		Open: func() io.Reader { return bytes.NewReader(data) },
	}
}

// Whatever writes it, the same object is there, and the same is said of it.
func TestWrite(t *testing.T) {
	t.Parallel()
	client, base := gcstest.Start(t, bucket, nil)
	for way, u := range map[string]*gcs.Uploader{"client": nil, "uploader": gcs.NewUploader(http.DefaultClient, base), "host": gcs.NewUploader(http.DefaultClient, strings.TrimPrefix(base, "http://"))} {
		for _, size := range []int{0, 1, 5000, 1 << 20} {
			data := bytes.Repeat([]byte{'x'}, size)
			o := client.Bucket(bucket).Object(way + "/a name?with&signs/" + string(rune('a'+len(data)%26)))
			attrs, err := u.Write(t.Context(), o, storage.Conditions{DoesNotExist: true}, upload(data))
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", way, size, err)
			}
			there, err := o.Attrs(t.Context())
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", way, size, err)
			}
			known := func(a *storage.ObjectAttrs) storage.ObjectAttrs {
				return storage.ObjectAttrs{
					Bucket: a.Bucket, Name: a.Name, Generation: a.Generation, Metageneration: a.Metageneration, Size: a.Size, CRC32C: a.CRC32C,
					ContentType: a.ContentType, Metadata: a.Metadata,
				}
			}
			want := storage.ObjectAttrs{
				Bucket: bucket, Name: o.ObjectName(), Generation: there.Generation, Metageneration: there.Metageneration, Size: int64(size),
				CRC32C: *upload(data).CRC32C, ContentType: "image/png", Metadata: upload(nil).Metadata,
			}
			for what, got := range map[string]storage.ObjectAttrs{"said": known(attrs), "there": known(there)} {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s, %d bytes, %s: %s", way, size, what, diff)
				}
			}
		}
	}
}

func TestWriteOnCondition(t *testing.T) {
	t.Parallel()
	client, base := gcstest.Start(t, bucket, nil)
	u := gcs.NewUploader(http.DefaultClient, base)
	o := client.Bucket(bucket).Object("o")
	first, err := u.Write(t.Context(), o, storage.Conditions{DoesNotExist: true}, upload([]byte("1")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(t.Context(), o, storage.Conditions{DoesNotExist: true}, upload([]byte("2"))); !gcs.PreconditionFailed(err) {
		t.Errorf("a second object of the name: %v", err)
	}
	second, err := u.Write(t.Context(), o, storage.Conditions{GenerationMatch: first.Generation}, upload([]byte("2")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(t.Context(), o, storage.Conditions{GenerationMatch: first.Generation}, upload([]byte("3"))); !gcs.PreconditionFailed(err) {
		t.Errorf("on a generation that has gone: %v", err)
	}
	if _, err := u.Write(t.Context(), o, storage.Conditions{}, upload([]byte("4"))); err != nil || second.Generation == first.Generation {
		t.Errorf("without a condition: %v", err)
	}
}

// handle serves what stands for Cloud Storage.
func handle(t *testing.T, h http.HandlerFunc) (*gcs.Uploader, *storage.ObjectHandle) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	client, err := storage.NewClient(t.Context(), option.WithoutAuthentication(), option.WithEndpoint(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return gcs.NewUploader(server.Client(), server.URL), client.Bucket(bucket).Object("o")
}

func TestWhatGoesWrong(t *testing.T) {
	t.Parallel()
	says := func(code int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, text)
		}
	}
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		judge func(error) bool
	}{
		"unavailable": {says(503, ""), gcs.Retryable},
		"not allowed": {says(403, ""), gcs.Forbidden},
		"no bucket":   {says(404, ""), gcs.NotFound},
		"damaged":     {says(400, `{"error":{"code":400,"message":"Provided CRC32C \"A\" doesn't match calculated CRC32C \"B\"."}}`), gcs.ChecksumRefused},
		"no JSON":     {says(200, "<html>"), func(err error) bool { return err != nil && !gcs.Retryable(err) }},
		"no checksum": {says(200, "{}"), func(err error) bool { return err != nil && !gcs.Retryable(err) }},
		"broken off":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, gcs.Retryable},
		"half a reply": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = io.WriteString(w, "{")
		}, gcs.Retryable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, o := handle(t, tc.serve)
			if attrs, err := u.Write(t.Context(), o, storage.Conditions{}, upload([]byte("x"))); !tc.judge(err) {
				t.Errorf("%+v, %v", attrs, err)
			}
		})
	}
	u, o := handle(t, says(200, "{}"))
	up := upload([]byte("x"))
	up.ContentType = "image/png\r\nX: y"
	if _, err := u.Write(t.Context(), o, storage.Conditions{}, up); err == nil {
		t.Error("a type of two lines passes")
	}
	up = upload([]byte("short"))
	up.Size++
	if _, err := u.Write(t.Context(), o, storage.Conditions{}, up); err == nil {
		t.Error("bytes that are missing are not missed")
	}
}

func isUnavailable(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
}

// endless is bytes without an end, which must not be asked for when they are somebody else's.
type endless struct {
	t    *testing.T
	over *atomic.Bool
	read chan<- struct{} // has room for one
}

func (e endless) Read(p []byte) (int, error) {
	if e.over.Load() {
		e.t.Error("the bytes are read although Write has returned")
	}
	select {
	case e.read <- struct{}{}:
	default:
	}
	return len(p), nil
}

// A service may answer before it has the bytes, and a caller may lose patience. The bytes are pooled: nobody may look at them any more.
func TestNobodyReadsOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer bool
		judge  func(error) bool
	}{"an early answer": {true, isUnavailable}, "no answer": {false, func(err error) bool { return errors.Is(err, context.Canceled) }}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			u, o := handle(t, func(w http.ResponseWriter, r *http.Request) {
				if tc.answer {
					_ = http.NewResponseController(w).EnableFullDuplex()
					w.Header().Set("Content-Length", "0")
					w.WriteHeader(http.StatusServiceUnavailable)
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.Copy(io.Discard, r.Body) // until the client is gone
				close(gone)
			})
			read := make(chan struct{}, 1)
			var over atomic.Bool
			up := gcs.Upload{Size: 1 << 50, Open: func() io.Reader { return endless{t, &over, read} }}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-read
				if !tc.answer {
					cancel()
				}
			}()
			_, err := u.Write(ctx, o, storage.Conditions{}, up)
			over.Store(true)
			if !tc.judge(err) {
				t.Error(err)
			}
			cancel()
			<-gone
		})
	}
}

// An upload that gets no further is given up, and may be tried again.
func TestAStalledUpload(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	u, o := handle(t, func(_ http.ResponseWriter, _ *http.Request) { <-stop })
	t.Cleanup(func() { close(stop) }) // before the server's own
	gcs.SetTimeout(u, 50*time.Millisecond)
	if _, err := u.Write(t.Context(), o, storage.Conditions{}, upload([]byte("x"))); !gcs.Retryable(err) {
		t.Errorf("it is not to be tried again: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the worker stops"))
	if _, err := u.Write(ctx, o, storage.Conditions{}, upload([]byte("x"))); err == nil || gcs.Retryable(err) {
		t.Errorf("it is to be tried again although nobody wants it: %v", err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"crc32c":"AAAAAA=="}`)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	client, err := storage.NewClient(t.Context(), option.WithoutAuthentication(), option.WithEndpoint(server.URL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	u, o := gcs.NewUploader(server.Client(), server.URL), client.Bucket(bucket).Object("o")
	for range 20 {
		if _, err := u.Write(t.Context(), o, storage.Conditions{}, upload([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for uploads one after the other", n)
	}
}
