// Package localcloud runs on one machine what assetmill uses of Google Cloud: Pub/Sub, Cloud Storage, BigQuery and Vertex AI,
// with every topic, subscription, bucket, table and view that the worker needs. It serves cmd/localcloud and tests, and is never
// linked into assetmill.
//
// All state lies in one directory:
//
//	storage/            Cloud Storage: a folder for each bucket, a file for each object, under the object's name
//	metadata/           metadata of objects that is too large for the file system's attributes
//	unfinished/         files that a killed local cloud left half written, moved out of the way
//	bigquery.db         BigQuery (SQLite)
//	vertex-calls.jsonl  one line for each call that Vertex would bill, ever
//	env                 the addresses, as shell exports; it exists while the local cloud runs
//	lock                held while the local cloud runs
//
// Objects, rows and the call log outlive a restart; messages do not, since Pub/Sub's stand-in keeps them in memory.
//
// # Gaps
//
// What differs from Google Cloud, besides what packages vertextest and localbq say of themselves: there are no permissions;
// Cloud Storage has no lifecycle rules, no versions, no preconditions on reads and deletions, no objects that share their name
// with a folder, and no name with a part longer than 255 bytes; a list of a whole bucket, or with a delimiter, reads all of it. Pub/Sub's stand-in speaks gRPC
// only (not the REST API that gcloud uses), ignores retry policies, delivers one message for each stream every 10 ms, and
// forgets its messages when it stops.
package localcloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/internal/vertextest"
)

// Names of what Start creates.
const (
	Project    = "assetmill-local"
	Bucket     = "assetmill-assets"
	WorkBucket = "assetmill-work"
	Dataset    = "assetmill"
)

// Names in the directory.
const (
	envFile      = "env"
	lockFile     = "lock"
	storageDir   = "storage"
	metadataDir  = "metadata"
	leftoverDir  = "unfinished"
	bigqueryFile = "bigquery.db"
	callLogFile  = "vertex-calls.jsonl"
	caFile       = "vertex-ca.pem"
)

// Config says what to run. The zero value of all but Dir is useful.
type Config struct {
	// Dir holds the state; it is created when missing. Required.
	Dir string
	// WellKnownPorts asks for the ports of [DefaultPorts]; one that is taken is replaced by a free one. Without it, all are
	// free ones.
	WellKnownPorts bool
	// PubSubEmulator is the host:port of a running Pub/Sub emulator to use instead of one of our own.
	PubSubEmulator string
	// Vertex is how the model behaves. Start sets the addresses, CallLog and what reaches Cloud Storage.
	Vertex vertextest.Config
	// Warn is told, in a sentence, what deserves attention but hinders nothing. Nil: nobody.
	Warn func(string)
}

// Cloud is a running local cloud. Its methods are safe for concurrent use, except Close.
type Cloud struct {
	dir      string
	lock     *os.File
	callLog  *os.File
	pubsub   *pubsubServer // nil with an emulator of somebody else's
	storage  *storageServer
	bigquery *localbq.Server
	vertex   *vertextest.Server
	env      []Variable
}

// Start runs everything and returns when everything answers and the env file is written. ctx bounds the start only. It fails with
// [ErrRunning] when another local cloud uses the directory.
func Start(ctx context.Context, cfg Config) (*Cloud, error) {
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	c := &Cloud{dir: cfg.Dir}
	if err := c.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("local cloud: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cloud) start(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	var err error
	if c.lock, err = acquire(c.path(lockFile)); err != nil {
		return err
	}
	ports := Ports{}
	if cfg.WellKnownPorts {
		ports = DefaultPorts
	}
	steps := []struct {
		what string
		run  func() error
	}{
		{"Cloud Storage", func() error { return c.startStorage(ctx, ports, cfg.Warn) }},
		{"Vertex", func() error { return c.startVertex(cfg.Vertex, ports) }},
		{"BigQuery", func() error { return c.startBigQuery(ctx, ports) }},
		{"Pub/Sub", func() error { return c.startPubSub(ctx, ports, cfg.PubSubEmulator) }},
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return writeEnv(c.path(envFile), c.env)
}

func (c *Cloud) path(name string) string { return filepath.Join(c.dir, name) }

func (c *Cloud) export(name, value string) { c.env = append(c.env, Variable{name, value}) }

func (c *Cloud) startStorage(ctx context.Context, ports Ports, warn func(string)) error {
	moved, err := setUnfinishedAside(c.path(storageDir), c.path(leftoverDir))
	if err != nil {
		return err
	}
	if moved > 0 {
		warn(fmt.Sprintf("%d half-written objects were moved to %s: the local cloud was killed while it wrote them", moved, c.path(leftoverDir)))
	}
	l, err := ports.listen(ctx, ports.Storage)
	if err != nil {
		return err
	}
	if c.storage, err = startStorage(l, c.path(storageDir), c.path(metadataDir)); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := c.storage.ensureBuckets(ctx, Bucket, WorkBucket); err != nil {
		return err
	}
	c.export("STORAGE_EMULATOR_HOST", c.storage.url())
	c.export("ASSETMILL_PROJECT", Project)
	c.export("ASSETMILL_BUCKET", Bucket)
	c.export("ASSETMILL_WORK_BUCKET", WorkBucket)
	return nil
}

func (c *Cloud) startVertex(cfg vertextest.Config, ports Ports) error {
	var err error
	if c.callLog, err = os.OpenFile(c.path(callLogFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	cfg.CallLog = c.callLog
	cfg.ReferenceExists = c.storage.exists
	cfg.CreateObject, cfg.OpenObject = c.storage.createObject, c.storage.openObject
	cfg.Addr, cfg.GRPCAddr = ports.address(ports.Vertex), ports.address(ports.VertexGRPC)
	if c.vertex, err = vertextest.Start(cfg); err != nil {
		return err
	}
	c.export("VERTEX_EMULATOR_HOST", c.vertex.URL())
	c.export("VERTEX_GRPC_EMULATOR_HOST", c.vertex.GRPCAddr())
	if pem := c.vertex.CACert(); pem != nil {
		if err := os.WriteFile(c.path(caFile), pem, 0o644); err != nil {
			return err
		}
		c.export("VERTEX_EMULATOR_CA", absolute(c.path(caFile)))
	}
	return nil
}

func (c *Cloud) startBigQuery(ctx context.Context, ports Ports) error {
	var err error
	c.bigquery, err = localbq.Start(ctx, localbq.Config{
		Project: Project, Dataset: Dataset, File: c.path(bigqueryFile),
		RESTAddr: ports.address(ports.BigQuery), GRPCAddr: ports.address(ports.BigQueryStorage),
	})
	if err != nil {
		return err
	}
	client, err := bigquery.NewClient(ctx, Project, c.bigquery.RESTOptions()...)
	if err != nil {
		return err
	}
	defer client.Close() // reads only; nothing to lose
	if err := localbq.EnsureTables(ctx, client, Project, Dataset); err != nil {
		return err
	}
	c.export("BIGQUERY_EMULATOR_HOST", c.bigquery.RESTURL())
	c.export("BIGQUERY_STORAGE_EMULATOR_HOST", c.bigquery.GRPCAddr())
	c.export("ASSETMILL_DATASET", Dataset)
	return nil
}

func (c *Cloud) startPubSub(ctx context.Context, ports Ports, emulator string) error {
	addr := emulator
	if addr == "" {
		l, err := ports.listen(ctx, ports.PubSub)
		if err != nil {
			return err
		}
		c.pubsub = startPubSub(l, time.Now)
		addr = l.Addr().String()
		c.export(ownPubSub, addr)
	}
	if err := ensureTopics(ctx, addr); err != nil {
		return err
	}
	c.export("PUBSUB_EMULATOR_HOST", addr)
	return nil
}

// Env returns the addresses and names that point assetmill and Google's clients here, as the env file has them.
func (c *Cloud) Env() []Variable { return append([]Variable(nil), c.env...) }

// Vertex returns the model, for its counts and its quota.
func (c *Cloud) Vertex() *vertextest.Server { return c.vertex }

// AssetsDir returns the folder that holds the images, and CallLog the file with one line for each call of the model.
func (c *Cloud) AssetsDir() string { return filepath.Join(c.dir, storageDir, Bucket) }

// CallLog returns the file with one line for each call of the model.
func (c *Cloud) CallLog() string { return c.path(callLogFile) }

// EnvFile returns the path of the file with the addresses.
func (c *Cloud) EnvFile() string { return c.path(envFile) }

// Close removes the env file, stops everything, callers before what they call, and gives the directory free. Closing again does
// nothing.
func (c *Cloud) Close() error {
	var errs []error
	if c.lock != nil {
		errs = append(errs, removeIfThere(c.path(envFile)))
	}
	if c.pubsub != nil {
		errs = append(errs, c.pubsub.close())
	}
	if c.vertex != nil {
		errs = append(errs, c.vertex.Close())
	}
	if c.callLog != nil {
		errs = append(errs, c.callLog.Close())
	}
	if c.storage != nil {
		errs = append(errs, c.storage.close())
	}
	if c.bigquery != nil {
		errs = append(errs, c.bigquery.Close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close()) // closing releases the lock
	}
	*c = Cloud{dir: c.dir}
	return errors.Join(errs...)
}
