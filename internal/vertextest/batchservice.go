package vertextest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// Page sizes of lists. What the service's are is not documented.
	defaultPageSize = 100
	maxPageSize     = 1000

	maxDisplayName = 128 // characters

	jsonl = "jsonl"
)

// Names of the quotas of job management.
const (
	quotaCreate = "create"
	quotaRead   = "read"
)

func newBatchQuota(b *Batch, now func() time.Time) *quota {
	return newQuota(&Config{
		QuotaBurst:            time.Minute, // these are quotas by the minute, not by the moment
		TierRequestsPerMinute: map[string]float64{quotaCreate: b.CreatesPerMinute, quotaRead: b.ReadsPerMinute},
	}, now)
}

// createBatch checks and starts a job. The error may hide that it was started.
func (s *Server) createBatch(ctx context.Context, parent string, in *aiplatformpb.BatchPredictionJob) (*aiplatformpb.BatchPredictionJob, *apiError) {
	m := batchParent.FindStringSubmatch(parent)
	if m == nil {
		return nil, invalid("Invalid resource field value in the request: %q", parent)
	}
	j, e := s.newBatchJob(m[1], m[2], in)
	if e != nil {
		return nil, e
	}
	if !s.batchQuota.take(&Call{Project: projectNumber(m[1]), Location: m[2]}, quotaCreate) {
		return nil, s.failure(http.StatusTooManyRequests)
	}
	j.fate = s.decideJob(j)
	switch j.fate.Create {
	case CreateUnavailable:
		return nil, statusError(http.StatusServiceUnavailable)
	case CreateThrottled:
		return nil, s.failure(http.StatusTooManyRequests)
	}
	if !s.enter() { // the job's goroutine leaves
		return nil, statusError(http.StatusServiceUnavailable)
	}
	s.batches.add(j)
	out := j.proto()
	go s.runBatch(j)
	switch j.fate.Create {
	case CreateHang:
		select {
		case <-ctx.Done():
		case <-s.base.Done():
		}
		return nil, statusError(http.StatusServiceUnavailable)
	case CreateLost:
		return nil, statusError(http.StatusServiceUnavailable)
	}
	return out, nil
}

// newBatchJob checks what was asked for.
func (s *Server) newBatchJob(project, place string, in *aiplatformpb.BatchPredictionJob) (*batchJob, *apiError) {
	if s.cfg.OpenObject == nil || s.cfg.CreateObject == nil {
		e := statusError(http.StatusNotImplemented)
		e.Message = "This stand-in was started without access to Cloud Storage."
		return nil, e
	}
	if n := len([]rune(in.GetDisplayName())); n == 0 || n > maxDisplayName {
		return nil, invalid("display_name must have 1 to %d characters but has %d.", maxDisplayName, n)
	}
	model, e := s.batchModel(project, place, in.GetModel())
	if e != nil {
		return nil, e
	}
	j := &batchJob{model: model, steps: make(chan *batchStep), stopped: make(chan struct{}), ended: make(chan struct{})}
	if e := j.setPlaces(in); e != nil {
		return nil, e
	}
	if _, e := readLabels(in.GetLabels()); e != nil {
		return nil, e
	}
	// The order of the map's keys must not change the fate.
	asked := fmt.Sprint(projectNumber(project), place, model.ID, in.GetDisplayName(), j.in, j.out, in.GetLabels()) // fmt prints maps in key order
	j.content = sha256.Sum256([]byte(asked))
	j.seq = s.batches.next()
	now := s.now()
	j.pb = proto.Clone(in).(*aiplatformpb.BatchPredictionJob)
	j.pb.Name = "projects/" + projectNumber(project) + "/locations/" + place + "/batchPredictionJobs/" + jobID(s.cfg.Seed, j.seq)
	j.pb.State = aiplatformpb.JobState_JOB_STATE_PENDING
	if s.cfg.Batch.Queued > 0 {
		j.pb.State = aiplatformpb.JobState_JOB_STATE_QUEUED
	}
	j.pb.CreateTime = timestamppb.New(now)
	j.pb.UpdateTime = j.pb.CreateTime
	j.pb.ModelVersionId = "1"
	j.pb.OutputInfo, j.pb.Error, j.pb.PartialFailures, j.pb.CompletionStats, j.pb.StartTime, j.pb.EndTime = nil, nil, nil, nil, nil, nil
	j.info = BatchJob{
		Name: j.pb.Name, DisplayName: in.GetDisplayName(), Project: project, Location: place, Model: model.ID,
		Labels: maps.Clone(in.GetLabels()), Input: j.in.uri(), Created: now,
	}
	return j, nil
}

// batchModel finds the model, which is named with or without project and location.
func (s *Server) batchModel(project, place, name string) (*Model, *apiError) {
	r, ok := parseResource(name)
	if !ok {
		id, short := strings.CutPrefix(name, "publishers/google/models/")
		if r, ok = parseResource((resource{project, place, id}).name()); !ok || !short {
			return nil, invalid("Invalid value of model: %q.", name)
		}
	}
	if r.location != place || !sameProject(r.project, project) {
		return nil, invalid("The model %q must be in the project and location of the job.", name)
	}
	return s.lookUp(r)
}

// setPlaces reads where input and output are.
func (j *batchJob) setPlaces(in *aiplatformpb.BatchPredictionJob) *apiError {
	input, output := in.GetInputConfig(), in.GetOutputConfig()
	if input.GetBigquerySource() != nil || output.GetBigqueryDestination() != nil {
		e := statusError(http.StatusNotImplemented)
		e.Message = "This stand-in has batch prediction from and to Cloud Storage only."
		return e
	}
	if input.GetInstancesFormat() != jsonl || output.GetPredictionsFormat() != jsonl {
		return invalid("instances_format and predictions_format must be %q.", jsonl)
	}
	uris := input.GetGcsSource().GetUris()
	if len(uris) != 1 {
		return invalid("gcs_source.uris must have exactly one file but has %d.", len(uris))
	}
	var ok bool
	if j.in.bucket, j.in.name, ok = splitGS(uris[0]); !ok || strings.ContainsAny(j.in.name, "*?") {
		return invalid("Invalid value of gcs_source.uris: %q.", uris[0])
	}
	prefix := output.GetGcsDestination().GetOutputUriPrefix()
	if j.out.bucket, j.out.name, ok = splitPrefix(prefix); !ok {
		return invalid("Invalid value of gcs_destination.output_uri_prefix: %q.", prefix)
	}
	return nil
}

// getBatch returns a job.
func (s *Server) getBatch(name string) (*aiplatformpb.BatchPredictionJob, *apiError) {
	j, e := s.findBatch(name)
	if e != nil {
		return nil, e
	}
	if e := s.takeRead(j.info.Project, j.info.Location); e != nil {
		return nil, e
	}
	return j.proto(), nil
}

func (s *Server) takeRead(project, place string) *apiError {
	if !s.batchQuota.take(&Call{Project: projectNumber(project), Location: place}, quotaRead) {
		return s.failure(http.StatusTooManyRequests)
	}
	return nil
}

// listBatches returns one page of the jobs that pass the filter, the newest first.
func (s *Server) listBatches(parent, filter string, pageSize int32, pageToken string) (*aiplatformpb.ListBatchPredictionJobsResponse, *apiError) {
	m := batchParent.FindStringSubmatch(parent)
	if m == nil {
		return nil, invalid("Invalid resource field value in the request: %q", parent)
	}
	passes, e := parseFilter(filter)
	if e != nil {
		return nil, e
	}
	if pageSize < 0 {
		return nil, invalid("page_size %d is negative.", pageSize)
	}
	before, e := readPageToken(pageToken)
	if e != nil {
		return nil, e
	}
	if e := s.takeRead(m[1], m[2]); e != nil {
		return nil, e
	}
	limit := int(pageSize)
	if limit == 0 {
		limit = defaultPageSize
	}
	limit = min(limit, maxPageSize)
	out := &aiplatformpb.ListBatchPredictionJobsResponse{}
	jobs := s.batches.all()
	last := 0
	for _, j := range slices.Backward(jobs) {
		info := j.snapshot()
		if before > 0 && j.seq >= before || info.Location != m[2] || !sameProject(info.Project, m[1]) || !passes(&info) ||
			s.now().Sub(info.Created) < s.cfg.Batch.ListLag {
			continue
		}
		if len(out.BatchPredictionJobs) == limit {
			out.NextPageToken = pageTokenOf(last)
			break
		}
		out.BatchPredictionJobs = append(out.BatchPredictionJobs, j.proto())
		last = j.seq
	}
	return out, nil
}

// pageTokenOf marks where a page ended, so that jobs created meanwhile don't shift the next.
func pageTokenOf(seq int) string {
	return base64.RawURLEncoding.EncodeToString([]byte("before:" + strconv.Itoa(seq)))
}

func readPageToken(text string) (before int, e *apiError) {
	if text == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	number, ok := strings.CutPrefix(string(raw), "before:")
	if err == nil && ok {
		before, err = strconv.Atoi(number)
	}
	if err != nil || before <= 0 {
		return 0, invalid("Invalid page token.")
	}
	return before, nil
}

// cancelBatch asks a job to stop. What is done by then is kept.
func (s *Server) cancelBatch(name string) *apiError {
	j, e := s.findBatch(name)
	if e != nil {
		return e
	}
	if !j.stop(aiplatformpb.JobState_JOB_STATE_CANCELLED, s.now()) {
		return failedPrecondition("The batch prediction job is in a final state and cannot be cancelled: " + name)
	}
	return nil
}

// deleteBatch forgets a job that has ended. Its output stays.
func (s *Server) deleteBatch(name string) *apiError {
	j, e := s.findBatch(name)
	if e != nil {
		return e
	}
	if !j.isFinal() {
		return failedPrecondition("The batch prediction job has not ended and cannot be deleted: " + name)
	}
	s.batches.remove(j)
	return nil
}

// failedPrecondition shares its HTTP status with INVALID_ARGUMENT.
func failedPrecondition(message string) *apiError {
	e := statusError(http.StatusBadRequest)
	e.Status, e.Message = "FAILED_PRECONDITION", message
	return e
}
