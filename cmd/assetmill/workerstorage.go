package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/assetmill/assetmill/internal/gcs"
)

const (
	// storageConns bounds a worker's connections to Cloud Storage. Uploads at a time are bounded by the memory for images, about a hundred with its
	// default; the ledger's small writes must find a connection beside them.
	storageConns = 512
	// storageIdle closes unused connections before Google's front ends do.
	storageIdle = 90 * time.Second
	// storageDial and storageHandshake bound the opening of a connection. Google's front ends are tens of milliseconds away.
	storageDial      = 10 * time.Second
	storageHandshake = 10 * time.Second
	// storageAnswer bounds the wait for an answer once a request is sent. Cloud Storage answers in tenths of a second; copies of large
	// objects take some seconds.
	storageAnswer = 2 * time.Minute
)

// workerStorage opens Cloud Storage for a worker, and with it what writes a worker's many objects at the least cost. Both go over HTTP/1.1, with a
// connection for each request in flight. Over HTTP/2 all uploads share two or three connections, on which every frame of 16 KB waits for its
// turn, and that takes more CPU (docs/performance.md).
func (s *settings) workerStorage(ctx context.Context) (*storage.Client, *gcs.Uploader, error) {
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: storageDial}).DialContext, TLSHandshakeTimeout: storageHandshake,
		MaxConnsPerHost: storageConns, MaxIdleConnsPerHost: storageConns, IdleConnTimeout: storageIdle,
		ResponseHeaderTimeout: storageAnswer, DisableCompression: true, Protocols: new(http.Protocols),
	}
	base.Protocols.SetHTTP1(true)
	auth := []option.ClientOption{option.WithScopes(storage.ScopeFullControl, "https://www.googleapis.com/auth/cloud-platform")}
	if s.storageLocal {
		auth = []option.ClientOption{option.WithoutAuthentication()}
	}
	// The worker has spans of its own; those of the transport would go nowhere.
	auth = append(auth, option.WithTelemetryDisabled(), option.WithUserAgent("assetmill/"+version))
	transport, err := htransport.NewTransport(ctx, base, auth...)
	if err != nil {
		return nil, nil, fmt.Errorf("open Cloud Storage: %w", err)
	}
	client := &http.Client{Transport: transport}
	c, err := storage.NewClient(ctx, option.WithHTTPClient(client))
	if err != nil {
		return nil, nil, fmt.Errorf("open Cloud Storage: %w", err)
	}
	return c, gcs.NewUploader(client, s.storageHost), nil
}
