package localcloud

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/gcs"
)

// What the model writes behind Cloud Storage's front door is an object like any other.
func TestObjectsOfTheModelAreObjects(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	object := storageClient(t, s.url()).Bucket("pictures").Object("straight/job-1/7/sample_0.png")
	content := strings.Repeat("a picture, ", 200_000)

	w, err := s.createObject(t.Context(), "pictures", object.ObjectName(), "image/png")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if _, err := object.Attrs(t.Context()); !gcs.NotFound(err) {
		t.Errorf("an object that is being written: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	attrs, err := object.Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli))
	if attrs.CRC32C != sum || attrs.Size != int64(len(content)) || attrs.ContentType != "image/png" || attrs.Generation == 0 {
		t.Errorf("attributes %+v", attrs)
	}
	r, err := object.NewRangeReader(t.Context(), 11, 22)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != content[11:33] {
		t.Errorf("range %q, %v", got, err)
	}
	back, err := s.openObject(t.Context(), "pictures", object.ObjectName())
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if got, err := io.ReadAll(back); err != nil || string(got) != content {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestObjectsThatAreGivenUpDoNotAppear(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	w, err := s.createObject(ctx, "pictures", "half.png", "image/png")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if _, err := s.openObject(t.Context(), "pictures", "half.png"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	for _, name := range []string{"../escape", "a/../../b"} {
		if _, err := s.createObject(t.Context(), "pictures", name, ""); err == nil {
			t.Errorf("%s was created", name)
		}
	}
}
