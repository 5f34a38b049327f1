// Package gcs holds what every user of Cloud Storage in this module needs: judging its errors, and saying in one sentence
// what is wrong with a bucket.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
)

// PreconditionFailed reports whether a conditional write or read was refused because the object is not as expected.
func PreconditionFailed(err error) bool { return hasCode(err, http.StatusPreconditionFailed) }

// NotFound reports whether a bucket or an object does not exist.
func NotFound(err error) bool {
	return errors.Is(err, storage.ErrObjectNotExist) || errors.Is(err, storage.ErrBucketNotExist) || hasCode(err, http.StatusNotFound)
}

// Forbidden reports whether the caller lacks a permission or valid credentials.
func Forbidden(err error) bool {
	return hasCode(err, http.StatusForbidden, http.StatusUnauthorized)
}

// ChecksumRefused reports whether Cloud Storage refused an upload because what arrived does not have the checksum that was sent with it:
// "Provided CRC32C ... doesn't match calculated CRC32C".
func ChecksumRefused(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && api.Code == http.StatusBadRequest && (strings.Contains(api.Error(), "CRC32C") || strings.Contains(api.Error(), "MD5"))
}

func hasCode(err error, codes ...int) bool {
	var api *googleapi.Error
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if api.Code == c {
			return true
		}
	}
	return false
}

// Retryable reports whether a request that failed may succeed when it is sent again. It is storage.ShouldRetry, which does not look into
// errors that are joined of several: what a writer's Write and its Close return belongs together, and either may tell.
func Retryable(err error) bool {
	if storage.ShouldRetry(err) || errors.Is(err, errStalled) {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Retryable(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), Retryable)
	default:
		return false
	}
}

// Put writes a small object as one request and returns its generation. It does not try again; the client's default buffer of 16 MiB for
// each writer, which is there to do so, would be wasted on it.
func Put(ctx context.Context, o *storage.ObjectHandle, contentType string, data []byte) (generation int64, err error) {
	attrs, err := PutWith(ctx, o, contentType, nil, data)
	if err != nil {
		return 0, err
	}
	return attrs.Generation, nil
}

// PutWith is Put with metadata, and returns all that is known of the object.
func PutWith(ctx context.Context, o *storage.ObjectHandle, contentType string, metadata map[string]string, data []byte) (*storage.ObjectAttrs, error) {
	w := o.NewWriter(ctx)
	w.ContentType, w.Metadata = contentType, metadata
	w.ChunkSize = 0
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}

// Check returns an error that says in one sentence what to do when a bucket is missing or may not be used. The name of the
// setting that chose the bucket is part of the sentence, and so is what the caller's account should be granted: the least that does, as
// deploy/terraform grants it, in words that follow "grant this account".
func Check(ctx context.Context, b *storage.BucketHandle, name, setting, grants string) error {
	// Listing needs storage.objects.list, which all those grants carry; the bucket's own attributes would need a role that they do not.
	_, err := b.Objects(ctx, &storage.Query{Prefix: "assetmill-check/"}).Next()
	switch {
	case err == nil || errors.Is(err, iterator.Done):
		return nil
	case NotFound(err):
		return fmt.Errorf("bucket gs://%s does not exist: create it, or point %s to another", name, setting)
	case Forbidden(err):
		return fmt.Errorf("bucket gs://%s may not be used: grant this account %s: %w", name, grants, err)
	default:
		return fmt.Errorf("bucket gs://%s: %w", name, err)
	}
}
