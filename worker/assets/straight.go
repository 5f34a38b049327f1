package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/imagehead"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// straightFolder holds what models write. It is the first folder of its names, so that a lifecycle rule can act on it.
	straightFolder = "straight/"
	// headBytes is how much of an image is read for its dimensions. PNG and WebP have them in the first hundred bytes, JPEG after its
	// metadata, which is small as a rule.
	headBytes = 64 << 10
	// deepHeadBytes is how much is read when headBytes were too few: Content Credentials with a thumbnail take some hundred kilobytes.
	deepHeadBytes = 1 << 20
	// appearTime is how long an object that a model says it wrote may be missing. Cloud Storage shows it at once; whether the model writes
	// before it answers is not documented.
	appearTime = 10 * time.Second
	// maxWritten bounds how many of the objects that models wrote for one job are looked at. An answer has an image or two, and a job
	// has worker.MaxCalls.
	maxWritten = 4 * worker.MaxCalls
)

var errElsewhere = errors.New("it is not below the job's own prefix")

// folder is where a model may write a job's image.
func folder(j *jobs.Job) string { return straightFolder + j.ID + "/" }

// Prefix implements worker.Assets. It is empty for a job whose data region has no bucket.
func (s *Store) Prefix(j *jobs.Job) string {
	b, err := s.bucketOf(j.Region)
	if err != nil {
		return ""
	}
	return "gs://" + b.BucketName() + "/" + folder(j)
}

// Take implements worker.Assets. The error wraps [worker.ErrUnusable] when there is nothing to take.
func (s *Store) Take(ctx context.Context, j *jobs.Job, uri string) (worker.Asset, error) {
	b, err := s.bucketOf(j.Region)
	if err != nil {
		return worker.Asset{}, err
	}
	name, ok := strings.CutPrefix(uri, "gs://"+b.BucketName()+"/")
	if !ok || !strings.HasPrefix(name, folder(j)) {
		return worker.Asset{}, fmt.Errorf("take %s: %w: %w", uri, worker.ErrUnusable, errElsewhere)
	}
	var asset worker.Asset
	appears := time.Now().Add(appearTime)
	again := func(err error) bool { return retryable(err) || gcs.NotFound(err) && time.Now().Before(appears) }
	err = retry.Do(ctx, again, func(ctx context.Context) error {
		asset, err = takeOrFind(ctx, b, j, name)
		return err
	})
	switch {
	case gcs.NotFound(err):
		return worker.Asset{}, fmt.Errorf("take %s: %w: %w", uri, worker.ErrUnusable, err)
	case err != nil:
		return worker.Asset{}, fmt.Errorf("take %s: %w", uri, err)
	}
	return asset, nil
}

// takeOrFind takes the object of that name, or finds what became of it: another worker may have taken it.
func takeOrFind(ctx context.Context, b *storage.BucketHandle, j *jobs.Job, name string) (worker.Asset, error) {
	attrs, err := b.Object(name).Attrs(ctx)
	if err == nil {
		return take(ctx, b, j, attrs)
	}
	if gcs.NotFound(err) {
		if asset, found, findErr := stored(ctx, b, j); found || findErr != nil {
			asset.Existing = true
			return asset, findErr
		}
	}
	return worker.Asset{}, err
}

// take makes an object that a model wrote the job's asset, and deletes it.
func take(ctx context.Context, b *storage.BucketHandle, j *jobs.Job, written *storage.ObjectAttrs) (worker.Asset, error) {
	source := b.Object(written.Name).Generation(written.Generation)
	mime, width, height, err := identify(ctx, source, written)
	if err != nil {
		return worker.Asset{}, err
	}
	object := b.Object(objectName(j, mime))
	copier := object.If(storage.Conditions{DoesNotExist: true}).CopierFrom(source)
	copier.ContentType = mime
	copier.Metadata = metadata(j, width, height)
	copier.Metadata[metaCopied] = checksum(written.CRC32C)
	attrs, err := copier.Run(ctx)
	var asset worker.Asset
	switch {
	case gcs.PreconditionFailed(err):
		asset, err = existing(ctx, object, written.Size, written.CRC32C)
	case err == nil:
		asset, err = assetOf(attrs), checkCopy(ctx, object, attrs, written)
	}
	if err != nil {
		return worker.Asset{}, err
	}
	_ = source.Delete(ctx) // what stays is of no use, and a lifecycle rule removes it
	return asset, nil
}

// checkCopy returns an error unless the copy has the bytes of what was written. A copy that has not is deleted, to be made again. An account
// that may only create, as deploy/terraform has it, can't do that: then the object stays, is nobody's asset because its metadata says
// what it should hold, and the error wraps [worker.ErrUnusable].
func checkCopy(ctx context.Context, object *storage.ObjectHandle, made, written *storage.ObjectAttrs) error {
	err := same(made, written.Size, written.CRC32C)
	if err == nil {
		return nil
	}
	deleting := object.If(storage.Conditions{GenerationMatch: made.Generation}).Delete(ctx)
	if gcs.Forbidden(deleting) {
		return damagedCopy(made)
	}
	return errors.Join(err, deleting)
}

// intact returns an error that wraps [worker.ErrUnusable] if the object is a copy and does not hold what it was copied from.
func intact(attrs *storage.ObjectAttrs) error {
	if sum := attrs.Metadata[metaCopied]; sum != "" && sum != checksum(attrs.CRC32C) {
		return damagedCopy(attrs)
	}
	return nil
}

func damagedCopy(attrs *storage.ObjectAttrs) error {
	return fmt.Errorf("%w: gs://%s/%s was damaged when it was copied: delete it, and publish the job again under another id", worker.ErrUnusable, attrs.Bucket, attrs.Name)
}

func checksum(crc32c uint32) string { return fmt.Sprintf("%08x", crc32c) }

// identify reads the beginning of an object that a model wrote. The error wraps [worker.ErrUnusable] if it is no image.
func identify(ctx context.Context, source *storage.ObjectHandle, written *storage.ObjectAttrs) (mime string, width, height int, err error) {
	for _, n := range []int64{headBytes, deepHeadBytes} {
		head, err := readHead(ctx, source, min(n, written.Size))
		if err != nil {
			return "", 0, 0, err
		}
		open := func() io.Reader { return bytes.NewReader(head) }
		var ok bool
		mime, width, height, ok = imagehead.Identify(open, written.ContentType)
		if !ok {
			return "", 0, 0, fmt.Errorf("%w: %d bytes of type %q", worker.ErrUnusable, written.Size, written.ContentType)
		}
		// Only JPEG has its dimensions as far behind as that.
		if width > 0 || mime != "image/jpeg" || written.Size <= n {
			break
		}
	}
	return mime, width, height, nil
}

// readHead reads the first n bytes of an object.
func readHead(ctx context.Context, source *storage.ObjectHandle, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil // which Cloud Storage has no range for
	}
	r, err := source.NewRangeReader(ctx, 0, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head := make([]byte, n)
	_, err = io.ReadFull(r, head)
	return head, err
}

// Find implements worker.Assets.
func (s *Store) Find(ctx context.Context, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	b, err := s.bucketOf(j.Region)
	if err != nil {
		return worker.Asset{}, false, err
	}
	err = retry.Do(ctx, retryable, func(ctx context.Context) error {
		asset, found, err = stored(ctx, b, j)
		if err == nil && !found {
			asset, found, err = takeAny(ctx, b, j)
		}
		return err
	})
	if err != nil {
		return worker.Asset{}, false, fmt.Errorf("look for gs://%s/%s: %w", b.BucketName(), stem(j), err)
	}
	return asset, found, nil
}

// stored returns the asset of a job.
func stored(ctx context.Context, b *storage.BucketHandle, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	all := b.Objects(ctx, &storage.Query{Prefix: stem(j) + "."})
	for range len(endings) + 1 { // one for each ending there is
		attrs, err := all.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return worker.Asset{}, false, err
		}
		if intact(attrs) == nil {
			return assetOf(attrs), true, nil
		}
	}
	return worker.Asset{}, false, nil
}

// takeAny takes the first image, by name, that a model wrote for a job.
func takeAny(ctx context.Context, b *storage.BucketHandle, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	all := b.Objects(ctx, &storage.Query{Prefix: folder(j)})
	for range maxWritten {
		attrs, err := all.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return worker.Asset{}, false, err
		}
		asset, err := take(ctx, b, j, attrs)
		if err == nil {
			return asset, true, nil
		}
		if !errors.Is(err, worker.ErrUnusable) && !gcs.NotFound(err) { // the latter: gone since the list was made
			return worker.Asset{}, false, err
		}
	}
	return worker.Asset{}, false, nil
}
