//go:build linux

package torture

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// call is a write to Cloud Storage, or a call about a batch prediction job, that a worker makes.
type call struct {
	worker string
	method string // of JobService; empty: a write
	bucket string
	object string // or the batch that is to be created
	head   []byte // the beginning of the object, and what describes it
}

// strike says when a worker is to be killed: at a call of its own, so that it dies at the same place each time.
type strike struct {
	name string
	at   func(*call) bool // asked of one call at a time
	// after lets the call do what it does, and kills the worker before it knows. Otherwise it is never done.
	after bool
}

// siege watches the calls of all workers for the next strike.
type siege struct {
	mu     sync.Mutex
	next   *strike
	hit    chan string     // the worker that is held at the next strike
	doomed map[string]bool // workers that were held at one
	// intents are the creates of Vertex jobs that are written down and not made yet, by worker and batch. A worker that is killed meanwhile leaves a
	// batch for which nobody creates another for ten minutes. That is as it should be, and takes longer than a test has.
	intents map[string]map[string]bool
}

// arm makes a strike the next one, and returns where the worker is told that it holds.
func (s *siege) arm(next *strike) <-chan string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.hit = next, make(chan string, 1)
	return s.hit
}

// enter says whether a call is to be held, and if so, whether it is served first. hit is where its worker is to be told, if it is the strike.
func (s *siege) enter(c *call) (hit chan<- string, held, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	intent := intends(c)
	if intent && s.doomed[c.worker] {
		return nil, true, false
	}
	if intent {
		if s.intents == nil {
			s.intents = map[string]map[string]bool{}
		}
		if s.intents[c.worker] == nil {
			s.intents[c.worker] = map[string]bool{}
		}
		s.intents[c.worker][strings.Split(c.object, "/")[1]] = true
	}
	if s.next == nil || !s.next.at(c) {
		return nil, false, false
	}
	if s.doomed == nil {
		s.doomed = map[string]bool{}
	}
	s.doomed[c.worker] = true
	hit, after, s.next = s.hit, s.next.after, nil
	return hit, true, after
}

// intends reports whether a call writes down that a Vertex job is about to be created.
func intends(c *call) bool {
	return strings.HasSuffix(c.object, "/state.json") && bytes.Contains(c.head, []byte(`"phase":"gathered"`)) && bytes.Contains(c.head, []byte(`"creates":`))
}

// made notes that a create has reached Vertex.
func (s *siege) made(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.intents[c.worker], c.object)
}

// undecided reports whether a worker has creates before it that are written down.
func (s *siege) undecided(worker string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.intents[worker]) > 0
}

// pass lets a call through, or holds it, before or after it was served, until the worker is dead. It reports whether the answer may
// be given.
func (s *siege) pass(ctx context.Context, c *call, serve func()) bool {
	hit, held, after := s.enter(c)
	if !held || after {
		serve()
		if c.method == methodCreate {
			s.made(c)
		}
	}
	if !held {
		return true
	}
	if hit != nil {
		hit <- c.worker
	}
	<-ctx.Done() // its connection ends with it
	return false
}

// methodCreate is the method that creates a Vertex job.
const methodCreate = "create"

// front stands before the services of one worker.
type front struct {
	worker  string
	siege   *siege
	storage *httputil.ReverseProxy
	vertex  aiplatformpb.JobServiceClient
	aiplatformpb.UnimplementedJobServiceServer
}

// startFront serves a worker that is yet to be started, and returns its environment.
func (w *world) startFront(s *siege, worker string) (env []string) {
	w.t.Helper()
	vars := w.model.variables()
	target, err := url.Parse(vars["STORAGE_EMULATOR_HOST"])
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := grpc.NewClient(vars["VERTEX_GRPC_EMULATOR_HOST"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	f := &front{worker: worker, siege: s, vertex: aiplatformpb.NewJobServiceClient(conn)}
	f.storage = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // an upload in several requests comes back here
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 512},
		ErrorLog:  log.New(io.Discard, "", 0), // a worker that dies breaks off what it does
	}
	server := &http.Server{Handler: f}
	calls := grpc.NewServer()
	aiplatformpb.RegisterJobServiceServer(calls, f)
	at := [2]string{}
	var serving sync.WaitGroup
	for i, serve := range []func(net.Listener) error{server.Serve, calls.Serve} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		at[i] = l.Addr().String()
		serving.Go(func() { _ = serve(l) }) // ends when it is closed
	}
	w.t.Cleanup(func() {
		server.Close()
		calls.Stop()
		serving.Wait()
	})
	return append(append([]string{}, w.env...), "STORAGE_EMULATOR_HOST=http://"+at[0], "VERTEX_GRPC_EMULATOR_HOST="+at[1])
}

// headBytes is as much of a write as tells what it is: an object's description, and the beginning of a ledger record or of a batch's state.
const headBytes = 4 << 10

var (
	uploadPath = regexp.MustCompile(`^/upload/storage/v1/b/([^/]+)/o$`)
	objectName = regexp.MustCompile(`"name":\s*"([^"]+)"`)
)

// ServeHTTP implements http.Handler: it passes requests on to Cloud Storage.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := f.write(r)
	if c == nil {
		f.storage.ServeHTTP(w, r)
		return
	}
	kept := httptest.NewRecorder()
	if f.siege.pass(r.Context(), c, func() { f.storage.ServeHTTP(kept, r) }) {
		maps.Copy(w.Header(), kept.Header())
		w.WriteHeader(kept.Code)
		_, _ = w.Write(kept.Body.Bytes()) // a worker that has died is no news
	}
}

// write returns what a request writes, or nil when it writes nothing.
func (f *front) write(r *http.Request) *call {
	m := uploadPath.FindStringSubmatch(r.URL.Path)
	if m == nil || r.Method != http.MethodPost {
		return nil
	}
	body := bufio.NewReaderSize(r.Body, headBytes)
	head, _ := body.Peek(headBytes) // an error is a short body, or comes back when the rest is read
	c := &call{worker: f.worker, bucket: m[1], object: r.URL.Query().Get("name"), head: bytes.Clone(head)}
	if name := objectName.FindSubmatch(head); c.object == "" && name != nil {
		c.object = string(name[1])
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{body, r.Body}
	return c
}

// job passes a call about batch prediction jobs on.
func job[Q, A any](ctx context.Context, f *front, c call, serve func(context.Context, Q, ...grpc.CallOption) (A, error), in Q) (out A, err error) {
	// The call goes on when its worker dies, as one that has reached Google does.
	c.worker = f.worker
	f.siege.pass(ctx, &c, func() { out, err = serve(context.WithoutCancel(ctx), in) })
	return out, err
}

// CreateBatchPredictionJob implements aiplatformpb.JobServiceServer.
func (f *front) CreateBatchPredictionJob(ctx context.Context, in *aiplatformpb.CreateBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	return job(ctx, f, call{method: methodCreate, object: in.GetBatchPredictionJob().GetDisplayName()}, f.vertex.CreateBatchPredictionJob, in)
}

// GetBatchPredictionJob implements aiplatformpb.JobServiceServer.
func (f *front) GetBatchPredictionJob(ctx context.Context, in *aiplatformpb.GetBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	return job(ctx, f, call{method: "get"}, f.vertex.GetBatchPredictionJob, in)
}

// ListBatchPredictionJobs implements aiplatformpb.JobServiceServer.
func (f *front) ListBatchPredictionJobs(ctx context.Context, in *aiplatformpb.ListBatchPredictionJobsRequest) (*aiplatformpb.ListBatchPredictionJobsResponse, error) {
	return job(ctx, f, call{method: "list"}, f.vertex.ListBatchPredictionJobs, in)
}

// CancelBatchPredictionJob implements aiplatformpb.JobServiceServer.
func (f *front) CancelBatchPredictionJob(ctx context.Context, in *aiplatformpb.CancelBatchPredictionJobRequest) (*emptypb.Empty, error) {
	return job(ctx, f, call{method: "cancel"}, f.vertex.CancelBatchPredictionJob, in)
}

// writes says of calls whether they write an object of a bucket whose name begins so, and that contains all of these words.
func writes(bucket, prefix string, words ...string) func(*call) bool {
	return func(c *call) bool {
		if c.bucket != bucket || !strings.HasPrefix(c.object, prefix) {
			return false
		}
		for _, word := range words {
			if !strings.Contains(c.object, word) && !bytes.Contains(c.head, []byte(word)) {
				return false
			}
		}
		return true
	}
}

// calls says of calls whether they are of a method of JobService.
func calls(method string) func(*call) bool { return func(c *call) bool { return c.method == method } }

// nth says yes at the nth such call of one worker.
func nth(n int, at func(*call) bool) func(*call) bool {
	seen := map[string]int{}
	return func(c *call) bool {
		if !at(c) {
			return false
		}
		seen[c.worker]++
		return seen[c.worker] == n
	}
}
