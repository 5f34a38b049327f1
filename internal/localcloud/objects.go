package localcloud

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/pkg/xattr"
)

// The model writes images and outputs of batches as Vertex does, behind Cloud Storage's front door: fake-gcs-server (v1.56.1) would hold
// each object in memory while it is written, under a lock that stops all others, and an output has gigabytes. An object is a file with a
// description in an attribute; that is the layout of fake-gcs-server's own file system.

// objectAttribute is the attribute of a file that describes the object.
const objectAttribute = "user.metadata"

// objectBuffer gathers small writes.
const objectBuffer = 256 << 10

// objectWriter writes an object that becomes visible, whole, when it is closed.
type objectWriter struct {
	ctx         context.Context
	file        *os.File
	out         *bufio.Writer
	path        string // where it becomes visible
	contentType string
	md5         hash.Hash
	crc         hash.Hash32
}

// createObject begins an object. When ctx ends before Close, there is none.
func (s *storageServer) createObject(ctx context.Context, bucket, name, contentType string) (io.WriteCloser, error) {
	if escapes(name) {
		return nil, errors.New("object names with `.` or `..` between slashes are not kept on a file system")
	}
	if err := os.MkdirAll(s.spool, 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(s.spool, "object-*")
	if err != nil {
		return nil, err
	}
	w := &objectWriter{
		ctx: ctx, file: file, path: filepath.Join(s.root, bucket, filepath.FromSlash(name)), contentType: contentType,
		md5: md5.New(), crc: crc32.New(crc32.MakeTable(crc32.Castagnoli)),
	}
	w.out = bufio.NewWriterSize(io.MultiWriter(file, w.md5, w.crc), objectBuffer)
	return w, nil
}

// Write implements io.Writer.
func (w *objectWriter) Write(p []byte) (int, error) { return w.out.Write(p) }

// Close makes the object visible.
func (w *objectWriter) Close() error {
	err := w.out.Flush()
	if err == nil {
		err = context.Cause(w.ctx)
	}
	if err == nil {
		err = w.describe()
	}
	err = errors.Join(err, w.file.Close())
	if err == nil {
		err = os.MkdirAll(filepath.Dir(w.path), 0o700)
	}
	if err == nil {
		err = os.Rename(w.file.Name(), w.path)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(w.file.Name()))
	}
	return nil
}

func (w *objectWriter) describe() error {
	now := time.Now()
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	md5sum := base64.StdEncoding.EncodeToString(w.md5.Sum(nil))
	attrs, err := json.Marshal(map[string]any{
		"ContentType": w.contentType, "StorageClass": "STANDARD", "Generation": now.UnixMicro(), "Created": stamp, "Updated": stamp,
		"Crc32c": base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, w.crc.Sum32())), "Md5Hash": md5sum, "Etag": md5sum,
	})
	if err != nil {
		return err
	}
	return xattr.FSet(w.file, objectAttribute, attrs)
}

// openObject reads an object. The error wraps fs.ErrNotExist when there is none.
func (s *storageServer) openObject(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	if escapes(name) {
		return nil, os.ErrNotExist
	}
	return os.Open(filepath.Join(s.root, bucket, filepath.FromSlash(name)))
}
