package vertex

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

var batchLane = worker.Lane{Name: "batch/global", Project: "p-1", Location: "global", Model: "gemini-3-pro-image", Tier: "batch"}

// jobService is the JobService of a test. Each call takes the next of its errors, if there is one.
type jobService struct {
	aiplatformpb.UnimplementedJobServiceServer
	mu       sync.Mutex
	errs     []error
	calls    int
	created  []*aiplatformpb.CreateBatchPredictionJobRequest
	lists    []*aiplatformpb.ListBatchPredictionJobsRequest
	jobs     []*aiplatformpb.BatchPredictionJob
	metadata metadata.MD
	hang     chan struct{} // if not nil, calls say so on it, and wait for their context's end
}

func (s *jobService) fault(ctx context.Context) error {
	s.mu.Lock()
	s.calls++
	s.metadata, _ = metadata.FromIncomingContext(ctx)
	var err error
	if len(s.errs) > 0 {
		err, s.errs = s.errs[0], s.errs[1:]
	}
	s.mu.Unlock()
	if s.hang != nil {
		s.hang <- struct{}{}
		<-ctx.Done()
	}
	return err
}

func (s *jobService) CreateBatchPredictionJob(ctx context.Context, r *aiplatformpb.CreateBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	if err := s.fault(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = append(s.created, r)
	return &aiplatformpb.BatchPredictionJob{Name: r.Parent + "/batchPredictionJobs/7", State: aiplatformpb.JobState_JOB_STATE_PENDING, CreateTime: timestamppb.New(time.Unix(5, 0))}, nil
}

func (s *jobService) GetBatchPredictionJob(ctx context.Context, r *aiplatformpb.GetBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	if err := s.fault(ctx); err != nil {
		return nil, err
	}
	for _, j := range s.jobs {
		if j.Name == r.Name {
			return j, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such job")
}

// ListBatchPredictionJobs returns pages of two.
func (s *jobService) ListBatchPredictionJobs(ctx context.Context, r *aiplatformpb.ListBatchPredictionJobsRequest) (*aiplatformpb.ListBatchPredictionJobsResponse, error) {
	if err := s.fault(ctx); err != nil {
		return nil, err
	}
	s.lists = append(s.lists, r)
	at, _ := strconv.Atoi(r.PageToken)
	resp := &aiplatformpb.ListBatchPredictionJobsResponse{BatchPredictionJobs: s.jobs[at:min(at+2, len(s.jobs))]}
	if at+2 < len(s.jobs) {
		resp.NextPageToken = strconv.Itoa(at + 2)
	}
	return resp, nil
}

func (s *jobService) CancelBatchPredictionJob(ctx context.Context, r *aiplatformpb.CancelBatchPredictionJobRequest) (*emptypb.Empty, error) {
	if err := s.fault(ctx); err != nil {
		return nil, err
	}
	for _, j := range s.jobs {
		if j.Name == r.Name && batchOf(j).State.Terminal() {
			return nil, status.Error(codes.FailedPrecondition, "the job has ended")
		}
	}
	return &emptypb.Empty{}, nil
}

// start serves the service, and returns its server and a client of it.
func (s *jobService) start(t *testing.T) (*grpc.Server, *Batches) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	aiplatformpb.RegisterJobServiceServer(server, s)
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return server, newBatches(t, l.Addr().String())
}

func newBatches(t *testing.T, address string) *Batches {
	t.Helper()
	b, err := NewBatches(t.Context(), BatchesConfig{Addr: address, NoAuth: true, UserAgent: "assetmill/test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func batchRequestOf(id string) worker.BatchRequest {
	return worker.BatchRequest{
		ID: id, Lane: batchLane, Input: "gs://work/batches/" + id + "/input.jsonl", OutputPrefix: "gs://work/batches/" + id + "/output/",
		Labels: map[string]string{"team": "x", "assetmill_batch": "not this"},
	}
}

func TestBatchCreate(t *testing.T) {
	t.Parallel()
	s := &jobService{}
	_, b := s.start(t)
	got, err := b.Create(t.Context(), batchRequestOf("b-1"))
	if err != nil {
		t.Fatal(err)
	}
	want := worker.VertexBatch{Name: "projects/p-1/locations/global/batchPredictionJobs/7", State: worker.BatchPending, Created: time.Unix(5, 0).UTC()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("job (-want +got):\n%s", diff)
	}
	wanted := &aiplatformpb.CreateBatchPredictionJobRequest{
		Parent: "projects/p-1/locations/global",
		BatchPredictionJob: &aiplatformpb.BatchPredictionJob{
			DisplayName: "b-1", Model: "publishers/google/models/gemini-3-pro-image", Labels: map[string]string{"team": "x", "assetmill_batch": "b-1"},
			InputConfig: &aiplatformpb.BatchPredictionJob_InputConfig{
				InstancesFormat: "jsonl",
				Source:          &aiplatformpb.BatchPredictionJob_InputConfig_GcsSource{GcsSource: &aiplatformpb.GcsSource{Uris: []string{"gs://work/batches/b-1/input.jsonl"}}},
			},
			OutputConfig: &aiplatformpb.BatchPredictionJob_OutputConfig{
				PredictionsFormat: "jsonl",
				Destination: &aiplatformpb.BatchPredictionJob_OutputConfig_GcsDestination{
					GcsDestination: &aiplatformpb.GcsDestination{OutputUriPrefix: "gs://work/batches/b-1/output/"},
				},
			},
		},
	}
	if diff := cmp.Diff([]*aiplatformpb.CreateBatchPredictionJobRequest{wanted}, s.created, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if agent := strings.Join(s.metadata["user-agent"], " "); !strings.Contains(agent, "assetmill/test") {
		t.Errorf("user agent %q", agent)
	}
}

func TestBatchCreateErrors(t *testing.T) {
	t.Parallel()
	const provisioned = "Service agents are being provisioned (https://cloud.google.com/...). Try again."
	tests := []struct {
		code    codes.Code
		message string
		kind    worker.Kind
		reason  jobs.Reason
		pause   time.Duration
	}{
		{codes.ResourceExhausted, "quota", worker.Throttled, "", 0},
		{codes.InvalidArgument, "bad", worker.Rejected, jobs.ReasonRejected, 0},
		{codes.FailedPrecondition, "bad", worker.Rejected, jobs.ReasonRejected, 0},
		{codes.FailedPrecondition, provisioned, worker.Throttled, "", agentDelay},
		{codes.OutOfRange, "bad", worker.Rejected, jobs.ReasonRejected, 0},
		{codes.PermissionDenied, "no", worker.Denied, "", 0},
		{codes.Unauthenticated, "no", worker.Denied, "", 0},
		{codes.NotFound, "no such model", worker.Denied, "", 0},
		{codes.Unimplemented, "no", worker.Denied, "", 0},
		// Nobody knows.
		{codes.Unavailable, "later", worker.Unanswered, "", 0},
		{codes.Internal, "oops", worker.Unanswered, "", 0},
		{codes.Unknown, "oops", worker.Unanswered, "", 0},
		{codes.DeadlineExceeded, "slow", worker.Unanswered, "", 0},
		{codes.Canceled, "stopped", worker.Unanswered, "", 0},
		{codes.Aborted, "conflict", worker.Unanswered, "", 0},
		{codes.AlreadyExists, "there", worker.Unanswered, "", 0},
		{codes.DataLoss, "oops", worker.Unanswered, "", 0},
	}
	for _, test := range tests {
		s := &jobService{errs: []error{status.Error(test.code, test.message)}}
		_, b := s.start(t)
		_, err := b.Create(t.Context(), batchRequestOf("b-1"))
		var e *worker.CallError
		if !errors.As(err, &e) || e.Kind != test.kind || e.Reason != test.reason || e.Lane != batchLane || e.RetryAfter != test.pause || !strings.Contains(e.Error(), test.message) {
			t.Errorf("%v: %v (reason %q, pause %v)", test.code, err, e.Reason, e.RetryAfter)
		}
		if s.calls != 1 {
			t.Errorf("%v: %d calls; a second may be a second job", test.code, s.calls)
		}
	}
}

func TestBatchCreateWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	kind := func(err error) worker.Kind {
		var e *worker.CallError
		if !errors.As(err, &e) {
			t.Fatalf("error %v", err)
		}
		return e.Kind
	}
	// Nobody listens: nothing was sent.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if _, err := newBatches(t, address).Create(t.Context(), batchRequestOf("b-1")); kind(err) != worker.Unreached {
		t.Errorf("nobody listens: %v", err)
	}
	// The context had ended before.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &jobService{hang: make(chan struct{}, 2)}
	server, b := s.start(t)
	if _, err := b.Create(ctx, batchRequestOf("b-1")); kind(err) != worker.Interrupted || s.calls != 0 {
		t.Errorf("ended before: %v", err)
	}
	// The service has the request; then the caller gives up, or the connection breaks.
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.Create(ctx, batchRequestOf("b-1")); kind(err) != worker.Unanswered {
		t.Errorf("given up: %v", err)
	}
	ended := make(chan error, 1)
	go func() { _, err := b.Create(t.Context(), batchRequestOf("b-1")); ended <- err }()
	<-s.hang
	<-s.hang
	go server.Stop()
	if err := <-ended; kind(err) != worker.Unanswered {
		t.Errorf("broken off: %v", err)
	}
	// A lane that is none of a batch.
	for _, edit := range []func(*worker.Lane){
		func(l *worker.Lane) { l.Tier = "standard" }, func(l *worker.Lane) { l.Endpoint = "7" }, func(l *worker.Lane) { l.Project = "" },
	} {
		r := batchRequestOf("b-1")
		edit(&r.Lane)
		if _, err := b.Create(t.Context(), r); kind(err) != worker.Denied {
			t.Errorf("lane %+v: %v", r.Lane, err)
		}
	}
}

func TestBatchFind(t *testing.T) {
	t.Parallel()
	s := &jobService{errs: []error{status.Error(codes.Unavailable, "later"), nil, status.Error(codes.ResourceExhausted, "slowly")}}
	for i, created := range []int64{9, 4, 7, 1, 8} {
		s.jobs = append(s.jobs, &aiplatformpb.BatchPredictionJob{
			Name: fmt.Sprint("job ", created), CreateTime: timestamppb.New(time.Unix(created, 0)), Labels: map[string]string{"assetmill_batch": []string{"b-1", "b-1", "b-2", "b-1", "b-1"}[i]},
		})
	}
	_, b := s.start(t)
	found, err := b.Find(t.Context(), batchLane, "b-1")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, j := range found {
		names = append(names, j.Name)
	}
	if want := []string{"job 1", "job 4", "job 8", "job 9"}; !slices.Equal(names, want) {
		t.Errorf("found %v, want %v", names, want)
	}
	var tokens []string
	for _, l := range s.lists {
		tokens = append(tokens, l.PageToken)
		if l.Parent != "projects/p-1/locations/global" || l.Filter != `labels.assetmill_batch="b-1"` {
			t.Errorf("list %v", l)
		}
	}
	if !slices.Equal(tokens, []string{"", "", "2", "4"}) || s.calls != 6 {
		t.Errorf("pages %q in %d calls", tokens, s.calls)
	}
}

func TestBatchGet(t *testing.T) {
	t.Parallel()
	s := &jobService{errs: []error{status.Error(codes.Unavailable, "later")}, jobs: []*aiplatformpb.BatchPredictionJob{
		{
			Name: "all", State: aiplatformpb.JobState_JOB_STATE_PARTIALLY_SUCCEEDED,
			CreateTime: timestamppb.New(time.Unix(1, 0)), StartTime: timestamppb.New(time.Unix(2, 0)), EndTime: timestamppb.New(time.Unix(3, 0)),
			OutputInfo:      &aiplatformpb.BatchPredictionJob_OutputInfo{OutputLocation: &aiplatformpb.BatchPredictionJob_OutputInfo_GcsOutputDirectory{GcsOutputDirectory: "gs://o/d"}},
			CompletionStats: &aiplatformpb.CompletionStats{SuccessfulCount: 4, FailedCount: 5, IncompleteCount: 6},
			Error:           &statuspb.Status{Message: strings.Repeat("long\n", 1000)},
		},
		{Name: "new", State: 99},
	}}
	_, b := s.start(t)
	got, err := b.Get(t.Context(), batchLane, "all")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Error) > maxDetailBytes || !strings.HasPrefix(got.Error, "long long") {
		t.Errorf("error of %d bytes", len(got.Error))
	}
	got.Error = ""
	want := worker.VertexBatch{
		Name: "all", State: worker.BatchPartly, OutputDir: "gs://o/d", Created: time.Unix(1, 0).UTC(), Started: time.Unix(2, 0).UTC(), Ended: time.Unix(3, 0).UTC(),
		Succeeded: 4, Failed: 5, Incomplete: 6,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("job (-want +got):\n%s", diff)
	}
	if got, err := b.Get(t.Context(), batchLane, "new"); err != nil || got.State != "99" || got.State.Terminal() || !got.Created.IsZero() {
		t.Errorf("a new state: %+v, %v", got, err)
	}
	var e *worker.CallError
	if _, err := b.Get(t.Context(), batchLane, "gone"); !errors.As(err, &e) || e.Kind != worker.Denied || e.Status != 404 {
		t.Errorf("no such job: %v", err)
	}
	s.calls, s.errs = 0, slices.Repeat([]error{status.Error(codes.Unavailable, "later")}, 2*maxReadTries)
	if _, err := b.Get(t.Context(), batchLane, "all"); !errors.As(err, &e) || e.Kind != worker.Throttled || s.calls != maxReadTries {
		t.Errorf("always unavailable: %v after %d calls", err, s.calls)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := b.Get(ctx, batchLane, "all"); !errors.As(err, &e) {
		t.Errorf("the context ended: %v", err)
	}
}

func TestBatchCancel(t *testing.T) {
	t.Parallel()
	s := &jobService{jobs: []*aiplatformpb.BatchPredictionJob{
		{Name: "running", State: aiplatformpb.JobState_JOB_STATE_RUNNING}, {Name: "done", State: aiplatformpb.JobState_JOB_STATE_SUCCEEDED},
	}}
	_, b := s.start(t)
	for _, name := range []string{"running", "done"} {
		if err := b.Cancel(t.Context(), batchLane, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Refused for another reason.
	s.errs = []error{status.Error(codes.FailedPrecondition, "not now")}
	if err := b.Cancel(t.Context(), batchLane, "running"); err == nil {
		t.Error("refused, and no error")
	}
	s.errs = []error{status.Error(codes.PermissionDenied, "no")}
	var e *worker.CallError
	if err := b.Cancel(t.Context(), batchLane, "running"); !errors.As(err, &e) || e.Kind != worker.Denied {
		t.Errorf("denied: %v", err)
	}
}

func TestBatchesConfig(t *testing.T) {
	t.Parallel()
	if _, err := NewBatches(t.Context(), BatchesConfig{Addr: "127.0.0.1:1"}); err == nil {
		t.Error("credentials would be sent in plain text")
	}
	if _, err := NewBatches(t.Context(), BatchesConfig{NoAuth: true}); err == nil {
		t.Error("Google would be called without credentials")
	}
}
