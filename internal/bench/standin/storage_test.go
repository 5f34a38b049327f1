package standin

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

const assetsBucket = "assets"

// openStorage serves a storage with TLS and returns Google's client for it.
func openStorage(t *testing.T, cfg StorageConfig) (*Storage, *storage.Client, *httptest.Server) {
	t.Helper()
	s := NewStorage(cfg)
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(srv.URL+"/storage/v1/"), option.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return s, client, srv
}

func write(ctx context.Context, o *storage.ObjectHandle, data []byte) (*storage.ObjectAttrs, error) {
	w := o.Retryer(storage.WithPolicy(storage.RetryNever)).NewWriter(ctx)
	w.ContentType, w.ChunkSize, w.Metadata = "text/plain", 0, map[string]string{"key": "value"}
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return w.Attrs(), nil
}

func code(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}

func TestStorageKeepsPreconditions(t *testing.T) {
	t.Parallel()
	_, client, _ := openStorage(t, StorageConfig{})
	o := client.Bucket("work").Object("ledger/00/job")
	first, err := write(t.Context(), o.If(storage.Conditions{DoesNotExist: true}), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(t.Context(), o.If(storage.Conditions{DoesNotExist: true}), []byte("two")); code(err) != http.StatusPreconditionFailed {
		t.Errorf("a second creation: %v", err)
	}
	second, err := write(t.Context(), o.If(storage.Conditions{GenerationMatch: first.Generation}), []byte("three"))
	if err != nil {
		t.Fatal(err)
	}
	if second.Generation <= first.Generation {
		t.Errorf("generation %d follows %d", second.Generation, first.Generation)
	}
	if _, err := write(t.Context(), o.If(storage.Conditions{GenerationMatch: first.Generation}), []byte("four")); code(err) != http.StatusPreconditionFailed {
		t.Errorf("a swap of what has changed: %v", err)
	}
	if err := o.If(storage.Conditions{GenerationMatch: first.Generation}).Delete(t.Context()); code(err) != http.StatusPreconditionFailed {
		t.Errorf("deletion of what has changed: %v", err)
	}
	r, err := o.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "three" || r.Attrs.Generation != second.Generation {
		t.Errorf("read %q of generation %d: %v", text, r.Attrs.Generation, err)
	}
	if err := o.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := o.Attrs(t.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
		t.Errorf("after deletion: %v", err)
	}
	if err := o.Delete(t.Context()); !errors.Is(err, storage.ErrObjectNotExist) {
		t.Errorf("a second deletion: %v", err)
	}
}

func TestStorageSumsAssetsAndDropsThem(t *testing.T) {
	t.Parallel()
	picture, other := bytes.Repeat([]byte("picture"), 100_000), []byte("other")
	sum := crc32.Checksum(picture, castagnoli)
	s, client, _ := openStorage(t, StorageConfig{Bucket: assetsBucket, CRC32C: sum})
	o := client.Bucket(assetsBucket).Object("keep/bench/a b.png")
	attrs, err := write(t.Context(), o, picture)
	if err != nil {
		t.Fatal(err)
	}
	if attrs.CRC32C != sum || attrs.Size != int64(len(picture)) || attrs.Metadata["key"] != "value" || attrs.ContentType != "text/plain" {
		t.Errorf("stored as %+v", attrs)
	}
	if again, err := o.Attrs(t.Context()); err != nil || again.CRC32C != sum || again.Name != "keep/bench/a b.png" {
		t.Errorf("described as %+v: %v", again, err)
	}
	if _, err := o.NewReader(t.Context()); err == nil {
		t.Error("the bytes of an asset were kept")
	}
	if _, err := write(t.Context(), client.Bucket(assetsBucket).Object("x"), other); err != nil {
		t.Error(err)
	}
	if got := s.Stats(); got.Assets != 2 || got.Damaged != 1 {
		t.Errorf("counted %+v", got)
	}
}

func TestStorageRefusesDamage(t *testing.T) {
	t.Parallel()
	s, client, _ := openStorage(t, StorageConfig{Bucket: assetsBucket})
	w := client.Bucket(assetsBucket).Object("o").Retryer(storage.WithPolicy(storage.RetryNever)).NewWriter(t.Context())
	w.ChunkSize, w.SendCRC32C, w.CRC32C, w.ContentType = 0, true, 1, "image/png"
	_, err := w.Write([]byte("data"))
	if err = errors.Join(err, w.Close()); err == nil || !strings.Contains(err.Error(), "CRC32C") {
		t.Errorf("a wrong checksum: %v", err)
	}
	if s.Assets.Count() != 0 {
		t.Error("it is stored")
	}
}

func TestStorageLists(t *testing.T) {
	t.Parallel()
	_, client, _ := openStorage(t, StorageConfig{})
	for _, name := range []string{"workers/b", "ledger/x", "workers/a"} {
		if _, err := write(t.Context(), client.Bucket("work").Object(name), nil); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for it := client.Bucket("work").Objects(t.Context(), &storage.Query{Prefix: "workers/"}); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, attrs.Name)
	}
	if want := []string{"workers/a", "workers/b"}; !slices.Equal(names, want) {
		t.Errorf("listed %q", names)
	}
	if _, err := client.Bucket("any").Attrs(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStoragePutsByTheXMLAPI(t *testing.T) {
	t.Parallel()
	s, client, srv := openStorage(t, StorageConfig{Bucket: assetsBucket})
	put := func(data, sum string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+"/assets/keep/o.png", strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "image/png")
		req.Header.Set("X-Goog-Meta-Assetmill-Job", "j")
		req.Header.Set("X-Goog-If-Generation-Match", "0")
		req.Header.Set("X-Goog-Hash", "crc32c="+sum)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	right := encodeCRC32C(crc32.Checksum([]byte("data"), castagnoli))
	for i, step := range []struct {
		data, sum string
		want      int
	}{{"damaged", right, http.StatusBadRequest}, {"data", right, http.StatusOK}, {"data", right, http.StatusPreconditionFailed}} {
		if got := put(step.data, step.sum); got != step.want {
			t.Errorf("put %d: %d instead of %d", i, got, step.want)
		}
	}
	attrs, err := client.Bucket(assetsBucket).Object("keep/o.png").Attrs(t.Context())
	if err != nil || attrs.Metadata["assetmill-job"] != "j" || attrs.ContentType != "image/png" || s.Assets.Count() != 1 {
		t.Errorf("%+v: %v", attrs, err)
	}
}
