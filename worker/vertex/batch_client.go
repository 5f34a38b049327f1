package vertex

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// batchLabel is the label by which a batch's jobs are found again: Vertex takes no id of ours.
	batchLabel = "assetmill_batch"
	// jsonLines is the format of a batch's files.
	jsonLines = "jsonl"
	// createTimeout bounds a create, which writes a record and starts nothing. Whoever gives up too soon has to look for the job.
	createTimeout = time.Minute
	// readTimeout bounds one try of a call that may be repeated.
	readTimeout = 30 * time.Second
	// maxReadTries bounds the tries of such a call: three seconds of pauses. The caller comes back later by itself.
	maxReadTries = 6
	// batchPageSize is the number of jobs in one page of a list. A batch has one job, or two when something went wrong.
	batchPageSize = 100
)

// BatchesConfig says how to reach Vertex AI for batch prediction jobs.
type BatchesConfig struct {
	// Addr is the host:port of an emulator that stands for Vertex in all locations, over gRPC in plain text. It needs NoAuth.
	Addr string
	// Credentials authenticate the calls. Default: Application Default Credentials.
	Credentials *auth.Credentials
	// NoAuth sends no credentials, for emulators.
	NoAuth bool
	// UserAgent names the program and its version, such as `assetmill/1.2.0`.
	UserAgent string
}

// Batches creates and watches batch prediction jobs. It is safe for concurrent use. All errors are [*worker.CallError].
type Batches struct {
	cfg          BatchesConfig
	creds        *auth.Credentials // nil with BatchesConfig.NoAuth
	quotaProject string            // may be empty

	mu      sync.Mutex
	clients map[string]*aiplatform.JobClient // by address; there are no more than locations
}

// NewBatches returns a Batches. It finds the credentials but makes no call. Close it when it is not used any more.
func NewBatches(ctx context.Context, cfg BatchesConfig) (*Batches, error) {
	if (cfg.Addr != "") != cfg.NoAuth {
		return nil, errors.New("vertex: the address of an emulator and no credentials go together")
	}
	b := &Batches{cfg: cfg, creds: cfg.Credentials, clients: map[string]*aiplatform.JobClient{}}
	if cfg.NoAuth {
		return b, nil
	}
	if b.creds == nil {
		var err error
		if b.creds, err = credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{scope}}); err != nil {
			return nil, fmt.Errorf("vertex: find Application Default Credentials: %w", err)
		}
	}
	// A person's credentials, unlike a service account's, are charged to a quota project that each request must name.
	if quota, err := b.creds.QuotaProjectID(ctx); err == nil {
		b.quotaProject = quota
	}
	return b, nil
}

// Close gives up the connections. Calls in flight are broken off.
func (b *Batches) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for address, c := range b.clients {
		_ = c.Close() // of a connection; there is nothing to lose
		delete(b.clients, address)
	}
}

// Create begins a job. It is never tried again here, since a second job would cost the same again. The error's kind says what is known:
// no job was created, and
//   - Throttled, Unreached, Interrupted: it may be tried again later,
//   - Rejected: Vertex does not take this batch,
//   - Denied: this worker may not create it, or there is no such model.
//
// With Unanswered nobody knows: the job may exist. Vertex answers UNAVAILABLE and the like also for what it has done.
func (b *Batches) Create(ctx context.Context, r worker.BatchRequest) (worker.VertexBatch, error) {
	var created *aiplatformpb.BatchPredictionJob
	p, err := b.call(ctx, r.Lane, createTimeout, func(ctx context.Context, client *aiplatform.JobClient) (err error) {
		created, err = client.CreateBatchPredictionJob(ctx, createRequest(r))
		return err
	})
	if err != nil {
		return worker.VertexBatch{}, createError(p, err)
	}
	return batchOf(created), nil
}

func createRequest(r worker.BatchRequest) *aiplatformpb.CreateBatchPredictionJobRequest {
	labels := map[string]string{}
	maps.Copy(labels, r.Labels)
	labels[batchLabel] = r.ID
	return &aiplatformpb.CreateBatchPredictionJobRequest{
		Parent: parentOf(r.Lane),
		BatchPredictionJob: &aiplatformpb.BatchPredictionJob{
			DisplayName: r.ID,
			Model:       "publishers/google/models/" + r.Lane.Model,
			Labels:      labels,
			InputConfig: &aiplatformpb.BatchPredictionJob_InputConfig{
				InstancesFormat: jsonLines,
				Source:          &aiplatformpb.BatchPredictionJob_InputConfig_GcsSource{GcsSource: &aiplatformpb.GcsSource{Uris: []string{r.Input}}},
			},
			OutputConfig: &aiplatformpb.BatchPredictionJob_OutputConfig{
				PredictionsFormat: jsonLines,
				Destination: &aiplatformpb.BatchPredictionJob_OutputConfig_GcsDestination{
					GcsDestination: &aiplatformpb.GcsDestination{OutputUriPrefix: r.OutputPrefix},
				},
			},
		},
	}
}

// createError is the error of a create: what the service answered may not be the whole truth.
func createError(p *rpc, err *worker.CallError) *worker.CallError {
	if !p.answered.Load() {
		return err // the transport knows whether the request was sent
	}
	switch {
	case isAgentMissing(err.Detail):
		err.Kind, err.Reason, err.RetryAfter = worker.Throttled, "", max(err.RetryAfter, agentDelay)
	case err.Status == http.StatusTooManyRequests:
		err.Kind = worker.Throttled
	case err.Status == http.StatusBadRequest:
		err.Kind, err.Reason = worker.Rejected, jobs.ReasonRejected
	case err.Status == http.StatusForbidden || err.Status == http.StatusUnauthorized || err.Status == http.StatusNotFound:
		err.Kind, err.Reason = worker.Denied, ""
	default:
		err.Kind, err.Reason = worker.Unanswered, ""
	}
	return err
}

// Find returns the jobs that were created for a batch, the oldest first. Vertex's lists may lag behind its creates by some seconds.
func (b *Batches) Find(ctx context.Context, lane worker.Lane, batch string) ([]worker.VertexBatch, error) {
	req := &aiplatformpb.ListBatchPredictionJobsRequest{
		Parent: parentOf(lane), PageSize: batchPageSize, Filter: fmt.Sprintf("labels.%s=%q", batchLabel, batch),
	}
	var all []worker.VertexBatch
	err := b.repeat(ctx, lane, func(ctx context.Context, client *aiplatform.JobClient) error {
		all = nil
		for job, err := range client.ListBatchPredictionJobs(ctx, req).All() {
			if err != nil {
				return err
			}
			if job.GetLabels()[batchLabel] == batch { // whatever the filter was taken for
				all = append(all, batchOf(job))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(x, y worker.VertexBatch) int { return x.Created.Compare(y.Created) })
	return all, nil
}

// Get returns a job as it is now. The kind is Denied and the status 404 when there is none of that name.
func (b *Batches) Get(ctx context.Context, lane worker.Lane, name string) (worker.VertexBatch, error) {
	var job *aiplatformpb.BatchPredictionJob
	err := b.repeat(ctx, lane, func(ctx context.Context, client *aiplatform.JobClient) (err error) {
		job, err = client.GetBatchPredictionJob(ctx, &aiplatformpb.GetBatchPredictionJobRequest{Name: name})
		return err
	})
	if err != nil {
		return worker.VertexBatch{}, err
	}
	return batchOf(job), nil
}

// Cancel asks for a job's end. It has come when [Batches.Get] says so. A job that has ended, or is ending, is no error.
func (b *Batches) Cancel(ctx context.Context, lane worker.Lane, name string) error {
	err := b.repeat(ctx, lane, func(ctx context.Context, client *aiplatform.JobClient) error {
		return client.CancelBatchPredictionJob(ctx, &aiplatformpb.CancelBatchPredictionJobRequest{Name: name})
	})
	var refused *worker.CallError
	if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		return err
	}
	if job, getErr := b.Get(ctx, lane, name); getErr == nil && (job.State.Terminal() || job.State == batchCancelling) {
		return nil
	}
	return err
}

// batchCancelling is the state of a job whose end was asked for.
const batchCancelling worker.BatchState = "CANCELLING"

// repeat makes a call that does no harm when it is made again, until it succeeds or there is no hope in it.
func (b *Batches) repeat(ctx context.Context, lane worker.Lane, f func(context.Context, *aiplatform.JobClient) error) error {
	var last *worker.CallError
	tries := 0
	again := func(error) bool {
		tries++
		switch last.Kind {
		case worker.Throttled, worker.Failing, worker.Unanswered, worker.Unreached:
			return tries < maxReadTries
		}
		return false
	}
	err := retry.Do(ctx, again, func(ctx context.Context) error {
		if _, last = b.call(ctx, lane, readTimeout, f); last == nil {
			return nil
		}
		return last
	})
	if err == nil {
		return nil
	}
	return last
}

// call makes one call on the lane's client, and returns what became of it.
func (b *Batches) call(ctx context.Context, lane worker.Lane, timeout time.Duration, f func(context.Context, *aiplatform.JobClient) error) (*rpc, *worker.CallError) {
	p := &rpc{Call: worker.Call{Job: &jobs.Job{}, Lane: lane}}
	if ctx.Err() != nil {
		return p, &worker.CallError{Kind: worker.Interrupted, Lane: lane, Err: context.Cause(ctx)}
	}
	client, err := b.at(ctx, lane)
	if err != nil {
		return p, &worker.CallError{Kind: worker.Denied, Lane: lane, Err: err}
	}
	rpcCtx, cancel := context.WithTimeoutCause(ctx, timeout, errCallTimeout)
	defer cancel()
	if err := b.token(rpcCtx); err != nil {
		return p, p.unsent(ctx, err)
	}
	if err := f(p.watch(rpcCtx), client); err != nil {
		return p, p.failure(ctx, rpcCtx, err)
	}
	return p, nil
}

// token makes sure that there is a token before a call is made: gRPC says of a missing one only that there is none.
func (b *Batches) token(ctx context.Context) error {
	if b.creds == nil {
		return nil
	}
	_, err := b.creds.Token(ctx)
	return err
}

// at returns the client for a lane's location.
func (b *Batches) at(ctx context.Context, lane worker.Lane) (*aiplatform.JobClient, error) {
	switch {
	case lane.Tier != jobs.TierBatch || lane.Endpoint != "":
		return nil, fmt.Errorf("lane %s is not of the tier batch", lane.Name)
	case lane.Project == "" || lane.Location == "" || lane.Model == "":
		return nil, fmt.Errorf("lane %s: no project, no location or no model is given", lane.Name)
	}
	address := b.cfg.Addr
	if address == "" {
		address = withPort(siteOf(lane).host)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.clients[address]; c != nil {
		return c, nil
	}
	c, err := aiplatform.NewJobClient(ctx, b.options(address)...)
	if err != nil {
		return nil, fmt.Errorf("make a client for lane %s: %w", lane.Name, err)
	}
	b.clients[address] = c
	return c, nil
}

func (b *Batches) options(address string) []option.ClientOption {
	options := []option.ClientOption{
		option.WithEndpoint(address), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithStatsHandler(rpcWatcher{})),
		option.WithGRPCDialOption(grpc.WithDisableRetry()),
	}
	if b.cfg.UserAgent != "" {
		options = append(options, option.WithUserAgent(b.cfg.UserAgent))
	}
	if b.quotaProject != "" {
		options = append(options, option.WithQuotaProject(b.quotaProject))
	}
	if b.cfg.NoAuth {
		return append(options, option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	return append(options, option.WithAuthCredentials(b.creds))
}

func parentOf(lane worker.Lane) string {
	return fmt.Sprintf("projects/%s/locations/%s", lane.Project, lane.Location)
}

// batchOf returns what Vertex says of a job.
func batchOf(job *aiplatformpb.BatchPredictionJob) worker.VertexBatch {
	stats := job.GetCompletionStats()
	return worker.VertexBatch{
		Name:      job.GetName(),
		State:     worker.BatchState(strings.TrimPrefix(job.GetState().String(), "JOB_STATE_")),
		OutputDir: job.GetOutputInfo().GetGcsOutputDirectory(),
		Created:   timeOf(job.GetCreateTime()), Started: timeOf(job.GetStartTime()), Ended: timeOf(job.GetEndTime()),
		Succeeded: stats.GetSuccessfulCount(), Failed: stats.GetFailedCount(), Incomplete: stats.GetIncompleteCount(),
		Error: detail(&jobs.Job{}, job.GetError().GetMessage()),
	}
}

// timeOf returns the zero time for what has not happened.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
