package lineage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/lineage"
)

// faulty is a Storage Write API whose answers a test decides.
type faulty struct {
	storagepb.UnimplementedBigQueryWriteServer
	// decide is asked for every request, by its number from 0 and the ids of its jobs. It returns what to answer and whether
	// the rows are stored; an error breaks the connection.
	decide func(n int, ids []string) (resp *storagepb.AppendRowsResponse, store bool, err error)

	mu       sync.Mutex
	requests int
	stored   map[string]int
}

func (f *faulty) GetWriteStream(_ context.Context, req *storagepb.GetWriteStreamRequest) (*storagepb.WriteStream, error) {
	return &storagepb.WriteStream{Name: req.GetName()}, nil
}

func (f *faulty) AppendRows(stream storagepb.BigQueryWrite_AppendRowsServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var ids []string
		for _, data := range req.GetProtoRows().GetRows().GetSerializedRows() {
			var row schemas.GenerationRow
			if err := proto.Unmarshal(data, &row); err != nil {
				return err
			}
			ids = append(ids, row.GetJobId())
		}
		f.mu.Lock()
		n := f.requests
		f.requests++
		f.mu.Unlock()
		resp, store, err := f.decide(n, ids)
		if store {
			f.mu.Lock()
			for _, id := range ids {
				f.stored[id]++
			}
			f.mu.Unlock()
		}
		if err != nil {
			return err
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (f *faulty) times(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stored[id]
}

func (f *faulty) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

func accepted() *storagepb.AppendRowsResponse {
	return &storagepb.AppendRowsResponse{Response: &storagepb.AppendRowsResponse_AppendResult_{AppendResult: &storagepb.AppendRowsResponse_AppendResult{}}}
}

func failed(code codes.Code, details ...proto.Message) *storagepb.AppendRowsResponse {
	s := &statuspb.Status{Code: int32(code), Message: "injected " + code.String()}
	for _, d := range details {
		packed, err := anypb.New(d)
		if err != nil {
			panic(err)
		}
		s.Details = append(s.Details, packed)
	}
	return &storagepb.AppendRowsResponse{Response: &storagepb.AppendRowsResponse_Error{Error: s}}
}

// serve starts the faulty service and returns a Lineage that appends to it.
func (f *faulty) serve(t *testing.T) *lineage.Lineage {
	t.Helper()
	return open(t, f.listen(t))
}

func (f *faulty) listen(t *testing.T) lineage.Config {
	t.Helper()
	f.stored = map[string]int{}
	return listen(t, f)
}

// listen serves a Storage Write API on a free port.
func listen(t testing.TB, service storagepb.BigQueryWriteServer) lineage.Config {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	storagepb.RegisterBigQueryWriteServer(srv, service)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return lineage.Config{Project: project, Dataset: dataset, REST: localbq.RESTOptions("http://" + lis.Addr().String()), GRPC: localbq.GRPCOptions(lis.Addr().String())}
}

// appendAll appends n rows at once and returns each caller's error.
func appendAll(t *testing.T, l *lineage.Lineage, n int) map[string]error {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]error{}
	for i := range n {
		wg.Go(func() {
			id := fmt.Sprintf("job-%03d", i)
			err := l.AppendGeneration(t.Context(), generation(t, "s", id))
			mu.Lock()
			defer mu.Unlock()
			got[id] = err
		})
	}
	wg.Wait()
	return got
}

// A service that fails in every way it can, then recovers: every row is stored, and every caller hears so.
func TestFailuresThatPassLoseNothing(t *testing.T) {
	t.Parallel()
	faults := []func() (*storagepb.AppendRowsResponse, bool, error){
		func() (*storagepb.AppendRowsResponse, bool, error) { return failed(codes.Internal), false, nil },
		func() (*storagepb.AppendRowsResponse, bool, error) { return failed(codes.Unavailable), false, nil },
		func() (*storagepb.AppendRowsResponse, bool, error) {
			return failed(codes.ResourceExhausted), false, nil
		},
		func() (*storagepb.AppendRowsResponse, bool, error) { return failed(codes.Aborted), false, nil },
		func() (*storagepb.AppendRowsResponse, bool, error) {
			return nil, false, status.Error(codes.Unavailable, "broken")
		},
		func() (*storagepb.AppendRowsResponse, bool, error) {
			return nil, true, status.Error(codes.Internal, "broken after the rows were stored")
		},
		func() (*storagepb.AppendRowsResponse, bool, error) { return nil, false, io.ErrUnexpectedEOF },
	}
	f := &faulty{decide: func(n int, _ []string) (*storagepb.AppendRowsResponse, bool, error) {
		if n < len(faults) {
			return faults[n]()
		}
		return accepted(), true, nil
	}}
	l := f.serve(t)
	for id, err := range appendAll(t, l, 300) {
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if f.times(id) == 0 {
			t.Errorf("%s is said to be stored and is not", id)
		}
	}
	if f.count() <= len(faults) {
		t.Errorf("only %d requests: the faults were not met", f.count())
	}
}

// A row that spoils its request fails alone, whether the service names it or not.
func TestARefusedRowFailsAlone(t *testing.T) {
	t.Parallel()
	const poison = "job-042"
	at := func(ids []string) int64 {
		for i, id := range ids {
			if id == poison {
				return int64(i)
			}
		}
		return -1
	}
	for name, refuse := range map[string]func(i int64) *storagepb.AppendRowsResponse{
		"named": func(i int64) *storagepb.AppendRowsResponse {
			resp := failed(codes.InvalidArgument)
			resp.RowErrors = []*storagepb.RowError{{Index: i, Code: storagepb.RowError_FIELDS_ERROR, Message: "poison"}}
			return resp
		},
		"not named": func(int64) *storagepb.AppendRowsResponse { return failed(codes.InvalidArgument) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faulty{decide: func(_ int, ids []string) (*storagepb.AppendRowsResponse, bool, error) {
				if i := at(ids); i >= 0 {
					return refuse(i), false, nil
				}
				return accepted(), true, nil
			}}
			for id, err := range appendAll(t, f.serve(t), 100) {
				switch {
				case id == poison && !errors.Is(err, lineage.ErrRefused):
					t.Errorf("the poison: %v", err)
				case id != poison && (err != nil || f.times(id) != 1):
					t.Errorf("%s: %v, stored %d times", id, err, f.times(id))
				}
			}
		})
	}
}

// What no row can cure fails every row at once, with what to do.
func TestHopelessFailuresSayWhatToDo(t *testing.T) {
	t.Parallel()
	mismatch := &storagepb.StorageError{Code: storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS, ErrorMessage: "extra"}
	for name, tc := range map[string]struct {
		resp *storagepb.AppendRowsResponse
		want string
	}{
		"no permission": {failed(codes.PermissionDenied), "lineage-test.lineage.generations_raw: roles/bigquery.dataEditor"},
		"no table":      {failed(codes.NotFound), "lineage-test.lineage.generations_raw: the table or its dataset does not exist"},
		"old table":     {failed(codes.InvalidArgument, mismatch), "lacks a column"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faulty{decide: func(int, []string) (*storagepb.AppendRowsResponse, bool, error) { return tc.resp, false, nil }}
			for id, err := range appendAll(t, f.serve(t), 20) {
				if err == nil || errors.Is(err, lineage.ErrRefused) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: %v", id, err)
				}
			}
			if f.count() > 20 {
				t.Errorf("%d requests for what is hopeless", f.count())
			}
		})
	}
}

// An append returns no sooner than the answer.
func TestNothingIsAcknowledgedEarly(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	f := &faulty{decide: func(int, []string) (*storagepb.AppendRowsResponse, bool, error) {
		close(arrived)
		<-release
		return accepted(), true, nil
	}}
	l := f.serve(t)
	returned := make(chan error, 1)
	go func() { returned <- l.AppendGeneration(t.Context(), generation(t, "s", "job")) }()
	<-arrived
	select {
	case err := <-returned:
		t.Errorf("returned before the answer: %v", err)
	default:
	}
	close(release)
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

// When the service stays down, a caller that leaves hears why; Close lets go of those that do not.
func TestOutage(t *testing.T) {
	t.Parallel()
	f := &faulty{decide: func(int, []string) (*storagepb.AppendRowsResponse, bool, error) {
		return failed(codes.Unavailable), false, nil
	}}
	cfg := f.listen(t)
	retried := make(chan error, 100)
	cfg.Retrying = func(_ string, _ int, err error) {
		select {
		case retried <- err:
		default:
		}
	}
	l, err := lineage.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	leaving, leave := context.WithCancelCause(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { left <- l.AppendGeneration(leaving, generation(t, "s", "leaves")) }()
	go func() { stayed <- l.AppendGeneration(context.Background(), generation(t, "s", "stays")) }()
	for range 3 {
		<-retried
	}
	shutdown := errors.New("worker stops")
	leave(shutdown)
	if err := <-left; !errors.Is(err, shutdown) || !strings.Contains(err.Error(), "injected Unavailable") {
		t.Errorf("the one that leaves: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); err == nil {
		t.Error("Close says that all rows are durable")
	}
	if err := <-stayed; !errors.Is(err, lineage.ErrClosed) {
		t.Errorf("the one that stays: %v", err)
	}
}

// Close waits for the rows that are on their way.
func TestCloseFlushes(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	f := &faulty{decide: func(int, []string) (*storagepb.AppendRowsResponse, bool, error) {
		close(arrived)
		<-release
		return accepted(), true, nil
	}}
	l, err := lineage.New(t.Context(), f.listen(t))
	if err != nil {
		t.Fatal(err)
	}
	returned, closed := make(chan error, 1), make(chan error, 1)
	go func() { returned <- l.AppendGeneration(t.Context(), generation(t, "s", "job")) }()
	<-arrived
	go func() { closed <- l.Close(t.Context()) }()
	close(release)
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// The connection's descriptor must declare no defaults: BigQuery would store them instead of NULL.
func TestSchemaHasNoDefaults(t *testing.T) {
	t.Parallel()
	seen := make(chan *storagepb.AppendRowsRequest, 1)
	l := open(t, listen(t, &schemaWatcher{seen: seen}))
	if err := l.AppendGeneration(t.Context(), generation(t, "s", "job")); err != nil {
		t.Fatal(err)
	}
	descriptor := (<-seen).GetProtoRows().GetWriterSchema().GetProtoDescriptor()
	if len(descriptor.GetField()) == 0 || len(descriptor.GetNestedType()) == 0 {
		t.Fatalf("descriptor is %v", descriptor)
	}
	for _, field := range append(descriptor.GetField(), descriptor.GetNestedType()[0].GetField()...) {
		if field.DefaultValue != nil || field.Options != nil {
			t.Errorf("%s has default %q and options %v", field.GetName(), field.GetDefaultValue(), field.GetOptions())
		}
	}
}

// schemaWatcher keeps the first request.
type schemaWatcher struct {
	faulty
	seen chan *storagepb.AppendRowsRequest
}

func (s *schemaWatcher) AppendRows(stream storagepb.BigQueryWrite_AppendRowsServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	s.seen <- req
	return stream.Send(accepted())
}
