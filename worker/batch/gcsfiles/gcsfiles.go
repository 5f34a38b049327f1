// Package gcsfiles keeps the files of batches in a Cloud Storage bucket. [Files] implements batch.Files.
//
// Contract: what a method has returned is durable. A file is replaced as a whole or not at all; whoever reads it while it is replaced reads
// the old one or the new one. Errors that may pass are tried again until the context ends.
//
// Invariants:
//   - Nothing is held of a file but 256 KiB, or a chunk of 8 MiB while a large one is written.
//   - What is stored has the checksum of what was written.
//   - A conditional write whose answer was lost is known again by its content.
//
// Non-goals: what is in the files; who may write them; deleting them, which is for a lifecycle rule.
package gcsfiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker/batch"
)

// setting is the setting that chooses the bucket, for errors.
const setting = "ASSETMILL_WORK_BUCKET"

// maxSmall bounds a file that is read as a whole, in bytes. The largest are lists of some thousand ranges or rows, a few hundred kilobytes.
const maxSmall = 16 << 20

// Config says where the files are.
type Config struct {
	Bucket string
	// AnyLocation takes the bucket to be in every region. It is for emulators, whose buckets are nowhere.
	AnyLocation bool
}

// Files are the files of batches. It is safe for concurrent use.
type Files struct {
	cfg      Config
	reads    *storage.BucketHandle
	writes   *storage.BucketHandle
	location atomic.Pointer[string] // nil until it is known
}

var _ batch.Files = (*Files)(nil)

// New returns the files in a bucket. Until [Files.Check] has learned where the bucket is, it serves no data region.
//
// The client tries reads again by itself, also one that breaks off in the middle. Its retries are switched off for writes: a repeated
// conditional write needs to know of the first.
func New(client *storage.Client, cfg Config) *Files {
	return &Files{
		cfg: cfg, reads: client.Bucket(cfg.Bucket),
		writes: client.Bucket(cfg.Bucket).Retryer(storage.WithPolicy(storage.RetryNever)),
	}
}

// Check returns an error that says what to do when the bucket is missing or may not be used. It learns where the bucket is, if this account
// may know; if not, only jobs that may run anywhere go to batches.
func (f *Files) Check(ctx context.Context) error {
	if err := gcs.Check(ctx, f.writes, f.cfg.Bucket, setting, "roles/storage.objectUser on it"); err != nil || f.cfg.AnyLocation {
		return err
	}
	attrs, err := f.reads.Attrs(ctx)
	if gcs.Forbidden(err) {
		return nil // whoever may write objects need not be allowed to know
	}
	if err != nil {
		return fmt.Errorf("find out where bucket gs://%s is: %w", f.cfg.Bucket, err)
	}
	location := strings.ToLower(attrs.Location)
	f.location.Store(&location)
	return nil
}

// Serves reports whether the bucket is where data of a region may be: in the region itself, for one that is a region.
func (f *Files) Serves(region string) bool {
	if region == jobs.GlobalRegion || f.cfg.AnyLocation {
		return true
	}
	location := f.location.Load()
	return location != nil && *location == region
}

// URI returns the gs:// URI of a file.
func (f *Files) URI(name string) string { return "gs://" + f.cfg.Bucket + "/" + name }

// Name returns the name of the file at a gs:// URI, if it is in this bucket.
func (f *Files) Name(uri string) (name string, ok bool) {
	name, ok = strings.CutPrefix(uri, "gs://"+f.cfg.Bucket+"/")
	return name, ok && name != ""
}

// Open reads a file from an offset on: length bytes at most, or all if length is negative. Behind the file's end there is nothing.
func (f *Files) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	r, err := f.reads.Object(name).NewRangeReader(ctx, offset, length)
	var refused *googleapi.Error
	switch {
	case err == nil:
		return r, nil
	case gcs.NotFound(err):
		return nil, fmt.Errorf("open %s: %w", f.URI(name), fs.ErrNotExist)
	case errors.As(err, &refused) && refused.Code == http.StatusRequestedRangeNotSatisfiable:
		return io.NopCloser(strings.NewReader("")), nil
	default:
		return nil, fmt.Errorf("open %s: %w", f.URI(name), err)
	}
}

// List returns the files whose names begin with prefix, in the order of their names.
func (f *Files) List(ctx context.Context, prefix string) ([]batch.File, error) {
	query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name", "Size"}); err != nil {
		return nil, err
	}
	var all []batch.File
	for it := f.reads.Objects(ctx, query); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", f.URI(prefix), err)
		}
		all = append(all, batch.File{Name: attrs.Name, Size: attrs.Size})
	}
	slices.SortFunc(all, func(a, b batch.File) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Read returns a small file with its generation; 0 and no data when there is none.
func (f *Files) Read(ctx context.Context, name string) (data []byte, generation int64, err error) {
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		data, generation, err = f.read(ctx, name)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", f.URI(name), err)
	}
	return data, generation, nil
}

func (f *Files) read(ctx context.Context, name string) ([]byte, int64, error) {
	r, err := f.reads.Object(name).NewReader(ctx)
	if gcs.NotFound(err) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = fmt.Errorf("it is larger than %d bytes", maxSmall)
	}
	if err != nil {
		return nil, 0, err
	}
	return data, r.Attrs.Generation, nil
}
