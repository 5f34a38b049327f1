package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"syscall"
	"time"
)

const (
	// headerTime bounds the reading of a request's head, so that a peer that says nothing does not keep a connection.
	headerTime = 5 * time.Second
	// farewellTime bounds the wait for answers under way when the server is closed.
	farewellTime = 2 * time.Second
)

// Pages are what a Server serves.
type Pages struct {
	Metrics http.Handler
	Health  *Health
	// Profiles adds Go's profiles under /debug/pprof/. Whoever reaches them can slow the process down; they show no prompts and no
	// credentials, but they do show the command line.
	Profiles bool
}

// Server serves metrics and probes: /metrics, /healthz, /readyz.
type Server struct {
	server *http.Server
	addr   string
	ended  chan error
}

// Listen begins to serve on an address such as ":9090". The error says what to do when the address can't be used.
func Listen(addr string, pages Pages) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("metrics can't be served on %s: another process has the port, perhaps a second worker: choose another --metrics-addr: %w", addr, err)
	case err != nil:
		return nil, fmt.Errorf("metrics can't be served on %s: --metrics-addr is host:port or :port: %w", addr, err)
	}
	s := &Server{
		server: &http.Server{Handler: pages.handler(), ReadHeaderTimeout: headerTime},
		addr:   listener.Addr().String(), ended: make(chan error, 1),
	}
	go func() { s.ended <- s.server.Serve(listener) }()
	return s, nil
}

func (p Pages) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.Metrics)
	mux.HandleFunc("GET /healthz", p.Health.serveLive)
	mux.HandleFunc("GET /readyz", p.Health.serveReady)
	if p.Profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.addr }

// Close ends the server and waits for it. The error says why it ended earlier, if it did.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close() // a profile of half a minute is not worth waiting for
	}
	if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
