// Package assets stores images in Cloud Storage: verbatim, once, under a name that follows from the job.
//
// The name is `<retention>/<campaign>/<job id>.<ending>`: lifecycle rules act on the first folder. An object is created only
// where there is none, so the first write wins and a second answer is discarded; what Store returns always describes the
// object that is stored. Checksums are compared at both ends: Cloud Storage refuses bytes that do not match the CRC32C sent
// with them, and the CRC32C it reports back must be the one that was computed as the bytes arrived from the model.
//
// A model may write an image itself, below `straight/<job id>/`. It becomes the asset by a copy within the bucket, under the same
// rules. What stays below `straight/` is of no use; a lifecycle rule should remove it after some days, when nobody looks for
// a lost answer any more.
//
// A job with a data region is stored in a bucket of that region or not at all; see [Config].
//
// The ending follows the image's media type, so two answers of different types for one job, from a worker that was taken for dead and
// from the one that took over, may leave two objects. Only one of them is ever a job's asset: the one that the ledger recorded.
package assets

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// maxPromptMetadata bounds the part of the prompt in an object's metadata, in bytes. All metadata of an object may hold 8 KiB;
// the hash beside it identifies the whole prompt, which lineage holds.
const maxPromptMetadata = 2048

// Keys of an object's metadata.
const (
	metaJob          = "assetmill-job"
	metaSubmission   = "assetmill-submission"
	metaModel        = "assetmill-model"
	metaSeed         = "assetmill-seed"
	metaVariant      = "assetmill-variant"
	metaPrompt       = "assetmill-prompt"
	metaPromptSHA256 = "assetmill-prompt-sha256"
	metaWidth        = "assetmill-width"
	metaHeight       = "assetmill-height"
	metaCopied       = "assetmill-copied-crc32c" // of what it was copied from
)

// endings maps media types to the endings of object names.
var endings = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

// unknownEnding is the ending of an image whose type the model did not name rightly.
const unknownEnding = ".bin"

// stem is the name of a job's asset without its ending.
func stem(j *jobs.Job) string { return j.Retention + "/" + j.Campaign + "/" + j.ID }

// objectName returns where a job's image of a media type is stored.
func objectName(j *jobs.Job, mimeType string) string {
	ending, ok := endings[mimeType]
	if !ok {
		ending = unknownEnding
	}
	return stem(j) + ending
}

// Store implements worker.Assets.
func (s *Store) Store(ctx context.Context, j *jobs.Job, image *worker.Image) (worker.Asset, error) {
	b, err := s.bucketOf(j.Region)
	if err != nil {
		return worker.Asset{}, err
	}
	object := b.Object(objectName(j, image.MimeType))
	var asset worker.Asset
	err = retry.Do(ctx, retryable, func(ctx context.Context) error {
		asset, err = s.create(ctx, object, j, image)
		return err
	})
	if err != nil {
		return worker.Asset{}, fmt.Errorf("store %s: %w", uriOf(object), err)
	}
	return asset, nil
}

// errDamaged says that bytes changed on their way. The image is still in memory, so it is sent again.
var errDamaged = errors.New("the stored object's checksum is not the image's")

func retryable(err error) bool { return errors.Is(err, errDamaged) || gcs.Retryable(err) }

func (s *Store) create(ctx context.Context, object *storage.ObjectHandle, j *jobs.Job, image *worker.Image) (worker.Asset, error) {
	attrs, err := s.upload(ctx, object, j, image)
	switch {
	case gcs.PreconditionFailed(err):
		return existing(ctx, object, image.Blob.Len(), image.Blob.CRC32C())
	case gcs.ChecksumRefused(err):
		return worker.Asset{}, fmt.Errorf("%w: %w", errDamaged, err)
	case err != nil:
		return worker.Asset{}, err
	}
	if err := same(attrs, image.Blob.Len(), image.Blob.CRC32C()); err != nil {
		return worker.Asset{}, err
	}
	return assetOf(attrs), nil
}

// same returns an error unless the object holds bytes of that number and checksum.
func same(attrs *storage.ObjectAttrs, size int64, crc32c uint32) error {
	if attrs.CRC32C != crc32c || attrs.Size != size {
		return fmt.Errorf("%w: %d bytes with CRC32C %08x are stored, %d bytes with %08x were sent", errDamaged, attrs.Size, attrs.CRC32C, size, crc32c)
	}
	return nil
}

// upload sends the image as one request. The bytes stay in memory until the object is durable, so nothing is lost when it breaks.
func (s *Store) upload(ctx context.Context, object *storage.ObjectHandle, j *jobs.Job, image *worker.Image) (*storage.ObjectAttrs, error) {
	sum := image.Blob.CRC32C()
	return s.cfg.Uploader.Write(ctx, object, storage.Conditions{DoesNotExist: true}, gcs.Upload{
		ContentType: image.MimeType, Metadata: metadata(j, image.Width, image.Height), CRC32C: &sum,
		Size: image.Blob.Len(), Open: image.Blob.NewReader,
	})
}

// existing describes the object that is there already. When it holds the very bytes that were to be written, an earlier try
// whose answer was lost made it. The error wraps [worker.ErrUnusable] when it is a copy that was damaged.
func existing(ctx context.Context, object *storage.ObjectHandle, size int64, crc32c uint32) (worker.Asset, error) {
	attrs, err := object.Attrs(ctx)
	if err != nil {
		return worker.Asset{}, err
	}
	if err := intact(attrs); err != nil {
		return worker.Asset{}, err
	}
	asset := assetOf(attrs)
	asset.Existing = same(attrs, size, crc32c) != nil
	return asset, nil
}

func assetOf(attrs *storage.ObjectAttrs) worker.Asset {
	// Metadata that is not a number reads as 0, unknown: the object is still the job's asset.
	width, _ := strconv.Atoi(attrs.Metadata[metaWidth])
	height, _ := strconv.Atoi(attrs.Metadata[metaHeight])
	return worker.Asset{
		URI:        "gs://" + attrs.Bucket + "/" + attrs.Name,
		Generation: attrs.Generation,
		Bytes:      attrs.Size,
		CRC32C:     attrs.CRC32C,
		MimeType:   attrs.ContentType,
		Width:      width,
		Height:     height,
	}
}

func uriOf(o *storage.ObjectHandle) string { return "gs://" + o.BucketName() + "/" + o.ObjectName() }

func metadata(j *jobs.Job, width, height int) map[string]string {
	m := map[string]string{
		metaJob:          j.ID,
		metaSubmission:   j.Submission,
		metaModel:        j.Model.ID,
		metaVariant:      strconv.Itoa(j.Variant),
		metaPrompt:       jobs.Cut(j.Prompt, maxPromptMetadata),
		metaPromptSHA256: j.PromptSHA256(),
		metaWidth:        strconv.Itoa(width),
		metaHeight:       strconv.Itoa(height),
	}
	if j.Seed != nil {
		m[metaSeed] = strconv.Itoa(int(*j.Seed))
	}
	return m
}

// Exists reports whether the object at a gs:// URI exists. An error that gcs.Forbidden recognises means that this account may not
// look; Vertex reads references with its own.
func (s *Store) Exists(ctx context.Context, uri string) (bool, error) {
	bucket, object, err := jobs.SplitURI(uri)
	if err != nil {
		return false, err
	}
	_, err = s.client.Bucket(bucket).Object(object).Attrs(ctx)
	if gcs.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}
