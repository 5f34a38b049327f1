// Package assets stores images in Cloud Storage: verbatim, once, under a name that follows from the job.
//
// The name is `<retention>/<campaign>/<job id>.<ending>`: lifecycle rules act on the first folder. An object is created only
// where there is none, so the first write wins and a second answer is discarded; what Store returns always describes the
// object that is stored. Checksums are compared at both ends: Cloud Storage refuses bytes that do not match the CRC32C sent
// with them, and the CRC32C it reports back must be the one that was computed as the bytes arrived from the model.
package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

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
)

// Store implements worker.Assets on a bucket. It is safe for concurrent use.
type Store struct {
	client *storage.Client
	bucket *storage.BucketHandle
	name   string
}

// New returns the store in a bucket. The client's own retries are switched off for its writes: a repeated create needs to tell
// an object that it made itself from another's.
func New(client *storage.Client, bucket string) *Store {
	return &Store{
		client: client,
		bucket: client.Bucket(bucket).Retryer(storage.WithPolicy(storage.RetryNever)),
		name:   bucket,
	}
}

// Check returns an error that says what to do when the bucket is missing or may not be used.
func (s *Store) Check(ctx context.Context) error {
	return gcs.Check(ctx, s.bucket, s.name, "ASSETMILL_BUCKET")
}

// endings maps media types to the endings of object names.
var endings = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

// unknownEnding is the ending of an image whose type the model did not name rightly.
const unknownEnding = ".bin"

// objectName returns where a job's image of a media type is stored.
func objectName(j *jobs.Job, mimeType string) string {
	ending, ok := endings[mimeType]
	if !ok {
		ending = unknownEnding
	}
	return j.Retention + "/" + j.Campaign + "/" + j.ID + ending
}

// Store implements worker.Assets.
func (s *Store) Store(ctx context.Context, j *jobs.Job, image *worker.Image) (worker.Asset, error) {
	object := s.bucket.Object(objectName(j, image.MimeType))
	var asset worker.Asset
	err := retry.Do(ctx, retryable, func(ctx context.Context) error {
		var err error
		asset, err = s.create(ctx, object, j, image)
		return err
	})
	if err != nil {
		return worker.Asset{}, fmt.Errorf("store gs://%s/%s: %w", s.name, object.ObjectName(), err)
	}
	return asset, nil
}

// errDamaged says that bytes changed on their way. The image is still in memory, so it is sent again.
var errDamaged = errors.New("the stored object's checksum is not the image's")

func retryable(err error) bool { return errors.Is(err, errDamaged) || gcs.Retryable(err) }

func (s *Store) create(ctx context.Context, object *storage.ObjectHandle, j *jobs.Job, image *worker.Image) (worker.Asset, error) {
	attrs, err := upload(ctx, object, j, image)
	switch {
	case gcs.PreconditionFailed(err):
		return s.existing(ctx, object, image)
	case gcs.ChecksumRefused(err):
		return worker.Asset{}, fmt.Errorf("%w: %w", errDamaged, err)
	case err != nil:
		return worker.Asset{}, err
	}
	if attrs.CRC32C != image.Blob.CRC32C() || attrs.Size != image.Blob.Len() {
		return worker.Asset{}, fmt.Errorf("%w: %d bytes with CRC32C %08x are stored, %d bytes with %08x were sent",
			errDamaged, attrs.Size, attrs.CRC32C, image.Blob.Len(), image.Blob.CRC32C())
	}
	return s.asset(attrs), nil
}

// upload sends the image as one request. The bytes stay in memory until the object is durable, so nothing is lost when it
// breaks; the client's own buffering, 16 MiB for each writer, would only hold them twice.
func upload(ctx context.Context, object *storage.ObjectHandle, j *jobs.Job, image *worker.Image) (*storage.ObjectAttrs, error) {
	ctx, abort := context.WithCancel(ctx)
	defer abort() // a writer is given up by its context; after Close this does nothing
	w := object.If(storage.Conditions{DoesNotExist: true}).NewWriter(ctx)
	w.ChunkSize = 0
	w.ContentType = image.MimeType
	w.CRC32C = image.Blob.CRC32C()
	w.SendCRC32C = true
	w.Metadata = metadata(j, image)
	if _, err := io.Copy(w, image.Blob.NewReader()); err != nil {
		abort()
		return nil, errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}

// existing describes the object that is there already. When it holds the very bytes that were to be written, an earlier try
// whose answer was lost made it.
func (s *Store) existing(ctx context.Context, object *storage.ObjectHandle, image *worker.Image) (worker.Asset, error) {
	attrs, err := object.Attrs(ctx)
	if err != nil {
		return worker.Asset{}, err
	}
	asset := s.asset(attrs)
	asset.Existing = attrs.CRC32C != image.Blob.CRC32C() || attrs.Size != image.Blob.Len()
	return asset, nil
}

// Find implements worker.Assets.
func (s *Store) Find(ctx context.Context, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	prefix := strings.TrimSuffix(objectName(j, ""), unknownEnding) + "."
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		attrs, err := s.bucket.Objects(ctx, &storage.Query{Prefix: prefix}).Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err == nil {
			asset, found = s.asset(attrs), true
		}
		return err
	})
	if err != nil {
		return worker.Asset{}, false, fmt.Errorf("look for gs://%s/%s: %w", s.name, prefix, err)
	}
	return asset, found, nil
}

func (s *Store) asset(attrs *storage.ObjectAttrs) worker.Asset {
	// Metadata that is not a number reads as 0, unknown: the object is still the job's asset.
	width, _ := strconv.Atoi(attrs.Metadata[metaWidth])
	height, _ := strconv.Atoi(attrs.Metadata[metaHeight])
	return worker.Asset{
		URI:        "gs://" + s.name + "/" + attrs.Name,
		Generation: attrs.Generation,
		Bytes:      attrs.Size,
		CRC32C:     attrs.CRC32C,
		MimeType:   attrs.ContentType,
		Width:      width,
		Height:     height,
	}
}

func metadata(j *jobs.Job, image *worker.Image) map[string]string {
	m := map[string]string{
		metaJob:          j.ID,
		metaSubmission:   j.Submission,
		metaModel:        j.Model.ID,
		metaVariant:      strconv.Itoa(j.Variant),
		metaPrompt:       jobs.Cut(j.Prompt, maxPromptMetadata),
		metaPromptSHA256: j.PromptSHA256(),
		metaWidth:        strconv.Itoa(image.Width),
		metaHeight:       strconv.Itoa(image.Height),
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
