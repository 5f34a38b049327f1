package collectbench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/assetmill/assetmill/internal/bench/standin"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/vertex"
)

const (
	project      = "bench"
	dataset      = "assetmill"
	workBucket   = "work"
	assetsBucket = "assets"
	gatherer     = "gatherer"
	model        = "gemini-3-pro-image"
)

// ask is what a cloud is asked for.
type ask struct {
	Rows       int // of the batch
	ImageBytes int // of each of its images
}

// place is where a cloud is found, and what is in it.
type place struct {
	URL    string // of Cloud Storage
	Cert   []byte // the PEM file of its authority
	GRPC   string // host:port of Pub/Sub and of BigQuery's Storage Write API
	Batch  string // id of the batch
	Output string // name of its one output file in the work bucket
	Size   int64  // of that
	ask
}

// cloud is the stand-ins of one batch whose Vertex job has ended.
type cloud struct {
	place   place
	storage *standin.Storage
	rows    *standin.Rows
	queue   *standin.Queue
	kept    map[string][]byte // what the gatherer wrote, by name
	output  *output

	server *httptest.Server
	grpc   *grpc.Server
	work   errgroup.Group
}

// openCloud gathers a batch, the way that a worker does, and has it answered.
func openCloud(ctx context.Context, a ask) (_ *cloud, err error) {
	picture, err := newPicture(a.ImageBytes)
	if err != nil {
		return nil, err
	}
	sum := crc32.Checksum(picture, crc32.MakeTable(crc32.Castagnoli))
	c := &cloud{
		storage: standin.NewStorage(standin.StorageConfig{Bucket: assetsBucket, CRC32C: sum}), rows: standin.NewRows(), queue: standin.NewQueue(),
		kept: map[string][]byte{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	cert, err := c.listen()
	if err != nil {
		return nil, err
	}
	c.place = place{URL: c.server.URL, Cert: cert, GRPC: c.place.GRPC, ask: a}
	if err := c.gather(ctx); err != nil {
		return nil, fmt.Errorf("gather the batch: %w", err)
	}
	c.output = newOutput(c.kept["batches/"+c.place.Batch+"/input.jsonl"], picture)
	c.place.Output, c.place.Size = "batches/"+c.place.Batch+"/output/prediction-model/predictions_00001.jsonl", c.output.size()
	return c, nil
}

// listen begins to serve, and returns the certificate.
func (c *cloud) listen() ([]byte, error) {
	cert, key, err := standin.NewCertificate(time.Now())
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	c.server = httptest.NewUnstartedServer(c)
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that break off are no news
	c.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	c.server.StartTLS()
	l, err := listenLocal()
	if err != nil {
		return nil, err
	}
	c.place.GRPC = l.Addr().String()
	c.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20)) // requests of BigQuery and Pub/Sub may have 10 MB
	storagepb.RegisterBigQueryWriteServer(c.grpc, c.rows)
	pubsubpb.RegisterPublisherServer(c.grpc, c.queue)
	c.work.Go(func() error { return c.grpc.Serve(l) })
	return cert, nil
}

func (c *cloud) close() error {
	if c.server != nil {
		c.server.CloseClientConnections()
		c.server.Close()
	}
	if c.grpc != nil {
		c.grpc.Stop()
	}
	return c.work.Wait()
}

// gather makes a batch of jobs with a real gatherer and a real ledger.
func (c *cloud) gather(ctx context.Context) error {
	o, err := openObjects(ctx, &c.place)
	if err != nil {
		return err
	}
	defer o.close()
	l := ledger.New(o.client, workBucket, gatherer, ledger.WriteBy(o.uploader))
	beating, rest := context.WithCancel(ctx)
	var beat sync.WaitGroup
	beat.Go(func() { l.Beat(beating) })
	defer func() { rest(); beat.Wait() }()
	spine := worker.New(worker.Config{ID: gatherer, Catalogue: jobs.DefaultCatalogue()}, worker.Ports{Ledger: l, Controls: proceed{}})
	files := &batchtest.Files{}
	handoffs := &handoffs{}
	g := batch.NewGatherer(batch.GatherConfig{
		Worker: gatherer, Rows: c.place.Rows, Age: time.Hour, Idle: time.Hour,
		Lane: func(string, string) (worker.Lane, error) {
			return worker.Lane{Name: "batch", Project: project, Location: "global", Model: model, Tier: jobs.TierBatch}, nil
		},
	}, spine, l, files, handoffs, vertex.NewBatchFormat(nil))
	if err := g.Run(ctx, func(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
		var all errgroup.Group
		for i := range c.place.Rows {
			all.Go(func() error {
				if v := handle(ctx, newJob(i)); v.Action != jobs.Ack {
					return fmt.Errorf("job %d: %+v", i, v)
				}
				return nil
			})
		}
		return all.Wait()
	}); err != nil {
		return err
	}
	c.place.Batch = handoffs.take()[0].GetBatchId()
	return c.keep(ctx, files)
}

// keep takes over what the gatherer has written.
func (c *cloud) keep(ctx context.Context, files *batchtest.Files) error {
	all, err := files.List(ctx, "")
	if err != nil {
		return err
	}
	for _, f := range all {
		r, err := files.Open(ctx, f.Name, 0, -1)
		if err != nil {
			return err
		}
		if c.kept[f.Name], err = io.ReadAll(r); err != nil {
			return err
		}
	}
	return nil
}

// newJob returns the message of a job whose prompt is as long as they are.
func newJob(i int) *jobs.Delivery {
	prompt := fmt.Sprintf("Product picture %06d: a matte ceramic mug on a weathered oak table, soft morning light from the left, shallow depth of field, "+
		"steam rising, muted greens in the background, space for a headline at the top, photographed with a 50 mm lens.", i)
	return &jobs.Delivery{
		ID: fmt.Sprintf("message-%d", i), Published: time.Now(), Attributes: map[string]string{schemas.AttributeMode: string(jobs.Batch)},
		Data: fmt.Appendf(nil, `{"id":"job-%06d","prompt":%q,"mode":"batch","campaign":"autumn","client":"bench"}`, i, prompt),
	}
}

// proceed are the controls of submissions that nobody has paused.
type proceed struct{}

func (proceed) Control(context.Context, string) (worker.Control, error) { return worker.Proceed, nil }

// handoffs are hand-offs that were published.
type handoffs struct {
	batch.Queue // publishes no jobs: a batch whose jobs come back has failed here

	mu  sync.Mutex
	all []*schemas.BatchHandoff
}

// PublishHandoff implements batch.Queue.
func (h *handoffs) PublishHandoff(_ context.Context, m *schemas.BatchHandoff) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, m)
	return nil
}

// take returns what was published since the last time.
func (h *handoffs) take() []*schemas.BatchHandoff {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// ServeHTTP serves what the batch's files are, and leaves the rest to the storage, which keeps no large objects and knows no ranges.
func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"+workBucket+"/"))
	prefix := r.URL.Query().Get("prefix")
	switch {
	case err != nil || c.output == nil:
		c.storage.ServeHTTP(w, r)
	case r.Method == http.MethodGet && name == c.place.Output:
		c.serveOutput(w, r)
	case r.Method == http.MethodGet && c.kept[name] != nil:
		w.Header().Set("X-Goog-Generation", "1")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.kept[name]))
	case prefix != "" && strings.HasPrefix(c.place.Output, prefix):
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"storage#objects","items":[{"kind":"storage#object","bucket":%q,"name":%q,"size":"%d"}]}`, workBucket, c.place.Output, c.place.Size)
	default:
		c.storage.ServeHTTP(w, r)
	}
}

// serveOutput serves the output from a byte on. Readers break off where they have enough.
func (c *cloud) serveOutput(w http.ResponseWriter, r *http.Request) {
	from, to, err := parseRange(r.Header.Get("Range"), c.place.Size)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(to-from, 10))
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, c.place.Size))
	h.Set("X-Goog-Generation", "1")
	w.WriteHeader(http.StatusPartialContent)
	_ = c.output.copyTo(w, from, to) // fails when nobody reads any more
}

// parseRange reads a header of one range of bytes, and returns where it begins and ends.
func parseRange(header string, size int64) (from, to int64, err error) {
	if header == "" {
		return 0, size, nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	from, err = strconv.ParseInt(first, 10, 64)
	to = size
	if err == nil && last != "" {
		to, err = strconv.ParseInt(last, 10, 64)
		to = min(to+1, size)
	}
	if !ok || err != nil || from >= to {
		return 0, 0, fmt.Errorf("range %q of %d bytes", header, size)
	}
	return from, to, nil
}
