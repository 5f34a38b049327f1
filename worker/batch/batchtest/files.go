package batchtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/assetmill/assetmill/worker/batch"
)

// Files is a work bucket in memory. The zero value is empty.
type Files struct {
	mu         sync.Mutex
	generation int64
	objects    map[string]object
}

type object struct {
	data       []byte
	generation int64
}

const bucketURI = "gs://work/"

// put stores a file. The caller holds the lock.
func (f *Files) put(name string, data []byte) int64 {
	if f.objects == nil {
		f.objects = map[string]object{}
	}
	f.generation++
	f.objects[name] = object{data, f.generation}
	return f.generation
}

// Write implements batch.Files.
func (f *Files) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(name, buf.Bytes())
	return nil
}

// Open implements batch.Files.
func (f *Files) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.objects[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	if offset > int64(len(o.data)) {
		return nil, fmt.Errorf("open %s: byte %d is beyond its end", name, offset)
	}
	part := o.data[offset:]
	if length >= 0 {
		part = part[:min(length, int64(len(part)))]
	}
	return io.NopCloser(bytes.NewReader(part)), nil
}

// List implements batch.Files.
func (f *Files) List(ctx context.Context, prefix string) ([]batch.File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []batch.File
	for _, name := range slices.Sorted(maps.Keys(f.objects)) {
		if strings.HasPrefix(name, prefix) {
			all = append(all, batch.File{Name: name, Size: int64(len(f.objects[name].data))})
		}
	}
	return all, nil
}

// Read implements batch.Files.
func (f *Files) Read(ctx context.Context, name string) ([]byte, int64, error) {
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[name]
	return bytes.Clone(o.data), o.generation, nil
}

// Swap implements batch.Files.
func (f *Files) Swap(ctx context.Context, name string, generation int64, data []byte) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects[name].generation != generation {
		return 0, fmt.Errorf("swap %s: %w", name, batch.ErrSwapped)
	}
	return f.put(name, bytes.Clone(data)), nil
}

// URI implements batch.Files.
func (f *Files) URI(name string) string { return bucketURI + name }

// Name implements batch.Files.
func (f *Files) Name(uri string) (string, bool) { return strings.CutPrefix(uri, bucketURI) }

// Serves implements batch.Files: data of regions whose names begin with "elsewhere" may not be here.
func (f *Files) Serves(region string) bool { return !strings.HasPrefix(region, "elsewhere") }

// Move renames a file.
func (f *Files) Move(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(to, f.objects[from].data)
	delete(f.objects, from)
}
