package vertextest_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
)

// buckets is Cloud Storage for one test: objects by URI.
type buckets struct {
	mu      sync.Mutex
	objects map[string][]byte
	types   map[string]string
	fail    error // of every creation
}

func (b *buckets) create(ctx context.Context, bucket, name, contentType string) (io.WriteCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	return &objectWriter{b: b, ctx: ctx, uri: "gs://" + bucket + "/" + name, contentType: contentType}, nil
}

func (b *buckets) open(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	body, ok := b.get("gs://" + bucket + "/" + name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

func (b *buckets) put(uri string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects == nil {
		b.objects, b.types = map[string][]byte{}, map[string]string{}
	}
	b.objects[uri] = body
}

func (b *buckets) get(uri string) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	body, ok := b.objects[uri]
	return body, ok
}

// names returns the URIs in order.
func (b *buckets) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for uri := range b.objects {
		out = append(out, uri)
	}
	slices.Sort(out)
	return out
}

type objectWriter struct {
	b                *buckets
	ctx              context.Context
	uri, contentType string
	body             bytes.Buffer
}

func (w *objectWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

func (w *objectWriter) Close() error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	w.b.put(w.uri, w.body.Bytes())
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.b.types[w.uri] = w.contentType
	return nil
}

// only returns the one object there is.
func (b *buckets) only(t *testing.T) (uri string, body []byte) {
	t.Helper()
	names := b.names()
	if len(names) != 1 {
		t.Fatalf("objects %v, want one", names)
	}
	body, _ = b.get(names[0])
	return names[0], body
}
