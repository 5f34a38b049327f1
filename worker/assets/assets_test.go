package assets_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/workertest"
)

const bucket = "assets"

// start starts a Cloud Storage whose buckets have the locations given. spoil, if not nil, may change each answer after its effect
// has happened.
func start(t *testing.T, locations map[string]string, spoil func(*http.Response) error) *storage.Client {
	t.Helper()
	client, _ := startBoth(t, locations, spoil)
	return client
}

// startBoth is start, and returns an uploader as well.
func startBoth(t *testing.T, locations map[string]string, spoil func(*http.Response) error) (*storage.Client, *gcs.Uploader) {
	t.Helper()
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	for name := range locations {
		server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
	}
	front := httptest.NewServer(&fakeFront{next: server.HTTPHandler(), locations: locations})
	t.Cleanup(front.Close)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	spoilt := &http.Client{Transport: spoiler{base, spoil}}
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(front.URL+"/storage/v1/"), storage.WithJSONReads(), option.WithHTTPClient(spoilt))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, gcs.NewUploader(spoilt, front.URL)
}

// spoiler is a transport that changes answers.
type spoiler struct {
	base  http.RoundTripper
	spoil func(*http.Response) error
}

func (s spoiler) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.base.RoundTrip(r)
	if err == nil && s.spoil != nil {
		if err = s.spoil(resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
	}
	return resp, err
}

// fakeFront adds what fake-gcs-server lacks: preconditions on copies, and a location for each bucket.
type fakeFront struct {
	next      http.Handler
	locations map[string]string
	copying   sync.Mutex
}

func (f *fakeFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, "/storage/v1/b/"); ok && f.locations[name] != "" && r.Method == http.MethodGet {
		fmt.Fprintf(w, `{"kind":"storage#bucket","name":%q,"location":%q}`, name, f.locations[name])
		return
	}
	if _, target, ok := strings.Cut(r.URL.Path, "/rewriteTo/"); ok && r.URL.Query().Get("ifGenerationMatch") == "0" {
		f.copying.Lock()
		defer f.copying.Unlock()
		look := httptest.NewRecorder()
		f.next.ServeHTTP(look, httptest.NewRequest(http.MethodGet, "/storage/v1/"+target, nil))
		if look.Code == http.StatusOK {
			w.WriteHeader(http.StatusPreconditionFailed)
			_, _ = io.WriteString(w, `{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold."}}`)
			return
		}
	}
	f.next.ServeHTTP(w, r)
}

func open(t *testing.T, spoil func(*http.Response) error) *assets.Store {
	t.Helper()
	return assets.New(start(t, map[string]string{bucket: ""}, spoil), assets.Config{Bucket: bucket})
}

// opener opens a store; see start.
type opener func(t *testing.T, spoil func(*http.Response) error) *assets.Store

// eachWay runs a test with a store that writes by the client, and with one that writes by the uploader.
func eachWay(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("by the client", func(t *testing.T) { test(t, open) })
	t.Run("by the uploader", func(t *testing.T) {
		test(t, func(t *testing.T, spoil func(*http.Response) error) *assets.Store {
			client, uploader := startBoth(t, map[string]string{bucket: ""}, spoil)
			return assets.New(client, assets.Config{Bucket: bucket, Uploader: uploader})
		})
	})
}

func TestAssetsOnCloudStorage(t *testing.T) {
	eachWay(t, func(t *testing.T, open opener) {
		store := open(t, nil)
		workertest.AssetsSuite(t, func(*testing.T) worker.Assets { return store })
	})
}

// The object is written and the answer is lost. The image must not count as another's.
func TestALostAnswerIsNoSecondImage(t *testing.T) { eachWay(t, loseTheAnswer) }

func loseTheAnswer(t *testing.T, open opener) {
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
func TestAnUploadDamagedOnItsWayIsSentAgain(t *testing.T) { eachWay(t, damageTheUpload) }

func damageTheUpload(t *testing.T, open opener) {
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
	client := start(t, map[string]string{bucket: ""}, nil)
	if err := assets.New(client, assets.Config{Bucket: bucket}).Check(t.Context()); err != nil {
		t.Errorf("an existing bucket: %v", err)
	}
	err := assets.New(client, assets.Config{Bucket: "nowhere", Regions: map[string]string{"europe-west4": "nowhere-eu"}}).Check(t.Context())
	for _, want := range []string{
		"bucket gs://nowhere does not exist: create it, or point ASSETMILL_BUCKET to another",
		"bucket gs://nowhere-eu does not exist: create it, or point the bucket of region europe-west4 to another",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a missing bucket: %v; want %q", err, want)
		}
	}
}
