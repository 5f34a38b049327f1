package localcloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/gcs"
)

// storageCloseTimeout bounds how long requests in flight may go on once the server closes: writes of one image take milliseconds.
const storageCloseTimeout = 5 * time.Second

// storageServer is fake-gcs-server on the file system, behind an HTTP server and a front of our own.
type storageServer struct {
	fake   *fakestorage.Server
	front  *http.Server
	addr   string
	root   string // of the buckets
	spool  string // for objects that are being written; on the same file system
	served chan error
}

// startStorage serves the objects below root. When it fails, the listener stays the caller's.
func startStorage(l net.Listener, root, overflow string) (*storageServer, error) {
	addr := l.Addr().String()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		StorageRoot: root,
		NoListener:  true, // its own picks the port and can't be shut down in order
		Scheme:      "http",
		PublicHost:  addr,
		Writer:      io.Discard,
	})
	if err != nil {
		return nil, err
	}
	s := &storageServer{fake: fake, addr: addr, root: root, spool: overflow + "-spool", served: make(chan error, 1)}
	s.front = &http.Server{
		Handler:           &storageFront{next: fake.HTTPHandler(), host: addr, root: root, overflow: overflowStore{dir: overflow}},
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that break off are no news
	}
	go func() { s.served <- s.front.Serve(l) }()
	return s, nil
}

func (s *storageServer) url() string { return "http://" + s.addr }

func (s *storageServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), storageCloseTimeout)
	defer cancel()
	err := s.front.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.front.Close()
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	s.fake.Stop()
	return err
}

// ensureBuckets creates what is missing, over the wire, so that its success says that the server answers.
func (s *storageServer) ensureBuckets(ctx context.Context, names ...string) error {
	client, err := storage.NewClient(ctx, option.WithEndpoint(s.url()+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		return err
	}
	defer client.Close() // nothing is in flight
	for _, name := range names {
		_, err := client.Bucket(name).Attrs(ctx)
		if gcs.NotFound(err) {
			err = client.Bucket(name).Create(ctx, Project, nil)
		}
		if err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// exists reports whether there is such an object, for the model that is asked to look at it.
func (s *storageServer) exists(_ context.Context, bucket, object string) (bool, error) {
	found, err := s.fake.GetObjectStreaming(bucket, object)
	if err != nil {
		return false, nil // fake-gcs-server doesn't tell why; a file that can't be read is no reference either
	}
	return true, found.Close()
}

// storageFront stands before fake-gcs-server because that (v1.56.1)
//
//   - serves the XML API, which Go's client reads objects with, under one host name only, and otherwise takes `localhost` for
//     the name of a bucket;
//   - keeps an object's metadata in an attribute of its file, where ext4 has room for 4 KB and Cloud Storage allows 8; a write
//     that doesn't fit is answered as a 500, which clients repeat for ever;
//   - joins object names to paths without a look at what is in them;
//   - reads a whole bucket to list one folder of it;
//   - copies an object over another whatever the request's precondition says;
//   - does not know the JSON API without its prefix, where the Node client looks for it when STORAGE_EMULATOR_HOST is set.
type storageFront struct {
	next     http.Handler
	host     string
	root     string // of the buckets
	overflow overflowStore
	copying  sync.Mutex // held while a copy that must not overwrite looks and then copies
}

// has reports whether there is an object, named as in the paths of the JSON API.
func (f *storageFront) has(r *http.Request, target string) bool {
	status, _ := f.ask(r, target)
	return status == http.StatusOK
}

// ask returns what the server says of an object, named as in the paths of the JSON API.
func (f *storageFront) ask(r *http.Request, target string) (status int, description []byte) {
	look, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+f.host+"/storage/v1/"+escaped(target), nil)
	if err != nil {
		return http.StatusNotFound, nil // no such name can be an object's
	}
	answer := keepingWriter{header: http.Header{}}
	f.next.ServeHTTP(&answer, look)
	return answer.status, answer.body.Bytes()
}

// keepingWriter keeps an answer.
type keepingWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *keepingWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *keepingWriter) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *keepingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.body.Write(p)
}

// escaped is `b/<bucket>/o/<object>` as a path holds it.
func escaped(target string) string {
	bucket, object, _ := strings.Cut(strings.TrimPrefix(target, "b/"), "/o/")
	return "b/" + url.PathEscape(bucket) + "/o/" + url.PathEscape(object)
}

// apis are the roots of all but the XML API.
var apis = []string{"/storage/", "/upload/", "/download/", "/batch/", "/_internal/"}

func (f *storageFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	addPrefix(r)
	if escapes(r.URL.Path) || escapes(r.URL.Query().Get("name")) {
		refuse(w, "object names with `.` or `..` between slashes are not kept on a file system")
		return
	}
	if !slices.ContainsFunc(apis, func(root string) bool { return strings.HasPrefix(r.URL.Path, root) }) {
		r.Host = f.host
	}
	if err := f.shrinkRequest(r); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, target, copies := strings.Cut(r.URL.Path, "/rewriteTo/"); copies && r.URL.Query().Get("ifGenerationMatch") == "0" {
		f.copying.Lock()
		defer f.copying.Unlock()
		if f.has(r, target) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusPreconditionFailed)
			fmt.Fprint(w, `{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold."}}`)
			return
		}
	}
	out := &expandingWriter{ResponseWriter: w, overflow: f.overflow, resource: isResource(r)}
	if !f.list(out, r) {
		f.next.ServeHTTP(out, r)
	}
	out.finish()
}

// addPrefix adds the JSON API's prefix to a request that lacks it. No bucket is meant: their names have three letters or more.
func addPrefix(r *http.Request) {
	if r.URL.Path != "/b" && !strings.HasPrefix(r.URL.Path, "/b/") {
		return
	}
	const prefix = "/storage/v1"
	r.URL.Path = prefix + r.URL.Path
	if r.URL.RawPath != "" {
		r.URL.RawPath = prefix + r.URL.RawPath
	}
}

// escapes reports whether a name or path holds parts that a file system takes for a direction.
func escapes(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || part == "." {
			return true
		}
	}
	return false
}

func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"error":{"code":400,"message":%q,"errors":[{"domain":"global","reason":"invalid","message":%q}]}}`, why, why)
}

// isResource reports whether the answer describes objects, and is not an object.
func isResource(r *http.Request) bool {
	return (strings.HasPrefix(r.URL.Path, "/storage/") || strings.HasPrefix(r.URL.Path, "/upload/")) && r.URL.Query().Get("alt") != "media"
}
