package assets_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/workertest"
)

const bucket = "assets"

func open(t *testing.T, spoil func(*http.Response) error) *assets.Store {
	t.Helper()
	return assets.New(gcstest.Open(t, bucket, spoil), bucket)
}

func TestAssetsOnCloudStorage(t *testing.T) {
	store := open(t, nil)
	workertest.AssetsSuite(t, func(*testing.T) worker.Assets { return store })
}

// The object is written and the answer is lost. The image must not count as another's.
func TestALostAnswerIsNoSecondImage(t *testing.T) {
	var answers atomic.Int32
	store := open(t, func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && answers.Add(1) == 1 {
			gcstest.Unavailable(r)
		}
		return nil
	})
	b, err := blob.NewBudget(1<<20).Reserve(t.Context(), 5, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b.Write([]byte("image"))
	j, err := jobs.DefaultCatalogue().Parse(&schemas.Job{Id: "lost", Prompt: "x"})
	if err != nil {
		t.Fatal(err)
	}
	asset, err := store.Store(t.Context(), j, &worker.Image{Blob: b, MimeType: "image/png"})
	if err != nil || asset.Existing || asset.CRC32C != b.CRC32C() {
		t.Errorf("%+v, %v", asset, err)
	}
	if answers.Load() < 2 {
		t.Error("the upload was not tried again")
	}
}

// Bytes that changed on their way are refused by Cloud Storage. They are still in memory, so they are sent again.
func TestAnUploadDamagedOnItsWayIsSentAgain(t *testing.T) {
	var answers atomic.Int32
	store := open(t, func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && answers.Add(1) == 1 {
			body := `{"error":{"code":400,"message":"Provided CRC32C \"AAAAAA==\" doesn't match calculated CRC32C \"BBBBBB==\"."}}`
			r.StatusCode, r.Status = http.StatusBadRequest, "400 Bad Request"
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		}
		return nil
	})
	b, err := blob.NewBudget(1<<20).Reserve(t.Context(), 5, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b.Write([]byte("image"))
	j, err := jobs.DefaultCatalogue().Parse(&schemas.Job{Id: "damaged", Prompt: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if asset, err := store.Store(t.Context(), j, &worker.Image{Blob: b, MimeType: "image/png"}); err != nil || asset.CRC32C != b.CRC32C() || answers.Load() < 2 {
		t.Errorf("%+v, %v after %d answers", asset, err, answers.Load())
	}
}

func TestExists(t *testing.T) {
	store := open(t, nil)
	if ok, err := store.Exists(t.Context(), "gs://assets/no/such.png"); ok || err != nil {
		t.Errorf("a missing object: %v, %v", ok, err)
	}
	if _, err := store.Exists(t.Context(), "https://example.com/x.png"); err == nil {
		t.Error("no error for an address that is not in Cloud Storage")
	}
}

func TestCheckNamesTheMissingBucket(t *testing.T) {
	if err := open(t, nil).Check(t.Context()); err != nil {
		t.Errorf("an existing bucket: %v", err)
	}
	err := assets.New(gcstest.Open(t, bucket, nil), "nowhere").Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gs://nowhere does not exist") {
		t.Errorf("a missing bucket: %v", err)
	}
}
