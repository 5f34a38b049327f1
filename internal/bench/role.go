package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/assetmill/assetmill/internal/bench/rival"
	"github.com/assetmill/assetmill/internal/bench/standin"
)

// RoleVariable is the environment variable that makes a process of this program one of the benchmark's own. Its value is for [ServeRole].
const RoleVariable = "ASSETMILL_BENCH_ROLE"

// Names of roles.
const (
	modelRole   = "model"
	storageRole = "storage"
	rowsRole    = "rows"
	queueRole   = "queue"
	floorRole   = "floor"
	naiveRole   = "naive"
)

// role is what a process is told to be.
type role struct {
	Name      string
	Cert, Key string // PEM files
	Model     standin.ModelConfig
	Storage   standin.StorageConfig
	Floor     rival.FloorConfig
	Naive     rival.NaiveConfig
}

// addresses are where a stand-in is found. It prints them as one line of JSON when it is ready.
type addresses struct {
	HTTPS   string // base URL
	GRPC    string // host:port
	Control string // base URL of what the benchmark itself asks
}

const (
	// streamsPerConnection is how many requests Google's front ends take on an HTTP/2 connection at a time.
	streamsPerConnection = 100
	// maxMessageBytes bounds a gRPC request: Pub/Sub and BigQuery take 10 MB.
	maxMessageBytes = 16 << 20
	headerTimeout   = time.Minute
)

// ServeRole is the main function of a process whose environment has [RoleVariable]. It ends with SIGTERM, or when its
// work fails.
func ServeRole(text string) error {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s: %w", RoleVariable, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch r.Name {
	case floorRole:
		if err := rival.Floor(ctx, r.Floor); err != nil && ctx.Err() == nil {
			return err
		}
		<-ctx.Done() // what it has used is to be seen until it is told to go
		return nil
	case naiveRole:
		r.Naive.Log = os.Stderr
		return rival.Naive(ctx, r.Naive)
	case modelRole, storageRole, rowsRole, queueRole:
		return r.serve(ctx, os.Stdout)
	default:
		return fmt.Errorf("role %q is unknown", r.Name)
	}
}

// serve runs a stand-in until ctx ends.
func (r *role) serve(ctx context.Context, out io.Writer) error {
	s := &server{role: r}
	if err := s.open(ctx); err != nil {
		return errors.Join(err, s.close())
	}
	if err := json.NewEncoder(out).Encode(s.addresses); err != nil {
		return errors.Join(err, s.close())
	}
	<-ctx.Done()
	return s.close()
}

// server is a stand-in and its ports.
type server struct {
	role      *role
	addresses addresses
	group     errgroup.Group
	stops     []func()
}

func (s *server) open(ctx context.Context) error {
	switch s.role.Name {
	case modelRole:
		m, err := standin.NewModel(s.role.Model)
		if err != nil {
			return err
		}
		return errors.Join(s.https(m), s.control(&m.Begun, func() any { return m.Stats() }))
	case storageRole:
		st := standin.NewStorage(s.role.Storage)
		return errors.Join(s.https(st), s.control(&st.Assets, func() any { return st.Stats() }))
	case rowsRole:
		b := standin.NewRows()
		register := func(g *grpc.Server) { storagepb.RegisterBigQueryWriteServer(g, b) }
		return errors.Join(s.https(b), s.grpc(register), s.control(&b.Jobs, func() any { return b.Stats() }))
	default:
		q := standin.NewQueue()
		s.group.Go(func() error { q.Run(ctx); return nil })
		register := func(g *grpc.Server) {
			pubsubpb.RegisterPublisherServer(g, q)
			pubsubpb.RegisterSubscriberServer(g, q)
		}
		return errors.Join(s.grpc(register), s.control(&standin.Meter{}, func() any { return q.Stats() }))
	}
}

func (s *server) close() error {
	for _, stop := range s.stops {
		stop()
	}
	return s.group.Wait()
}

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streamsPerConnection},
		ErrorLog: log.New(io.Discard, "", 0), // clients that break off are no news
	}
}

// https serves a handler with TLS.
func (s *server) https(h http.Handler) error {
	l, err := listen()
	if err != nil {
		return err
	}
	srv := newHTTPServer(h)
	s.addresses.HTTPS = "https://" + l.Addr().String()
	s.run(func() error { return srv.ServeTLS(l, s.role.Cert, s.role.Key) }, func() { srv.Close() })
	return nil
}

// grpc serves what is registered, in clear text, as emulators do.
func (s *server) grpc(register func(*grpc.Server)) error {
	l, err := listen()
	if err != nil {
		return err
	}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes))
	register(srv)
	s.addresses.GRPC = l.Addr().String()
	s.run(func() error { return srv.Serve(l) }, srv.Stop)
	return nil
}

// control serves what the benchmark asks: /stats, and /reach?n=, which answers when the meter has come so far.
func (s *server) control(m *standin.Meter, stats func() any) error {
	l, err := listen()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(stats()) // a failed write means that nobody reads
	})
	mux.HandleFunc("GET /reach", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err == nil {
			err = m.Reach(r.Context(), n)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	srv := newHTTPServer(mux)
	s.addresses.Control = "http://" + l.Addr().String()
	s.run(func() error { return srv.Serve(l) }, func() { srv.Close() })
	return nil
}

// run serves until stop is called.
func (s *server) run(serve func() error, stop func()) {
	s.stops = append(s.stops, stop)
	s.group.Go(func() error {
		if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}
