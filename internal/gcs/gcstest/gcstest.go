// Package gcstest starts a Cloud Storage in memory for tests, behind a proxy that can spoil answers.
package gcstest

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"google.golang.org/api/option"
)

// Open starts a Cloud Storage with one bucket and returns a client of it; both end with the test. spoil, if not nil, may
// change each answer after its effect has happened: the way to lose an answer.
func Open(t *testing.T, bucket string, spoil func(*http.Response) error) *storage.Client {
	t.Helper()
	client, _ := Start(t, bucket, spoil)
	return client
}

// Start is Open, and returns the base URL of the Cloud Storage as well.
func Start(t *testing.T, bucket string, spoil func(*http.Response) error) (_ *storage.Client, base string) {
	t.Helper()
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: bucket})
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = spoil
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(front.URL+"/storage/v1/"), option.WithoutAuthentication(), storage.WithJSONReads())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, front.URL
}

// Unavailable turns an answer into a 503.
func Unavailable(r *http.Response) {
	r.StatusCode, r.Status = http.StatusServiceUnavailable, "503 Service Unavailable"
}
