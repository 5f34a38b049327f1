package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/worker/batch/gcsfiles"
	"github.com/assetmill/assetmill/worker/lineage"
)

// settings are what the environment says about where things are.
type settings struct {
	project    string
	bucket     string
	workBucket string
	dataset    string

	bigqueryREST string // base URL of an emulator, or empty
	bigqueryGRPC string // host:port of an emulator, or empty
	vertexREST   string // base URL of an emulator, or empty
	vertexGRPC   string // host:port of an emulator, or empty
	pubsubLocal  bool
	storageLocal bool
	storageHost  string // of an emulator, or empty

	lanesFile string // empty: the default lanes
}

const defaultDataset = "assetmill"

// settings reads the environment. The error names everything that is missing.
func (a *app) settings() (*settings, error) {
	s := &settings{
		project:    a.env("ASSETMILL_PROJECT"),
		bucket:     a.env("ASSETMILL_BUCKET"),
		workBucket: a.env("ASSETMILL_WORK_BUCKET"),
		dataset:    a.env("ASSETMILL_DATASET"),

		bigqueryGRPC: a.env("BIGQUERY_STORAGE_EMULATOR_HOST"),
		vertexGRPC:   a.env("VERTEX_GRPC_EMULATOR_HOST"),
		pubsubLocal:  a.env("PUBSUB_EMULATOR_HOST") != "",
		storageLocal: a.env("STORAGE_EMULATOR_HOST") != "",
		storageHost:  a.env("STORAGE_EMULATOR_HOST"),
		lanesFile:    a.env("ASSETMILL_LANES"),
	}
	if s.dataset == "" {
		s.dataset = defaultDataset
	}
	var missing []string
	for _, v := range []struct{ name, value string }{
		{"ASSETMILL_PROJECT", s.project}, {"ASSETMILL_BUCKET", s.bucket}, {"ASSETMILL_WORK_BUCKET", s.workBucket},
	} {
		if v.value == "" {
			missing = append(missing, v.name)
		}
	}
	if len(missing) > 0 {
		return nil, usageError("set %s; for the local cloud run `make local`, then `. .local/env`", strings.Join(missing, ", "))
	}
	var err error
	if s.bigqueryREST, err = baseURL("BIGQUERY_EMULATOR_HOST", a.env("BIGQUERY_EMULATOR_HOST")); err != nil {
		return nil, err
	}
	if s.vertexREST, err = baseURL("VERTEX_EMULATOR_HOST", a.env("VERTEX_EMULATOR_HOST")); err != nil {
		return nil, err
	}
	return s, nil
}

// baseURL accepts what emulators' variables hold: a URL, or host:port for plain HTTP.
func baseURL(name, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return "", usageError("%s is %q, which is no address such as http://localhost:9050", name, value)
	}
	return strings.TrimSuffix(value, "/"), nil
}

// pubsubClient opens Pub/Sub. PUBSUB_EMULATOR_HOST is the client's own business.
func (s *settings) pubsubClient(ctx context.Context) (*pubsub.Client, error) {
	c, err := pubsub.NewClient(ctx, s.project)
	if err != nil {
		return nil, fmt.Errorf("open Pub/Sub: %w", err)
	}
	return c, nil
}

// storageClient opens Cloud Storage. STORAGE_EMULATOR_HOST is the client's own business.
func (s *settings) storageClient(ctx context.Context) (*storage.Client, error) {
	c, err := storage.NewClient(ctx)
	if err != nil {
		return nil, fmt.Errorf("open Cloud Storage: %w", err)
	}
	return c, nil
}

// withStorage reads the settings, and opens Cloud Storage for as long as do runs.
func (a *app) withStorage(ctx context.Context, do func(*settings, *storage.Client) error) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	client, err := s.storageClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(s, client)
}

// withQueue opens Pub/Sub for as long as do runs.
func (s *settings) withQueue(ctx context.Context, do func(*pubsub.Client, *queue.Queue) error) error {
	client, err := s.pubsubClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	q := queue.New(client, queue.Config{})
	defer q.Close()
	return do(client, q)
}

// batchFiles are the batches' files in the work bucket.
func (s *settings) batchFiles(client *storage.Client) *gcsfiles.Files {
	return gcsfiles.New(client, gcsfiles.Config{Bucket: s.workBucket, AnyLocation: s.storageLocal})
}

// withLineage reads the settings, and opens the lineage for as long as do runs.
func (a *app) withLineage(ctx context.Context, do func(*lineage.Lineage) error) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	l, err := lineage.New(ctx, s.lineageConfig())
	if err != nil {
		return err
	}
	defer closeLineage(l)
	return do(l)
}

// lineageConfig says where BigQuery is.
func (s *settings) lineageConfig() lineage.Config {
	cfg := lineage.Config{Project: s.project, Dataset: s.dataset}
	if s.bigqueryREST != "" {
		cfg.REST = []option.ClientOption{option.WithEndpoint(s.bigqueryREST), option.WithoutAuthentication()}
	}
	if s.bigqueryGRPC != "" {
		cfg.GRPC = []option.ClientOption{
			option.WithEndpoint(s.bigqueryGRPC), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		}
	}
	return cfg
}
