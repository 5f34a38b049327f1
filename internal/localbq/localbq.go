// Package localbq runs a BigQuery on this machine: github.com/goccy/bigquery-emulator in process, with a front for the
// Storage Write API that behaves as BigQuery's does. It serves cmd/localcloud and tests, and is never linked into
// assetmill.
//
// What it has: the REST API, GoogleSQL, and the Storage Write API's default stream. What it lacks, against BigQuery:
// permissions, quotas, cost, and enforcement of REQUIRED columns (package lineage checks rows before it sends them).
package localbq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/goccy/bigquery-emulator/server"
	"github.com/goccy/bigquery-emulator/types"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	ephemeral = "127.0.0.1:0"
	// closeTimeout bounds how long Close waits for requests in flight. A query of the emulator ends in seconds.
	closeTimeout = 5 * time.Second
	// maxMessageBytes is what the front accepts in one request: BigQuery's own limit for AppendRows.
	maxMessageBytes = 20 << 20
)

// Config says what to serve and where.
type Config struct {
	Project string // required
	Dataset string // required; created when it is missing
	// File keeps the data across restarts. Empty: a temporary file that Close removes.
	File     string
	RESTAddr string // address to listen on; empty: any free loopback port
	GRPCAddr string // address to listen on; empty: any free loopback port
}

// Server is a running BigQuery.
type Server struct {
	emulator *server.Server
	front    *grpc.Server
	inner    *grpc.ClientConn
	restAddr string
	grpcAddr string
	turn     sync.Mutex
	done     chan error // of the emulator's Serve and of the front's
}

// Start returns when both addresses accept connections. ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	front, err := (&net.ListenConfig{}).Listen(ctx, "tcp", orEphemeral(cfg.GRPCAddr))
	if err != nil {
		return nil, fmt.Errorf("local BigQuery: %w", err)
	}
	emulator, err := open(cfg)
	if err != nil {
		front.Close()
		return nil, fmt.Errorf("local BigQuery: %w", err)
	}
	s := &Server{emulator: emulator, grpcAddr: front.Addr().String(), done: make(chan error, 2)}
	if err := s.serve(ctx, orEphemeral(cfg.RESTAddr), front); err != nil {
		front.Close()
		return nil, errors.Join(fmt.Errorf("local BigQuery: %w", err), emulator.Close())
	}
	return s, nil
}

func orEphemeral(addr string) string {
	if addr == "" {
		return ephemeral
	}
	return addr
}

// open creates the emulator with its project and dataset.
func open(cfg Config) (*server.Server, error) {
	storage := server.TempStorage
	if cfg.File != "" {
		path, err := filepath.Abs(cfg.File)
		if err != nil {
			return nil, err
		}
		storage = server.Storage("file:" + path + "?cache=shared")
	}
	emulator, err := server.New(storage)
	if err != nil {
		return nil, err
	}
	project := types.NewProject(cfg.Project, types.NewDataset(cfg.Dataset))
	if err := errors.Join(emulator.SetProject(cfg.Project), emulator.Load(server.StructSource(project))); err != nil {
		return nil, errors.Join(err, emulator.Close())
	}
	return emulator, nil
}

// serve starts the emulator on restAddr and, hidden behind the front, on a port of its own.
func (s *Server) serve(ctx context.Context, restAddr string, front net.Listener) error {
	type addresses struct{ rest, grpc string }
	listening := make(chan addresses, 1)
	s.emulator.Handler = takeTurns(&s.turn, s.emulator.Handler)
	s.emulator.SetListenCallback(func(rest, grpc string) { listening <- addresses{rest, grpc} })
	go func() { s.done <- s.emulator.Serve(context.WithoutCancel(ctx), restAddr, ephemeral) }()
	var at addresses
	select {
	case at = <-listening:
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	s.restAddr = at.rest
	var err error
	s.inner, err = grpc.NewClient("passthrough:///"+at.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)))
	if err != nil {
		return err
	}
	s.front = newFront(s.inner, &s.turn)
	go func() { s.done <- s.front.Serve(front) }()
	return nil
}

// RESTURL returns the base URL of the REST API.
func (s *Server) RESTURL() string { return "http://" + s.restAddr }

// GRPCAddr returns host and port of the Storage API.
func (s *Server) GRPCAddr() string { return s.grpcAddr }

// RESTOptions returns what a BigQuery client needs to reach the server.
func (s *Server) RESTOptions() []option.ClientOption { return RESTOptions(s.RESTURL()) }

// GRPCOptions returns what a Storage API client needs to reach the server.
func (s *Server) GRPCOptions() []option.ClientOption { return GRPCOptions(s.grpcAddr) }

// RESTOptions returns what a BigQuery client needs to reach an emulator at a base URL.
func RESTOptions(url string) []option.ClientOption {
	return []option.ClientOption{option.WithEndpoint(url), option.WithoutAuthentication()}
}

// GRPCOptions returns what a Storage API client needs to reach an emulator at an address.
func GRPCOptions(addr string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(addr),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// Close stops both servers and closes the file. Requests in flight get a few seconds to end.
func (s *Server) Close() error {
	s.front.Stop()
	err := s.inner.Close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err = errors.Join(err, s.emulator.Stop(ctx))
	for range cap(s.done) {
		if served := <-s.done; !errors.Is(served, http.ErrServerClosed) && !errors.Is(served, grpc.ErrServerStopped) {
			err = errors.Join(err, served)
		}
	}
	return err
}
