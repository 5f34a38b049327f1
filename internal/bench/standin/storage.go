package standin

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
)

// StorageConfig says which objects are assets, and what should be in them.
type StorageConfig struct {
	Bucket string // of the assets
	CRC32C uint32 // of every asset; 0: anything
}

// StorageStats is what a storage has seen.
type StorageStats struct {
	Assets   int64 `json:"assets"`   // objects created in the bucket of assets
	Damaged  int64 `json:"damaged"`  // of these, the ones with other bytes than expected
	Requests int64 `json:"requests"` // of any kind
}

// Storage is an HTTP handler that speaks as much of Cloud Storage's JSON API as the worker uses: upload, get, list, delete, with
// generation preconditions and CRC32C; and of its XML API, PUT and GET of an object.
type Storage struct {
	cfg      StorageConfig
	objects  objects
	Assets   Meter
	damaged  atomic.Int64
	requests atomic.Int64
}

// NewStorage returns an empty storage.
func NewStorage(cfg StorageConfig) *Storage { return &Storage{cfg: cfg} }

// Stats returns what the storage has seen.
func (s *Storage) Stats() StorageStats {
	return StorageStats{int64(s.Assets.Count()), s.damaged.Load(), s.requests.Load()}
}

// storageError is an answer that is not a success.
type storageError struct {
	code    int
	message string
}

func (e *storageError) Error() string { return e.message }

var (
	errNoObject     = &storageError{http.StatusNotFound, "No such object"}
	errPrecondition = &storageError{http.StatusPreconditionFailed, "At least one of the pre-conditions you specified did not hold."}
)

func (s *Storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	answer, err := s.serve(w, r)
	var known *storageError
	switch {
	case err == nil && answer == nil:
	case err == nil:
		writeJSON(w, http.StatusOK, answer)
	case errors.As(err, &known):
		writeJSON(w, known.code, map[string]any{"error": map[string]any{"code": known.code, "message": known.message}})
	default: // what a client does wrong is to show; what it breaks off, nobody reads
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"code": http.StatusBadRequest, "message": err.Error()}})
	}
}

// writeJSON writes an answer whose length is known, so that no chunk has to be framed.
func writeJSON(w http.ResponseWriter, code int, answer any) {
	text, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(code)
	_, _ = w.Write(text) // a client that has left needs no answer
}

// serve returns the answer to send as JSON, or nil when it was written already.
func (s *Storage) serve(w http.ResponseWriter, r *http.Request) (any, error) {
	path := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(path, "/upload/storage/v1/b/"); ok && r.Method == http.MethodPost {
		return s.insert(r, strings.TrimSuffix(rest, "/o"))
	}
	if rest, ok := strings.CutPrefix(path, "/storage/v1/b/"); ok {
		bucket, object, isObject := strings.Cut(rest, "/o/")
		bucket, isList := strings.CutSuffix(bucket, "/o")
		switch {
		case isObject:
			return s.object(w, r, bucket, object)
		case isList:
			return map[string]any{"kind": "storage#objects", "items": s.objects.list(bucket, r.URL.Query().Get("prefix"))}, nil
		default:
			return map[string]any{"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "LOCAL"}, nil
		}
	}
	bucket, object, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok {
		return nil, errNoObject
	}
	return s.xml(w, r, bucket, object)
}

// insert serves an upload of the JSON API in one request.
func (s *Storage) insert(r *http.Request, bucket string) (any, error) {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return nil, fmt.Errorf("uploads are of type multipart/related here, not %q", r.Header.Get("Content-Type"))
	}
	metadata, data, err := readMultipart(r.Body, parameters["boundary"])
	if err != nil {
		return nil, err
	}
	o := &object{}
	if err := json.Unmarshal(metadata, o); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	o.Bucket = bucket
	if name := r.URL.Query().Get("name"); name != "" {
		o.Name = name
	}
	return s.create(o, data, r.URL.Query().Get("ifGenerationMatch"))
}

// create stores what was uploaded. o.CRC32C is the checksum that came with it, or empty.
func (s *Storage) create(o *object, data *content, match string) (any, error) {
	c, err := parseCondition(match)
	if err != nil {
		return nil, fmt.Errorf("ifGenerationMatch: %w", err)
	}
	sum := encodeCRC32C(data.crc32c)
	if o.CRC32C != "" && o.CRC32C != sum {
		return nil, &storageError{http.StatusBadRequest,
			fmt.Sprintf("Provided CRC32C %q doesn't match calculated CRC32C %q.", o.CRC32C, sum)}
	}
	o.Size, o.CRC32C = data.size, sum
	isAsset := o.Bucket == s.cfg.Bucket
	if !isAsset {
		o.data = data.kept
	}
	if !s.objects.put(o, c) {
		return nil, errPrecondition
	}
	if isAsset {
		if s.cfg.CRC32C != 0 && data.crc32c != s.cfg.CRC32C {
			s.damaged.Add(1)
		}
		s.Assets.Add(1)
	}
	return o, nil
}

// object serves one object's metadata, or its bytes, and its deletion.
func (s *Storage) object(w http.ResponseWriter, r *http.Request, bucket, escaped string) (any, error) {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Method == http.MethodDelete:
		c, err := parseCondition(r.URL.Query().Get("ifGenerationMatch"))
		if err != nil {
			return nil, fmt.Errorf("ifGenerationMatch: %w", err)
		}
		found, done := s.objects.remove(bucket, name, c)
		switch {
		case !found:
			return nil, errNoObject
		case !done:
			return nil, errPrecondition
		}
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	case r.Method != http.MethodGet:
		return nil, &storageError{http.StatusMethodNotAllowed, r.Method + " is not served here"}
	case r.URL.Query().Get("alt") == "media":
		return nil, s.read(w, bucket, name)
	}
	if o := s.objects.get(bucket, name); o != nil {
		return o, nil
	}
	return nil, errNoObject
}

// read sends an object's bytes.
func (s *Storage) read(w http.ResponseWriter, bucket, name string) error {
	o := s.objects.get(bucket, name)
	switch {
	case o == nil:
		return errNoObject
	case o.data == nil && o.Size > 0:
		return &storageError{http.StatusGone, "the bytes of assets and of large objects are not kept here"}
	}
	h := w.Header()
	h.Set("Content-Type", o.ContentType)
	h.Set("Content-Length", fmt.Sprint(o.Size))
	setObjectHeaders(h, o)
	_, _ = w.Write(o.data) // a client that has left needs no answer
	return nil
}

func setObjectHeaders(h http.Header, o *object) {
	h.Set("X-Goog-Generation", fmt.Sprint(o.Generation))
	h.Set("X-Goog-Metageneration", o.Metageneration)
	h.Set("X-Goog-Hash", "crc32c="+o.CRC32C)
	h.Set("X-Goog-Stored-Content-Length", fmt.Sprint(o.Size))
	h.Set("X-Goog-Stored-Content-Encoding", "identity")
}
