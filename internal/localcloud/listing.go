package localcloud

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// listPath is the path of a list of objects in the JSON API.
var listPath = regexp.MustCompile(`^/storage/v1/b/([^/]+)/o$`)

// list answers a list of the objects below a folder, and reports whether it did. fake-gcs-server (v1.56.1) looks at every file of the bucket for
// it and lets nobody write meanwhile. A worker looks every few seconds at a folder of a bucket that has a file for each job.
func (f *storageFront) list(w http.ResponseWriter, r *http.Request) bool {
	bucket, prefix, ok := listed(r)
	if !ok {
		return false
	}
	root := filepath.Join(f.root, bucket)
	if _, err := os.Stat(root); err != nil {
		return false // the server says what is wrong with it
	}
	items := []json.RawMessage{}
	folder := filepath.Join(root, filepath.FromSlash(path.Dir(prefix+"x")))
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil || !strings.HasPrefix(filepath.ToSlash(name), prefix) {
			return err
		}
		// It may be gone by now.
		if status, description := f.ask(r, "b/"+bucket+"/o/"+filepath.ToSlash(name)); status == http.StatusOK {
			items = append(items, description)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	answer, err := json.Marshal(map[string]any{"kind": "storage#objects", "items": items})
	if err != nil {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answer) // a client that left is no news
	return true
}

// listed returns what a request wants listed, if it is all that is below a folder.
func listed(r *http.Request) (bucket, prefix string, ok bool) {
	m := listPath.FindStringSubmatch(r.URL.Path)
	q := r.URL.Query()
	prefix = q.Get("prefix")
	if m == nil || r.Method != http.MethodGet || !strings.Contains(prefix, "/") || escapes(m[1]) || escapes(prefix) {
		return "", "", false
	}
	return m[1], prefix, wholly(q)
}

// wholly reports whether a list has neither pages nor bounds nor anything else that is left to the server.
func wholly(q url.Values) bool {
	for _, name := range []string{"delimiter", "endOffset", "startOffset", "matchGlob", "maxResults", "pageToken"} {
		if q.Get(name) != "" {
			return false
		}
	}
	for _, name := range []string{"versions", "softDeleted", "includeTrailingDelimiter"} {
		if q.Get(name) == "true" {
			return false
		}
	}
	return true
}
