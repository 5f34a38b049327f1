package gcsfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/worker/batch"
)

const (
	// smallFile is what is written as one request, and held until it is. Checkpoints, manifests and most lines are smaller.
	smallFile = 256 << 10
	// chunkSize is what the client holds of a large file, to send it again when a request breaks. A gigabyte is a hundred requests then.
	chunkSize = 8 << 20

	contentType = "application/octet-stream"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged says that bytes changed on their way.
var errDamaged = errors.New("the stored file's checksum is not that of what was written")

// errContent is an error of whoever makes a file's content. It is final.
type errContent struct{ error }

func (e errContent) Unwrap() error { return e.error }

func retryable(err error) bool {
	var content errContent
	if errors.As(err, &content) {
		return false
	}
	return errors.Is(err, errDamaged) || gcs.ChecksumRefused(err) || gcs.Retryable(err)
}

// Write stores what write writes, in place of any file of that name. Nothing is stored when write fails. When storing fails, write is called
// again: it must write the same each time.
func (f *Files) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	err := retry.Do(ctx, retryable, func(ctx context.Context) error { return f.write(ctx, name, write) })
	if err != nil {
		return fmt.Errorf("write %s: %w", f.URI(name), err)
	}
	return nil
}

func (f *Files) write(ctx context.Context, name string, write func(io.Writer) error) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort() // a writer is given up by its context; after Close this does nothing
	u := &upload{ctx: ctx, object: f.writes.Object(name)}
	err := write(u)
	if err == nil && u.err == nil {
		return u.finish()
	}
	abort()
	var closing error
	if u.large != nil {
		closing = u.large.Close() // waits for the client
	}
	if u.err != nil {
		return errors.Join(u.err, closing) // either may tell what happened; what write made of it does not matter
	}
	return errContent{err}
}

// upload is a file on its way.
type upload struct {
	ctx    context.Context
	object *storage.ObjectHandle
	small  []byte          // all there is, as long as it is little
	large  *storage.Writer // nil until it is much
	size   int64
	crc    uint32
	err    error // of the storage
}

// Write appends p.
func (u *upload) Write(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	u.size += int64(len(p))
	u.crc = crc32.Update(u.crc, castagnoli, p)
	if u.large == nil && len(u.small)+len(p) <= smallFile {
		u.small = append(u.small, p...)
		return len(p), nil
	}
	if u.large == nil {
		u.large = u.writer(chunkSize)
		if _, u.err = u.large.Write(u.small); u.err != nil {
			return 0, u.err
		}
		u.small = nil
	}
	if _, u.err = u.large.Write(p); u.err != nil {
		return 0, u.err
	}
	return len(p), nil
}

func (u *upload) writer(chunk int) *storage.Writer {
	w := u.object.NewWriter(u.ctx)
	w.ChunkSize, w.ContentType = chunk, contentType
	return w
}

// finish makes the file visible.
func (u *upload) finish() error {
	w := u.large
	var err error
	if w == nil {
		w = u.writer(0)
		w.CRC32C, w.SendCRC32C = u.crc, true // known before the first byte is sent
		_, err = w.Write(u.small)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if attrs := w.Attrs(); attrs.CRC32C != u.crc || attrs.Size != u.size {
		return fmt.Errorf("%w: %d bytes with CRC32C %08x are stored, %d bytes with %08x were written", errDamaged, attrs.Size, attrs.CRC32C, u.size, u.crc)
	}
	return nil
}

// Swap replaces a small file of that generation, 0 for none, and returns its new one. It fails with batch.ErrSwapped when it has another.
//
// When an answer is lost, the file's content tells whether this write or another one happened. So the content of two writers who take
// each other for dead must differ, by a time or a name in it.
func (f *Files) Swap(ctx context.Context, name string, generation int64, data []byte) (next int64, err error) {
	conditions := storage.Conditions{GenerationMatch: generation}
	if generation == 0 {
		conditions = storage.Conditions{DoesNotExist: true}
	}
	object := f.writes.Object(name).If(conditions)
	unsure := false // whether an earlier try may have happened
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		next, err = gcs.Put(ctx, object, contentType, data)
		if !gcs.PreconditionFailed(err) {
			unsure = unsure || err != nil
			return err
		}
		if unsure {
			found, now, err := f.read(ctx, name)
			if err != nil {
				return err
			}
			if now != 0 && now != generation && bytes.Equal(found, data) {
				next = now
				return nil
			}
		}
		return batch.ErrSwapped
	})
	if err != nil {
		return 0, fmt.Errorf("replace %s: %w", f.URI(name), err)
	}
	return next, nil
}
