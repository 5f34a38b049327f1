package vertextest

import (
	"context"
	"strings"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// jobService is the part of JobService that batch prediction needs.
type jobService struct {
	aiplatformpb.UnimplementedJobServiceServer
	s *Server
}

// jobCall runs f, unless the server is closing, and turns its error into a status.
func jobCall[T any](s *Server, f func() (T, *apiError)) (T, error) {
	var none T
	if !s.enter() {
		return none, status.Error(codes.Unavailable, errClosed.Error())
	}
	defer s.active.Done()
	out, e := f()
	if e != nil {
		return none, e.grpcError()
	}
	return out, nil
}

func (g *jobService) CreateBatchPredictionJob(ctx context.Context, req *aiplatformpb.CreateBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	return jobCall(g.s, func() (*aiplatformpb.BatchPredictionJob, *apiError) {
		return g.s.createBatch(ctx, req.GetParent(), req.GetBatchPredictionJob())
	})
}

func (g *jobService) GetBatchPredictionJob(_ context.Context, req *aiplatformpb.GetBatchPredictionJobRequest) (*aiplatformpb.BatchPredictionJob, error) {
	return jobCall(g.s, func() (*aiplatformpb.BatchPredictionJob, *apiError) { return g.s.getBatch(req.GetName()) })
}

func (g *jobService) ListBatchPredictionJobs(_ context.Context, req *aiplatformpb.ListBatchPredictionJobsRequest) (*aiplatformpb.ListBatchPredictionJobsResponse, error) {
	return jobCall(g.s, func() (*aiplatformpb.ListBatchPredictionJobsResponse, *apiError) {
		return g.s.listBatches(req.GetParent(), req.GetFilter(), req.GetPageSize(), req.GetPageToken())
	})
}

func (g *jobService) CancelBatchPredictionJob(_ context.Context, req *aiplatformpb.CancelBatchPredictionJobRequest) (*emptypb.Empty, error) {
	return jobCall(g.s, func() (*emptypb.Empty, *apiError) { return &emptypb.Empty{}, g.s.cancelBatch(req.GetName()) })
}

func (g *jobService) DeleteBatchPredictionJob(_ context.Context, req *aiplatformpb.DeleteBatchPredictionJobRequest) (*longrunningpb.Operation, error) {
	return jobCall(g.s, func() (*longrunningpb.Operation, *apiError) {
		return g.s.deleteOperation(req.GetName())
	})
}

// deleteOperation deletes a job and returns the operation, which is done already.
func (s *Server) deleteOperation(name string) (*longrunningpb.Operation, *apiError) {
	if e := s.deleteBatch(name); e != nil {
		return nil, e
	}
	done, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		return nil, invalid("%v", err)
	}
	at := strings.LastIndex(name, "/batchPredictionJobs/")
	return &longrunningpb.Operation{
		Name: name[:at] + "/operations/" + name[at+len("/batchPredictionJobs/"):], Done: true,
		Result: &longrunningpb.Operation_Response{Response: done},
	}, nil
}
