package localcloud

import (
	"errors"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"

	"github.com/assetmill/assetmill/internal/gcs"
)

// listOf returns names and generations of what a list has.
func listOf(t *testing.T, bucket *storage.BucketHandle, query *storage.Query) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	for it := bucket.Objects(t.Context(), query); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := found[attrs.Name]; twice {
			t.Errorf("%s is listed twice", attrs.Name)
		}
		found[attrs.Name] = attrs.Generation
	}
}

// A list of a folder has what the list of the whole bucket has of it.
func TestListsOfFolders(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	bucket := storageClient(t, s.url()).Bucket("pictures")
	for _, name := range []string{"workers/a", "workers/b-1", "workers/deep/er", "workersb", "batches/b/ranges/00001.json", "batches/b/ranges/00002.json", "batches/b c+ü/x", "top"} {
		write(t, bucket.Object(name), "x", nil)
	}
	all := listOf(t, bucket, nil)
	if len(all) != 8 {
		t.Fatalf("the bucket has %v", all)
	}
	for _, prefix := range []string{"workers/", "workers/b", "workers/deep/", "batches/", "batches/b/ranges/", "batches/b c+ü/", "none/", "none/at/all", "top/"} {
		want := map[string]int64{}
		for name, generation := range all {
			if strings.HasPrefix(name, prefix) {
				want[name] = generation
			}
		}
		if diff := cmp.Diff(want, listOf(t, bucket, &storage.Query{Prefix: prefix})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", prefix, diff)
		}
	}
	// What is not simple is left to the server.
	if got := listOf(t, bucket, &storage.Query{Prefix: "workers/", Delimiter: "/"}); len(got) != 3 { // with the folder that is in it
		t.Errorf("with a delimiter: %v", got)
	}
	if _, err := storageClient(t, s.url()).Bucket("missing").Objects(t.Context(), &storage.Query{Prefix: "a/"}).Next(); !gcs.NotFound(err) {
		t.Errorf("a folder of a missing bucket: %v, want not found", err)
	}
}

// Metadata that is kept elsewhere is put back in lists of folders too.
func TestListsOfFoldersHaveLargeMetadata(t *testing.T) {
	t.Parallel()
	s := startTestStorage(t, t.TempDir())
	bucket := storageClient(t, s.url()).Bucket("pictures")
	write(t, bucket.Object("keep/large"), "1", largeMetadata())
	attrs, err := bucket.Objects(t.Context(), &storage.Query{Prefix: "keep/"}).Next()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(largeMetadata(), attrs.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}
