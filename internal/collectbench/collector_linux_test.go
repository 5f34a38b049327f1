package collectbench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/storage"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/gcsfiles"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
	"github.com/assetmill/assetmill/worker/vertex"
)

// As in the worker (cmd/assetmill).
const (
	storageConns = 512
	imageMemory  = 256 << 20
	// rangesAtOnce are the ranges that a worker collects at a time.
	rangesAtOnce = 2
)

func listenLocal() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// newTransport returns the worker's transport to Cloud Storage.
func newTransport(p *place) (*http.Transport, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(p.Cert) {
		return nil, errors.New("the certificate can't be read")
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true, MaxConnsPerHost: storageConns, MaxIdleConnsPerHost: storageConns,
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t, nil
}

// objects is Cloud Storage as a worker opens it.
type objects struct {
	client   *storage.Client
	uploader *gcs.Uploader
	base     *http.Transport
}

func openObjects(ctx context.Context, p *place) (*objects, error) {
	base, err := newTransport(p)
	if err != nil {
		return nil, err
	}
	transport, err := htransport.NewTransport(ctx, base, option.WithoutAuthentication(), option.WithTelemetryDisabled(), option.WithUserAgent("assetmill/bench"))
	if err != nil {
		return nil, err
	}
	hc := &http.Client{Transport: transport}
	client, err := storage.NewClient(ctx, option.WithHTTPClient(hc), option.WithEndpoint(p.URL+"/storage/v1/"))
	if err != nil {
		return nil, err
	}
	return &objects{client, gcs.NewUploader(hc, p.URL), base}, nil
}

// close closes the connections too, which the client takes for somebody else's.
func (o *objects) close() {
	o.client.Close()
	o.base.CloseIdleConnections()
}

// collector is a worker that collects.
type collector struct {
	place    *place
	budget   *blob.Budget
	files    batch.Files
	ledger   *ledger.Ledger
	runner   *batch.Runner
	handoffs *handoffs
	stops    []func()
}

// setup is how a collector is set up.
type setup struct {
	imageBytes int64 // of images in memory at a time
	rangeBytes int64 // 0: the default
	// files, if set, stands between the collector and its files.
	files func(batch.Files) batch.Files
}

// openCollector composes a worker of the adapters of production.
func openCollector(ctx context.Context, p *place, s setup) (_ *collector, err error) {
	c := &collector{place: p, budget: blob.NewBudget(s.imageBytes), handoffs: &handoffs{}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	o, err := openObjects(ctx, p)
	if err != nil {
		return nil, err
	}
	c.stops = append(c.stops, o.close)
	grpcTo := []option.ClientOption{
		option.WithEndpoint(p.GRPC), option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	rows, err := lineage.New(ctx, lineage.Config{
		Project: project, Dataset: dataset, GRPC: grpcTo, REST: []option.ClientOption{option.WithEndpoint(p.URL), option.WithoutAuthentication()},
	})
	if err != nil {
		return nil, err
	}
	c.stops = append(c.stops, func() { _ = rows.Close(ctx) }) // all that matters was waited for
	topics, err := pubsub.NewClient(ctx, project, grpcTo...)
	if err != nil {
		return nil, err
	}
	c.stops = append(c.stops, func() { topics.Close() })
	results := queue.New(topics, queue.Config{})
	c.stops = append(c.stops, results.Close)

	log, err := zap.NewProduction(zap.IncreaseLevel(zap.WarnLevel))
	if err != nil {
		return nil, err
	}
	const id = "collector"
	catalogue := jobs.DefaultCatalogue()
	c.ledger = ledger.New(o.client, workBucket, id, ledger.WriteBy(o.uploader))
	c.files = gcsfiles.New(o.client, gcsfiles.Config{Bucket: workBucket})
	if s.files != nil {
		c.files = s.files(c.files)
	}
	spine := worker.New(worker.Config{ID: id, Version: "bench", Catalogue: catalogue, Log: log}, worker.Ports{
		Ledger: c.ledger, Assets: assets.New(o.client, assets.Config{Bucket: assetsBucket, Uploader: o.uploader}), Lineage: rows, Results: results,
	})
	c.runner = batch.NewRunner(batch.RunConfig{Worker: id, Version: "bench", Catalogue: catalogue, Log: log, RangeBytes: s.rangeBytes}, batch.Ports{
		Spine: spine, Ledger: c.ledger, Vertex: ended{p: p}, Format: vertex.NewBatchFormat(c.budget), Files: c.files, Queue: c.handoffs, Lineage: rows,
	})
	beating, rest := context.WithCancel(ctx)
	var beat sync.WaitGroup
	beat.Go(func() { c.ledger.Beat(beating) })
	c.stops = append(c.stops, func() { rest(); beat.Wait() })
	return c, nil
}

func (c *collector) close() {
	for i := range c.stops {
		c.stops[len(c.stops)-1-i]()
	}
}

// ended is a Vertex whose job is done as soon as it is created.
type ended struct {
	batch.Vertex
	p *place
}

func (e ended) Create(context.Context, worker.BatchRequest) (worker.VertexBatch, error) {
	return e.Get(context.Background(), worker.Lane{}, "")
}

func (e ended) Get(context.Context, worker.Lane, string) (worker.VertexBatch, error) {
	now := time.Now()
	return worker.VertexBatch{
		Name: "projects/1/locations/global/batchPredictionJobs/1", State: worker.BatchSucceeded, Succeeded: int64(e.p.Rows),
		OutputDir: "gs://" + workBucket + "/batches/" + e.p.Batch + "/output/prediction-model", Created: now.Add(-time.Hour), Started: now.Add(-time.Hour), Ended: now,
	}, nil
}

// handle hands a message over.
func (c *collector) handle(ctx context.Context, h *schemas.BatchHandoff) (jobs.Verdict, error) {
	data, err := schemas.Marshal(h)
	if err != nil {
		return jobs.Verdict{}, err
	}
	return c.runner.Handle(ctx, &jobs.Delivery{ID: "handoff", Data: data, Published: time.Now()}), nil
}

// cut takes the batch as far as its ranges, and returns their messages.
func (c *collector) cut(ctx context.Context) ([]*schemas.BatchHandoff, error) {
	v, err := c.handle(ctx, &schemas.BatchHandoff{BatchId: c.place.Batch, Gatherer: gatherer})
	if err != nil {
		return nil, err
	}
	ranges := c.handoffs.take()
	if len(ranges) == 0 {
		return nil, fmt.Errorf("the output was not cut: %+v", v)
	}
	return ranges, nil
}

// collect collects the ranges.
func (c *collector) collect(ctx context.Context, ranges []*schemas.BatchHandoff) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(rangesAtOnce)
	for _, h := range ranges {
		group.Go(func() error {
			v, err := c.handle(ctx, h)
			if err == nil && v.Action != jobs.Ack {
				err = fmt.Errorf("range %d: %+v", h.GetRange(), v)
			}
			return err
		})
	}
	return group.Wait()
}

// finish reconciles, and returns an error unless every job is done.
func (c *collector) finish(ctx context.Context) error {
	v, err := c.handle(ctx, &schemas.BatchHandoff{BatchId: c.place.Batch, Gatherer: gatherer})
	if err != nil {
		return err
	}
	seal, err := c.ledger.ReadSeal(ctx, c.place.Batch)
	if err != nil {
		return err
	}
	st, err := batch.ReadStatus(ctx, c.files, seal.Manifest)
	if err != nil {
		return err
	}
	if t := st.Totals; t == nil || t.Done != c.place.Rows || t.Duplicated+t.Missing+t.Orphans+t.Damaged > 0 {
		return fmt.Errorf("of %d jobs: %+v, %+v", c.place.Rows, t, v)
	}
	return nil
}
