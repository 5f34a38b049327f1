package localcloud

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

const (
	// overflowKey stands in an object's metadata for a map that is kept elsewhere; its value is that map's hash.
	overflowKey = "assetmill-local-overflow"
	// maxInline bounds the metadata kept with the object, as JSON: with a name of 1 KiB and the rest of the object's description
	// that fills an ext4 attribute, 4 KB.
	maxInline = 2 << 10
	// maxDescription bounds the description of an object in a request: metadata of 8 KiB, each byte escaped.
	maxDescription = 64 << 10
)

// overflowStore keeps metadata maps in files named by their content, so that no write of an object and its metadata can mix two
// versions. Files are never removed; they are small, and few.
type overflowStore struct{ dir string }

func (s overflowStore) path(hash string) string { return filepath.Join(s.dir, hash+".json") }

func (s overflowStore) put(metadata []byte) (hash string, err error) {
	sum := sha256.Sum256(metadata)
	hash = hex.EncodeToString(sum[:])
	if _, err := os.Stat(s.path(hash)); err == nil {
		return hash, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return "", err
	}
	return hash, renameio.WriteFile(s.path(hash), metadata, 0o644)
}

// get returns the map, or nothing when the file is gone or damaged: an object without part of its metadata is still an object.
func (s overflowStore) get(hash string) map[string]string {
	if strings.ContainsAny(hash, "/.") {
		return nil // put never made it
	}
	text, err := os.ReadFile(s.path(hash))
	if err != nil {
		return nil
	}
	var m map[string]string
	if json.Unmarshal(text, &m) != nil {
		return nil
	}
	return m
}

// shrink returns an object's description with its metadata replaced by a reference, or nil when it can stay as it is.
func (s overflowStore) shrink(description []byte) ([]byte, error) {
	if len(description) <= maxInline/6 { // no escaping can make it too long
		return nil, nil
	}
	var object map[string]json.RawMessage
	var metadata map[string]string
	if json.Unmarshal(description, &object) != nil || json.Unmarshal(object["metadata"], &metadata) != nil {
		return nil, nil // the server will say what is wrong with it
	}
	stored, err := json.Marshal(metadata)
	if err != nil || len(stored) <= maxInline {
		return nil, err
	}
	hash, err := s.put(stored)
	if err != nil {
		return nil, fmt.Errorf("keep metadata: %w", err)
	}
	if object["metadata"], err = json.Marshal(map[string]string{overflowKey: hash}); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// expand puts the metadata back wherever in an answer a reference stands.
func (s overflowStore) expand(answer any) {
	switch v := answer.(type) {
	case []any:
		for _, item := range v {
			s.expand(item)
		}
	case map[string]any:
		for key, value := range v {
			if key != "metadata" {
				s.expand(value)
			} else if metadata, ok := value.(map[string]any); ok {
				s.expandMap(metadata)
			}
		}
	}
}

func (s overflowStore) expandMap(metadata map[string]any) {
	hash, ok := metadata[overflowKey].(string)
	if !ok {
		return
	}
	delete(metadata, overflowKey)
	later := maps.Clone(metadata) // what a patch has set since
	for k, value := range s.get(hash) {
		metadata[k] = value
	}
	maps.Copy(metadata, later)
}

// shrinkRequest replaces large metadata in a request that creates or changes an object.
func (f *storageFront) shrinkRequest(r *http.Request) error {
	if r.Body == nil || r.Method == http.MethodGet || !isResource(r) {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil:
		return nil // the server will say so
	case strings.HasPrefix(mediaType, "multipart/"):
		return f.shrinkMultipart(r, params["boundary"])
	case mediaType != "application/json" || r.URL.Query().Has("upload_id") || r.URL.Query().Get("uploadType") == "media":
		return nil // no description, or an object that is JSON
	}
	head := bufio.NewReaderSize(r.Body, maxDescription)
	description, err := head.Peek(maxDescription)
	if err == nil {
		description = nil // too long to be one
	}
	return f.replace(r, head, description, 0)
}

// shrinkMultipart does the same for an upload in one request: the description is the first part, the object the second, which
// passes through as it comes.
func (f *storageFront) shrinkMultipart(r *http.Request, boundary string) error {
	head := bufio.NewReaderSize(r.Body, maxDescription)
	begin, _ := head.Peek(maxDescription) // an error is a short body, or comes back when the rest is read
	start := bytes.Index(begin, []byte("\r\n\r\n"))
	if start < 0 || boundary == "" {
		return f.replace(r, head, nil, 0)
	}
	start += len("\r\n\r\n")
	length := bytes.Index(begin[start:], []byte("\r\n--"+boundary))
	if length < 0 {
		return f.replace(r, head, nil, 0)
	}
	return f.replace(r, head, begin[start:start+length], start)
}

// replace gives the request the body that head reads, with the description at offset start replaced if that is needed.
func (f *storageFront) replace(r *http.Request, head *bufio.Reader, description []byte, start int) error {
	body := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{head, body}
	short, err := f.overflow.shrink(description)
	if err != nil || short == nil {
		return err
	}
	before := make([]byte, start)
	if _, err := io.ReadFull(head, before); err != nil {
		return err
	}
	if _, err := head.Discard(len(description)); err != nil {
		return err
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(before), bytes.NewReader(short), head), body}
	r.ContentLength = -1
	r.Header.Del("Content-Length")
	return nil
}

// expandingWriter puts metadata back into an answer: into the descriptions of objects, which it holds until they are whole,
// and into the headers of objects, which pass through.
type expandingWriter struct {
	http.ResponseWriter
	overflow overflowStore
	resource bool // the answer describes objects
	started  bool
	held     *bytes.Buffer
	status   int
}

// WriteHeader implements http.ResponseWriter.
func (w *expandingWriter) WriteHeader(status int) {
	w.started = true
	if w.resource && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		w.held, w.status = &bytes.Buffer{}, status
		return
	}
	const prefix = "X-Goog-Meta-"
	if hash := w.Header().Get(prefix + overflowKey); hash != "" {
		w.Header().Del(prefix + overflowKey)
		for k, value := range w.overflow.get(hash) {
			if w.Header().Get(prefix+k) == "" {
				w.Header().Set(prefix+k, value)
			}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *expandingWriter) Write(p []byte) (int, error) {
	if !w.started {
		w.WriteHeader(http.StatusOK)
	}
	if w.held != nil {
		return w.held.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// finish sends what was held.
func (w *expandingWriter) finish() {
	if w.held == nil {
		return
	}
	answer := w.held.Bytes()
	if bytes.Contains(answer, []byte(overflowKey)) {
		if whole, err := w.expanded(answer); err == nil {
			answer = whole
		}
	}
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(answer) // a client that left is no news
}

func (w *expandingWriter) expanded(answer []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	w.overflow.expand(v)
	return json.Marshal(v)
}
