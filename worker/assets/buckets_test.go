package assets_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/worker/assets"
)

func TestResidency(t *testing.T) {
	locations := map[string]string{"home": "EUROPE-WEST4", "america": "US-EAST4", "continent": "EU"}
	client := start(t, locations, nil)
	regions := map[string]string{"us-east4": "america"}
	tests := []struct {
		name   string
		cfg    assets.Config
		check  bool
		region string
		want   string // bucket; empty: none
		words  string // of the error
	}{
		{"anywhere", assets.Config{Bucket: "home"}, false, "", "home", ""},
		{"listed", assets.Config{Bucket: "home", Regions: regions}, false, "us-east4", "america", ""},
		{"at home", assets.Config{Bucket: "home", Regions: regions}, true, "europe-west4", "home", ""},
		{"home, before the check", assets.Config{Bucket: "home", Regions: regions}, false, "europe-west4", "", "nobody knows where gs://home is"},
		{"elsewhere", assets.Config{Bucket: "home", Regions: regions}, true, "europe-west1", "", "no bucket for the data region europe-west1: none is listed for it, and gs://home is in europe-west4"},
		{"a continent is no region", assets.Config{Bucket: "continent"}, true, "europe-west4", "", "gs://continent is in eu"},
		{"an emulator", assets.Config{Bucket: "home", AnyLocation: true}, true, "europe-west1", "home", ""},
		{"an emulator, listed", assets.Config{Bucket: "home", Regions: regions, AnyLocation: true}, true, "us-east4", "america", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store := assets.New(client, test.cfg)
			if test.check {
				if err := store.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			j := newJob(t, strings.ReplaceAll(strings.ReplaceAll(test.name, " ", "-"), ",", ""), test.region)
			if got := store.Storable(j.Region); got != (test.want != "") {
				t.Errorf("storable: %v", got)
			}
			prefix := store.Prefix(j)
			asset, err := store.Store(t.Context(), j, newImage(t, []byte("image"), "image/png"))
			if test.want == "" {
				_, took := store.Take(t.Context(), j, "gs://home/straight/"+j.ID+"/1.png")
				_, _, found := store.Find(t.Context(), j)
				for _, err := range []error{err, took, found} {
					if !errors.Is(err, assets.ErrNoBucket) || !strings.Contains(err.Error(), test.words) {
						t.Errorf("error %v", err)
					}
				}
				if prefix != "" {
					t.Errorf("prefix %s", prefix)
				}
				return
			}
			if err != nil || !strings.HasPrefix(asset.URI, "gs://"+test.want+"/") || prefix != "gs://"+test.want+"/straight/"+j.ID+"/" {
				t.Errorf("prefix %s, asset %+v, %v", prefix, asset, err)
			}
		})
	}
}

func TestCheckOfBucketsOfRegions(t *testing.T) {
	forbidden := func(r *http.Response) error {
		if path := r.Request.URL.Path; strings.HasSuffix(path, "/b/secret") || strings.HasSuffix(path, "/b/closed/o") {
			r.StatusCode = http.StatusForbidden
		}
		return nil
	}
	client := start(t, map[string]string{"home": "EUROPE-WEST4", "secret": "US-EAST4", "closed": "EUROPE-WEST4"}, forbidden)
	tests := []struct {
		name  string
		cfg   assets.Config
		wants []string // of the error; none: no error
	}{
		{"right", assets.Config{Bucket: "home", Regions: map[string]string{"europe-west4": "home"}}, nil},
		{"wrong", assets.Config{Bucket: "home", Regions: map[string]string{"europe-west1": "home"}}, []string{"gs://home is listed for region europe-west1 but is in europe-west4"}},
		{"wrong in an emulator", assets.Config{Bucket: "home", Regions: map[string]string{"europe-west1": "home"}, AnyLocation: true}, nil},
		{"not to be known", assets.Config{Bucket: "home", Regions: map[string]string{"us-east4": "secret"}}, []string{"gs://secret is listed for region us-east4", "roles/storage.legacyBucketReader"}},
		{"not to be listed", assets.Config{Bucket: "closed"}, []string{"gs://closed may not be used", "roles/storage.objectViewer and roles/storage.objectCreator on it, and roles/storage.objectUser on its managed folder straight/"}},
		{"the default one is not to be known", assets.Config{Bucket: "secret"}, nil},
	}
	for _, test := range tests {
		err := assets.New(client, test.cfg).Check(t.Context())
		if (err == nil) != (len(test.wants) == 0) {
			t.Errorf("%s: %v", test.name, err)
		}
		for _, want := range test.wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v lacks %q", test.name, err, want)
			}
		}
	}
}
