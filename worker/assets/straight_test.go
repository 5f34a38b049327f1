package assets_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/assets"
)

func newJob(t *testing.T, id, region string) *jobs.Job {
	t.Helper()
	m := &schemas.Job{Id: id, Prompt: "a red fox", Campaign: "spring", Retention: "90d", Region: region}
	if region != "" {
		m.Model = "gemini-2.5-flash-image"
	}
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// newImage returns an image that ends with the test.
func newImage(t *testing.T, content []byte, mime string) *worker.Image {
	t.Helper()
	b, err := blob.NewBudget(1<<20).Reserve(t.Context(), int64(len(content)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	if _, err := b.Write(content); err != nil {
		t.Fatal(err)
	}
	return &worker.Image{Blob: b, MimeType: mime}
}

func pngImage(t *testing.T, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), make([]byte, 200_000)...) // larger than what is read of it
}

// jpegImage returns a picture whose dimensions stand behind so many bytes of metadata.
func jpegImage(t *testing.T, width, height, metadata int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, width, height)), nil); err != nil {
		t.Fatal(err)
	}
	file := b.Bytes()[:2:2]
	for ; metadata > 0; metadata -= 60_000 {
		file = append(file, 0xff, 0xeb) // APP11, which holds Content Credentials
		file = binary.BigEndian.AppendUint16(file, 60_002)
		file = append(file, make([]byte, 60_000)...)
	}
	return append(file, b.Bytes()[2:]...)
}

// write puts an object where a model may write it, and returns its URI.
func write(t *testing.T, client *storage.Client, name, contentType string, content []byte) string {
	t.Helper()
	if _, err := gcs.Put(t.Context(), client.Bucket(bucket).Object(name), contentType, content); err != nil {
		t.Fatal(err)
	}
	return "gs://" + bucket + "/" + name
}

// names lists the bucket.
func names(t *testing.T, client *storage.Client) string {
	t.Helper()
	var all []string
	for objects := client.Bucket(bucket).Objects(t.Context(), nil); ; {
		attrs, err := objects.Next()
		if errors.Is(err, iterator.Done) {
			return strings.Join(all, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, attrs.Name)
	}
}

func TestTake(t *testing.T) {
	tests := []struct {
		name, contentType string
		content           []byte
		want              string
		mime              string
		width, height     int
	}{
		{"png", "image/png", pngImage(t, 64, 36), "90d/spring/png.png", "image/png", 64, 36},
		{"jpeg", "image/jpeg", jpegImage(t, 64, 36, 0), "90d/spring/jpeg.jpg", "image/jpeg", 64, 36},
		{"deep", "image/jpeg", jpegImage(t, 64, 36, 400_000), "90d/spring/deep.jpg", "image/jpeg", 64, 36},
		{"deeper", "image/jpeg", jpegImage(t, 64, 36, 1_200_000), "90d/spring/deeper.jpg", "image/jpeg", 0, 0},
		{"liar", "application/octet-stream", pngImage(t, 64, 36), "90d/spring/liar.png", "image/png", 64, 36},
		{"new", "image/avif", []byte("....ftypavif"), "90d/spring/new.bin", "image/avif", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := start(t, map[string]string{bucket: ""}, nil)
			store := assets.New(client, assets.Config{Bucket: bucket})
			j := newJob(t, test.name, "")
			uri := write(t, client, "straight/"+test.name+"/1-1/sample_0", test.contentType, test.content)
			if !strings.HasPrefix(uri, store.Prefix(j)) {
				t.Fatalf("prefix %s", store.Prefix(j))
			}
			got, err := store.Take(t.Context(), j, uri)
			if err != nil {
				t.Fatal(err)
			}
			want := worker.Asset{
				URI: "gs://assets/" + test.want, Generation: got.Generation, Bytes: int64(len(test.content)),
				CRC32C:   crc32.Checksum(test.content, crc32.MakeTable(crc32.Castagnoli)),
				MimeType: test.mime, Width: test.width, Height: test.height,
			}
			if got != want || got.Generation == 0 {
				t.Errorf("asset\n%+v, want\n%+v", got, want)
			}
			if n := names(t, client); n != test.want {
				t.Errorf("objects: %s", n)
			}
			attrs, err := client.Bucket(bucket).Object(test.want).Attrs(t.Context())
			if err != nil || attrs.Metadata["assetmill-job"] != test.name || attrs.Metadata["assetmill-prompt"] != "a red fox" || attrs.ContentType != test.mime {
				t.Errorf("object %+v, %v", attrs, err)
			}
			if found, ok, err := store.Find(t.Context(), j); !ok || err != nil || found != got {
				t.Errorf("found %+v, %v, %v", found, ok, err)
			}
		})
	}
}

func TestTakeIsTheFirstWriteOrNone(t *testing.T) {
	client := start(t, map[string]string{bucket: ""}, nil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	j := newJob(t, "raced", "")
	first, err := store.Store(t.Context(), j, newImage(t, pngImage(t, 8, 8), "image/png"))
	if err != nil {
		t.Fatal(err)
	}
	same := write(t, client, "straight/raced/1", "image/png", pngImage(t, 8, 8))
	other := write(t, client, "straight/raced/2", "image/png", pngImage(t, 16, 16))
	got, err := store.Take(t.Context(), j, other)
	if err != nil || !got.Existing || got.Generation != first.Generation || got.CRC32C != first.CRC32C {
		t.Errorf("another image: %+v, %v; first %+v", got, err, first)
	}
	if got, err = store.Take(t.Context(), j, same); err != nil || got != first {
		t.Errorf("the same image: %+v, %v; first %+v", got, err, first)
	}
	// As when another worker has taken it.
	if got, err = store.Take(t.Context(), j, same); err != nil || !got.Existing || got.Generation != first.Generation {
		t.Errorf("an image that is gone: %+v, %v; first %+v", got, err, first)
	}
	if n := names(t, client); n != "90d/spring/raced.png" {
		t.Errorf("objects: %s", n)
	}
}

func TestTakeOfWhatIsNoImage(t *testing.T) {
	client := start(t, map[string]string{bucket: "", "other": ""}, nil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	j := newJob(t, "mine", "")
	write(t, client, "straight/mine-2/1.png", "image/png", pngImage(t, 8, 8))
	write(t, client, "straight/mine/empty.png", "image/png", nil)
	write(t, client, "straight/mine/error.txt", "text/plain", []byte("quota exceeded"))
	write(t, client, "elsewhere/1.png", "image/png", pngImage(t, 8, 8))
	for _, uri := range []string{
		"gs://assets/straight/mine-2/1.png", "gs://assets/elsewhere/1.png", "gs://other/straight/mine/1.png", "gs://assets/straight/mine", "", "straight/mine/1.png",
		"gs://assets/straight/mine/empty.png", "gs://assets/straight/mine/error.txt",
	} {
		if got, err := store.Take(t.Context(), j, uri); !errors.Is(err, worker.ErrUnusable) {
			t.Errorf("%s: %+v, %v", uri, got, err)
		}
	}
	if got, found, err := store.Find(t.Context(), j); found || err != nil {
		t.Errorf("found %+v, %v", got, err)
	}
	if n := names(t, client); strings.Contains(n, "90d/") {
		t.Errorf("objects: %s", n)
	}
}

// An object that is not there yet is waited for, a little while.
func TestTakeOfWhatIsNotThereYet(t *testing.T) {
	var looks atomic.Int32
	spoil := func(r *http.Response) error {
		if strings.Contains(r.Request.URL.Path, "straight/late") && r.Request.Method == http.MethodGet && looks.Add(1) <= 2 {
			r.StatusCode, r.Body = http.StatusNotFound, io.NopCloser(strings.NewReader(`{"error":{"code":404}}`))
		}
		return nil
	}
	client := start(t, map[string]string{bucket: ""}, spoil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	uri := write(t, client, "straight/late/1.png", "image/png", pngImage(t, 8, 8))
	if got, err := store.Take(t.Context(), newJob(t, "late", ""), uri); err != nil || got.Existing || got.Width != 8 || looks.Load() < 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestALostAnswerToACopyIsNoSecondImage(t *testing.T) {
	var copies atomic.Int32
	spoil := func(r *http.Response) error {
		if strings.Contains(r.Request.URL.Path, "/rewriteTo/") && copies.Add(1) == 1 {
			gcstest.Unavailable(r)
		}
		return nil
	}
	checkSecondCopy(t, spoil, &copies)
}

// checkSecondCopy takes an image whose first copy is spoiled, and checks that it is taken by a second one.
func checkSecondCopy(t *testing.T, spoil func(*http.Response) error, copies *atomic.Int32) {
	t.Helper()
	client := start(t, map[string]string{bucket: ""}, spoil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	uri := write(t, client, "straight/twice/1.png", "image/png", pngImage(t, 8, 8))
	if got, err := store.Take(t.Context(), newJob(t, "twice", ""), uri); err != nil || got.Existing || copies.Load() != 2 {
		t.Errorf("%+v, %v after %d copies", got, err, copies.Load())
	}
}

// A lost answer has left its image. Neither what is no image nor what belongs to another job is taken for it.
func TestFindTakesWhatAModelWrote(t *testing.T) {
	var deletes atomic.Int32
	spoil := func(r *http.Response) error {
		if r.Request.Method == http.MethodDelete && deletes.Add(1) > 0 {
			gcstest.Unavailable(r)
		}
		return nil
	}
	client := start(t, map[string]string{bucket: ""}, spoil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	j := newJob(t, "left", "")
	write(t, client, "straight/left-2/0.png", "image/png", pngImage(t, 4, 4))
	if got, found, err := store.Find(t.Context(), j); found || err != nil {
		t.Fatalf("found %+v, %v", got, err)
	}
	write(t, client, "straight/left/a/0.png", "image/png", []byte("half an im"))
	write(t, client, "straight/left/a/1.png", "image/png", pngImage(t, 8, 8))
	write(t, client, "straight/left/b/0.png", "image/png", pngImage(t, 16, 16))
	got, found, err := store.Find(t.Context(), j)
	if err != nil || !found || got.URI != "gs://assets/90d/spring/left.png" || got.Width != 8 || got.Existing {
		t.Errorf("%+v, %v, %v", got, found, err)
	}
	if again, found, err := store.Find(t.Context(), j); err != nil || !found || again != got {
		t.Errorf("%+v, %v, %v; before: %+v", again, found, err, got)
	}
	if deletes.Load() != 1 {
		t.Errorf("%d tries to delete", deletes.Load())
	}
}

// damageCopies changes the checksum that the first n copies are said to have, and denies to delete where only creating is allowed.
func damageCopies(n int32, mayDelete bool) (spoil func(*http.Response) error, copies *atomic.Int32) {
	copies = &atomic.Int32{}
	return func(r *http.Response) error {
		switch path := r.Request.URL.Path; {
		case strings.Contains(path, "/rewriteTo/") && copies.Add(1) <= n:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = regexp.MustCompile(`"crc32c":\s*"[^"]*"`).ReplaceAll(body, []byte(`"crc32c":"AAAAAA=="`))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		case r.Request.Method == http.MethodDelete && !mayDelete:
			body := `{"error":{"code":403,"message":"storage.objects.delete denied"}}`
			r.StatusCode, r.Status = http.StatusForbidden, "403 Forbidden"
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		}
		return nil
	}, copies
}

func TestADamagedCopyIsMadeAgain(t *testing.T) {
	spoil, copies := damageCopies(1, true)
	checkSecondCopy(t, spoil, copies)
}

// A worker may create assets and not delete them: a damaged copy is told at once, not tried for ever.
func TestADamagedCopyThatMayNotBeDeleted(t *testing.T) {
	spoil, copies := damageCopies(1, false)
	client := start(t, map[string]string{bucket: ""}, spoil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	uri := write(t, client, "straight/stuck/1.png", "image/png", pngImage(t, 8, 8))
	got, err := store.Take(t.Context(), newJob(t, "stuck", ""), uri)
	if !errors.Is(err, worker.ErrUnusable) || !strings.Contains(err.Error(), "gs://assets/90d/spring/stuck.png was damaged") || copies.Load() != 1 {
		t.Errorf("%+v, %v after %d copies", got, err, copies.Load())
	}
}

// What is left of a damaged copy is nobody's asset.
func TestADamagedCopyIsNoAsset(t *testing.T) {
	client := start(t, map[string]string{bucket: ""}, nil)
	store := assets.New(client, assets.Config{Bucket: bucket})
	j := newJob(t, "left", "")
	damaged := client.Bucket(bucket).Object("90d/spring/left.png").NewWriter(t.Context())
	damaged.Metadata = map[string]string{"assetmill-copied-crc32c": "00000001"}
	if _, err := damaged.Write(pngImage(t, 8, 8)); err != nil {
		t.Fatal(err)
	}
	if err := damaged.Close(); err != nil {
		t.Fatal(err)
	}
	if got, found, err := store.Find(t.Context(), j); found || err != nil {
		t.Errorf("found %+v, %v", got, err)
	}
	if got, err := store.Store(t.Context(), j, newImage(t, pngImage(t, 8, 8), "image/png")); !errors.Is(err, worker.ErrUnusable) {
		t.Errorf("stored %+v, %v", got, err)
	}
	uri := write(t, client, "straight/left/1.png", "image/png", pngImage(t, 8, 8))
	if got, err := store.Take(t.Context(), j, uri); !errors.Is(err, worker.ErrUnusable) {
		t.Errorf("taken %+v, %v", got, err)
	}
	// One of another type is beside it.
	other := write(t, client, "straight/left/2.jpg", "image/jpeg", jpegImage(t, 8, 8, 0))
	if got, err := store.Take(t.Context(), j, other); err != nil || got.URI != "gs://assets/90d/spring/left.jpg" {
		t.Errorf("taken %+v, %v", got, err)
	}
	if got, found, err := store.Find(t.Context(), j); !found || err != nil || got.URI != "gs://assets/90d/spring/left.jpg" {
		t.Errorf("found %+v, %v, %v", got, found, err)
	}
}
