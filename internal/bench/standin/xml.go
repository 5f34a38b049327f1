package standin

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// xml serves the XML API: what Go's client reads with, and the shortest way to write.
func (s *Storage) xml(w http.ResponseWriter, r *http.Request, bucket, escaped string) (any, error) {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return nil, s.read(w, bucket, name)
	case http.MethodPut:
		return nil, s.put(w, r, bucket, name)
	default:
		return nil, &storageError{http.StatusMethodNotAllowed, r.Method + " is not served here"}
	}
}

// put stores a request's body.
func (s *Storage) put(w http.ResponseWriter, r *http.Request, bucket, name string) error {
	data, err := readWhole(r.Body)
	if err != nil {
		return err
	}
	o := &object{Bucket: bucket, Name: name, ContentType: r.Header.Get("Content-Type"), Metadata: map[string]string{}}
	for key, values := range r.Header {
		if meta, ok := strings.CutPrefix(key, "X-Goog-Meta-"); ok {
			o.Metadata[strings.ToLower(meta)] = values[0]
		}
	}
	for _, hash := range strings.Split(r.Header.Get("X-Goog-Hash"), ",") {
		if sum, ok := strings.CutPrefix(strings.TrimSpace(hash), "crc32c="); ok {
			o.CRC32C = sum
		}
	}
	if _, err := s.create(o, data, r.Header.Get("X-Goog-If-Generation-Match")); err != nil {
		return err
	}
	setObjectHeaders(w.Header(), o)
	w.WriteHeader(http.StatusOK)
	return nil
}

func readWhole(body io.Reader) (*content, error) {
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	data := &content{}
	for {
		n, err := body.Read(block[:])
		_, _ = data.Write(block[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
