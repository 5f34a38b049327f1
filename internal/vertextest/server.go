package vertextest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// maxStreams is how many calls Google's front end takes on one HTTP/2 connection.
const maxStreams = 100

// errClosed is why calls end when the server closes.
var errClosed = errors.New("vertextest: server closed")

// Server is a running Vertex AI. All methods are safe for concurrent use.
type Server struct {
	cfg        Config
	now        func() time.Time
	quota      *quota
	gate       *gate
	seen       *seen
	painter    *painter
	pads       *padder
	drawing    chan struct{}
	written    atomic.Int64 // answers written to Cloud Storage, which numbers them
	inModel    atomic.Int64 // calls admitted and not yet answered
	log        *callLog
	batches    batchStore
	batchQuota *quota
	counters   *counters

	stop   context.CancelCauseFunc
	base   context.Context
	mu     sync.Mutex
	closed bool           // guarded by mu: no handler enters after Close began to wait
	active sync.WaitGroup // handlers that entered
	serve  sync.WaitGroup // listeners

	rest     net.Listener
	http     *http.Server
	grpcAddr net.Listener
	grpc     *grpc.Server
	ca       []byte
	closing  sync.Once
}

// Start checks cfg, listens and serves until [Server.Close]. When it returns,
// both addresses accept connections.
func Start(cfg Config) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("vertextest: %w", err)
	}
	s := newServer(cfg)
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("vertextest: %w", err)
	}
	s.serve.Go(func() {
		// Serve always returns an error; ErrServerClosed is the only one while the listener is ours.
		_ = s.http.Serve(s.rest)
	})
	s.serve.Go(func() { _ = s.grpc.Serve(s.grpcAddr) })
	return s, nil
}

func newServer(cfg Config) *Server {
	s := &Server{
		cfg: cfg, now: time.Now, seen: &seen{}, painter: newPainter(), pads: newPadder(),
		drawing: make(chan struct{}, runtime.GOMAXPROCS(0)),
		log:     &callLog{w: cfg.CallLog}, counters: &counters{s: Stats{ByStatus: map[int]int64{}}},
	}
	s.gate = newGate(cfg.GateAt, cfg.GateWait)
	s.quota = newQuota(&s.cfg, func() time.Time { return s.now() })
	s.batchQuota = newBatchQuota(&s.cfg.Batch, func() time.Time { return s.now() })
	s.base, s.stop = context.WithCancelCause(context.Background())
	return s
}

func (s *Server) listen() (err error) {
	var tlsConfig *tls.Config
	if s.cfg.TLS {
		var cert tls.Certificate
		if cert, s.ca, err = newCertificate(s.now()); err != nil {
			return err
		}
		tlsConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if s.rest, err = net.Listen("tcp", s.cfg.Addr); err != nil {
		return fmt.Errorf("listen for REST: %w", err)
	}
	if s.grpcAddr, err = net.Listen("tcp", s.cfg.GRPCAddr); err != nil {
		return errors.Join(fmt.Errorf("listen for gRPC: %w", err), s.rest.Close())
	}
	s.http = s.newHTTPServer(tlsConfig)
	options := []grpc.ServerOption{grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxRequestBytes)}
	if tlsConfig != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(tlsConfig.Clone())))
		s.http.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
		s.rest = tls.NewListener(s.rest, s.http.TLSConfig)
	}
	s.grpc = grpc.NewServer(options...)
	aiplatformpb.RegisterPredictionServiceServer(s.grpc, &predictionService{s: s})
	aiplatformpb.RegisterJobServiceServer(s.grpc, &jobService{s: s})
	return nil
}

func (s *Server) newHTTPServer(tlsConfig *tls.Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveREST),
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: time.Minute, // no slow header can hold a connection for ever
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnState:         s.countConn,
		ErrorLog:          log.New(io.Discard, "", 0), // broken connections are what this server is for
	}
}

func (s *Server) countConn(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.counters.update(func(st *Stats) {
			st.Conns++
			st.PeakConns = max(st.PeakConns, st.Conns)
		})
	case http.StateClosed, http.StateHijacked:
		s.counters.update(func(st *Stats) { st.Conns-- })
	}
}

// URL returns the base URL for REST, without a slash at the end.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.TLS {
		scheme = "https"
	}
	return scheme + "://" + s.rest.Addr().String()
}

// GRPCAddr returns the address of the gRPC service as host:port.
func (s *Server) GRPCAddr() string { return s.grpcAddr.Addr().String() }

// CACert returns the certificate to trust, in PEM, or nil without TLS.
func (s *Server) CACert() []byte { return s.ca }

// CertPool returns a pool with the certificate to trust; empty without TLS.
func (s *Server) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ca)
	return pool
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats { return s.counters.snapshot() }

// SetRequestsPerMinute changes Config.RequestsPerMinute from now on, whatever
// Config.QuotaSteps would still do to it.
func (s *Server) SetRequestsPerMinute(n float64) { s.quota.set("", max(0, n)) }

// SetTierRequestsPerMinute does the same for the own quota of one tier.
func (s *Server) SetTierRequestsPerMinute(tier string, n float64) { s.quota.set(tier, max(0, n)) }

// SetGate changes Config.GateAt from now on.
func (s *Server) SetGate(at int) { s.gate.set(max(0, at)) }

// OpenGate sends the answers that the gate holds now.
func (s *Server) OpenGate() { s.gate.open() }

// GateWaiting returns how many answers the gate holds.
func (s *Server) GateWaiting() int {
	_, waiting := s.gate.state()
	return waiting
}

// Close ends all calls, closes the connections and waits for every handler.
// The call log is complete when it returns. Closing again does nothing.
func (s *Server) Close() error {
	var err error
	s.closing.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.stop(errClosed)
		err = s.http.Close()
		s.grpc.Stop()
		s.serve.Wait()
		s.active.Wait()
	})
	return err
}

// enter registers a handler, unless the server is closing. A handler that
// entered must call active.Done.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.active.Add(1)
	return true
}

// admit takes one call through the quota and sets the tier that serves it.
// Every admitted call must be released.
func (s *Server) admit(c *Call) *apiError {
	switch {
	case c.spills && s.quota.has(TierProvisioned) && s.quota.take(c, TierProvisioned):
		c.Tier = TierProvisioned
	case !s.quota.take(c, c.Tier):
		e := s.failure(http.StatusTooManyRequests)
		if c.Tier == TierProvisioned {
			e.Message = "Too many requests. Exceeded the Provisioned Throughput."
		}
		return e
	}
	if n := s.inModel.Add(1); s.cfg.MaxInFlight > 0 && n > int64(s.cfg.MaxInFlight) {
		s.inModel.Add(-1)
		return s.failure(http.StatusTooManyRequests)
	}
	return nil
}

// failure is statusError with the configured advice.
func (s *Server) failure(code int) *apiError {
	e := statusError(code)
	if code == http.StatusTooManyRequests {
		e.retryAfter = s.cfg.RetryAfter
	}
	return e
}

func (s *Server) release() { s.inModel.Add(-1) }

// reply is the end of a call in the model: an answer with the fate of its delivery.
type reply struct {
	answer *answer
	fate   Fate
	took   time.Duration
	at     time.Time
	batch  string // the job whose row this is
}

// ask runs one call in the model: quota, fate, latency, answer. The error is
// an *apiError, or the cause of ctx when the client left or the server closed.
// An answer without error must be recorded.
func (s *Server) ask(ctx context.Context, c *Call) (*reply, error) {
	start := s.now()
	if err := s.admit(c); err != nil {
		return nil, err
	}
	defer s.release()
	c.Number = s.seen.countContent(c.content)
	f := s.decide(c)
	if f.Fault == FaultHang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	timedOut := f.Latency > c.timeout
	work := ctx
	if s.cfg.BillAbandoned && f.Fault != FaultStatus {
		work = s.base // the model does not notice that the client left
	}
	if err := sleep(work, min(f.Latency, c.timeout)); err != nil {
		return nil, err
	}
	if timedOut {
		return nil, statusError(http.StatusGatewayTimeout)
	}
	if f.Fault == FaultStatus {
		return nil, s.failure(f.Status)
	}
	a, err := s.answer(work, c, f)
	if err != nil {
		return nil, err
	}
	if err := s.gate.pass(work); err != nil {
		return nil, err
	}
	end := s.now()
	r := &reply{answer: a, fate: f, took: end.Sub(start), at: end}
	if err := s.writeDirect(c, a); err != nil {
		s.record(c, r, false)
		return nil, err
	}
	if f.Fault == FaultLost {
		s.record(c, r, false)
		return nil, s.lost(ctx, f.Status)
	}
	return r, nil
}

// lost is the end of a call whose answer is never sent.
func (s *Server) lost(ctx context.Context, status int) error {
	if status != 0 {
		return s.failure(status)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// sleep waits for d, or returns the cause of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// record writes the call log line of an answer.
func (s *Server) record(c *Call, r *reply, delivered bool) {
	a := r.answer
	rec := CallRecord{
		Time: r.at.UTC(), Method: c.Method, Project: c.Project, Location: c.Location, Model: c.Model,
		Prompt: hexSum(c.promptSum), Context: c.context, Labels: c.Labels, Seed: c.Seed, Size: c.Size, Ratio: c.AspectRatio,
		Tier: c.Tier, Result: "refused", FinishReason: a.finishReason + a.blockReason, Tokens: a.billed,
		LatencyMS: float64(r.took.Microseconds()) / 1000, Delivered: delivered, Number: c.Number, Batch: r.batch,
	}
	if img := a.image(); img != nil {
		rec.Result, rec.Image, rec.Bytes = "image", img.sha256, img.size
		rec.Object = a.uri()
	}
	err := s.log.write(rec)
	s.counters.update(func(st *Stats) {
		if rec.Result == "image" {
			st.Images++
		} else {
			st.Refused++
		}
		if !delivered {
			st.Undelivered++
		} else if rec.Object == "" && rec.Batch == "" {
			st.BytesSent += int64(rec.Bytes)
		}
		if err != nil {
			st.LogErrors++
		}
	})
}
