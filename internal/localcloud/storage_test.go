package localcloud

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/gcs"
)

// startTestStorage serves a bucket `pictures` from dir and returns the server.
func startTestStorage(t *testing.T, dir string) *storageServer {
	t.Helper()
	l, err := Ports{}.listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := startStorage(l, filepath.Join(dir, storageDir), filepath.Join(dir, metadataDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := s.ensureBuckets(t.Context(), "pictures"); err != nil {
		t.Fatal(err)
	}
	return s
}

// prompts that take far more room in an attribute than in a request.
func largeMetadata() map[string]string {
	return map[string]string{
		"assetmill-prompt": strings.Repeat("<&>", 680) + "\nsecond line, ñandú",
		"assetmill-job":    "job-1",
	}
}

func TestLargeMetadataIsKept(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	bucket := storageClient(t, s.url()).Bucket("pictures")
	for _, tt := range []struct {
		name      string
		chunkSize int
		size      int
	}{
		{"one request", 0, 300_000},
		{"one request, no content", 0, 0},
		{"resumable, in chunks", 256 << 10, 600_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			object := bucket.Object("keep/" + tt.name + ".png")
			content := strings.Repeat("x", tt.size)
			w := object.If(storage.Conditions{DoesNotExist: true}).NewWriter(t.Context())
			w.ChunkSize, w.Metadata, w.ContentType = tt.chunkSize, largeMetadata(), "image/png"
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(largeMetadata(), w.Attrs().Metadata); diff != "" {
				t.Errorf("metadata in the answer (-want +got):\n%s", diff)
			}
			attrs, err := object.Attrs(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(largeMetadata(), attrs.Metadata); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if attrs.ContentType != "image/png" || attrs.Generation != w.Attrs().Generation {
				t.Errorf("content type %q, generation %d, want image/png, %d", attrs.ContentType, attrs.Generation, w.Attrs().Generation)
			}
			if got := read(t, object); got != content {
				t.Errorf("%d bytes come back, %d were written", len(got), len(content))
			}
		})
	}
}

func TestLargeMetadataInListsPatchesAndHeaders(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	bucket := storageClient(t, s.url()).Bucket("pictures")
	write(t, bucket.Object("large"), "1", largeMetadata())
	write(t, bucket.Object("small"), "2", map[string]string{"k": "v"})

	want := largeMetadata()
	want["assetmill-job"] = "job-2"
	attrs, err := bucket.Object("large").Update(t.Context(), storage.ObjectAttrsToUpdate{Metadata: map[string]string{"assetmill-job": "job-2"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, attrs.Metadata); diff != "" {
		t.Errorf("metadata after a patch (-want +got):\n%s", diff)
	}
	got := map[string]map[string]string{}
	for it := bucket.Objects(t.Context(), nil); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[attrs.Name] = attrs.Metadata
	}
	if diff := cmp.Diff(map[string]map[string]string{"large": want, "small": {"k": "v"}}, got); diff != "" {
		t.Errorf("metadata in a list (-want +got):\n%s", diff)
	}
	resp, err := http.Get(s.url() + "/pictures/large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("X-Goog-Meta-Assetmill-Job"); got != "job-2" {
		t.Errorf("header of the patched key: %q", got)
	}
	if got := resp.Header.Get("X-Goog-Meta-Assetmill-Prompt"); !strings.HasPrefix(got, "<&><&>") {
		t.Errorf("header of the large key: %.20q", got)
	}
}

func TestPreconditions(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	object := storageClient(t, s.url()).Bucket("pictures").Object("ledger/00/job-1").Retryer(storage.WithPolicy(storage.RetryNever))
	put := func(c storage.Conditions, content string) (int64, error) {
		w := object.If(c).NewWriter(t.Context())
		w.ChunkSize = 0
		_, err := io.WriteString(w, content)
		if err := errors.Join(err, w.Close()); err != nil {
			return 0, err
		}
		return w.Attrs().Generation, nil
	}
	first, err := put(storage.Conditions{DoesNotExist: true}, "claimed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(storage.Conditions{DoesNotExist: true}, "claimed again"); !gcs.PreconditionFailed(err) {
		t.Errorf("second create: %v, want a failed precondition", err)
	}
	second, err := put(storage.Conditions{GenerationMatch: first}, "done")
	if err != nil || second == first {
		t.Errorf("swap: generation %d after %d, %v", second, first, err)
	}
	if _, err := put(storage.Conditions{GenerationMatch: first}, "done twice"); !gcs.PreconditionFailed(err) {
		t.Errorf("second swap: %v, want a failed precondition", err)
	}
	if got := read(t, object); got != "done" {
		t.Errorf("content %q", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	client := storageClient(t, s.url())
	write1 := func(bucket, object string) error {
		w := client.Bucket(bucket).Object(object).Retryer(storage.WithPolicy(storage.RetryNever)).NewWriter(t.Context())
		w.ChunkSize = 0
		_, err := io.WriteString(w, "x")
		return errors.Join(err, w.Close())
	}
	if err := write1("missing", "a"); !gcs.NotFound(err) {
		t.Errorf("write to a missing bucket: %v, want not found", err)
	}
	if _, err := client.Bucket("missing").Objects(t.Context(), nil).Next(); !gcs.NotFound(err) {
		t.Errorf("list a missing bucket: %v, want not found", err)
	}
	for _, name := range []string{"../../out", "a/../b", "a/./b"} {
		var api *googleapi.Error
		if err := write1("pictures", name); !errors.As(err, &api) || api.Code != http.StatusBadRequest {
			t.Errorf("write %q: %v, want a bad request", name, err)
		}
	}
}

func TestReadUnderAnotherHostName(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	write(t, storageClient(t, s.url()).Bucket("pictures").Object("keep/a b+c.png"), "image", nil)
	other := strings.Replace(s.url(), "127.0.0.1", "localhost", 1)
	if got := read(t, storageClient(t, other).Bucket("pictures").Object("keep/a b+c.png")); got != "image" {
		t.Errorf("through %s: %q", other, got)
	}
}

func TestJSONAPIWithoutItsPrefix(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	write(t, storageClient(t, s.url()).Bucket("pictures").Object("keep/a b.png"), "image", nil)
	for path, want := range map[string]string{
		"/b": `"name":"pictures"`, "/b/pictures/o?prefix=keep": `"name":"keep/a b.png"`, "/b/pictures/o/keep%2Fa%20b.png?alt=media": "image",
	} {
		resp, err := http.Get(s.url() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
}

func TestUnfinishedObjectsAreSetAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startTestStorage(t, dir)
	bucket := storageClient(t, s.url()).Bucket("pictures")
	write(t, bucket.Object("keep/whole.png"), "image", nil)
	half := filepath.Join(dir, storageDir, "pictures", "keep", "half.png")
	if err := os.WriteFile(half, []byte("ima"), 0o600); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(dir, leftoverDir)
	moved, err := setUnfinishedAside(filepath.Join(dir, storageDir), aside)
	if moved != 1 || err != nil {
		t.Fatalf("moved %d, %v; want 1", moved, err)
	}
	attrs, err := bucket.Objects(t.Context(), nil).Next()
	if err != nil || attrs.Name != "keep/whole.png" {
		t.Errorf("list: %v, %v", attrs, err)
	}
	if got, err := os.ReadFile(filepath.Join(aside, "pictures", "keep", "half.png")); string(got) != "ima" {
		t.Errorf("set aside: %q, %v", got, err)
	}
}

func TestReferencesAreLookedUp(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	write(t, storageClient(t, s.url()).Bucket("pictures").Object("logo.png"), "logo", nil)
	for _, tt := range []struct {
		bucket, object string
		want           bool
	}{{"pictures", "logo.png", true}, {"pictures", "other.png", false}, {"other", "logo.png", false}} {
		if got, err := s.exists(t.Context(), tt.bucket, tt.object); got != tt.want || err != nil {
			t.Errorf("gs://%s/%s: %v, %v; want %v", tt.bucket, tt.object, got, err, tt.want)
		}
	}
}

func BenchmarkObjectWrite(b *testing.B) {
	l, err := Ports{}.listen(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	s, err := startStorage(l, filepath.Join(dir, storageDir), filepath.Join(dir, metadataDir))
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	if err := s.ensureBuckets(b.Context(), "pictures"); err != nil {
		b.Fatal(err)
	}
	body := func(name string) io.Reader {
		const part = "--x\r\nContent-Type: application/json\r\n\r\n{\"name\":\"%s\"}\r\n--x\r\nContent-Type: image/png\r\n\r\n%s\r\n--x--\r\n"
		return strings.NewReader(fmt.Sprintf(part, name, strings.Repeat("x", 50_000)))
	}
	n := 0
	for b.Loop() {
		n++
		resp, err := http.Post(s.url()+"/upload/storage/v1/b/pictures/o?uploadType=multipart", `multipart/related; boundary=x`, body(fmt.Sprintf("keep/c/%d.png", n)))
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp, err)
		}
		resp.Body.Close()
	}
}
