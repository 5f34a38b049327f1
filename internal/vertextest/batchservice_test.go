package vertextest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/internal/vertextest"
)

const (
	pending    = aiplatformpb.JobState_JOB_STATE_PENDING
	running    = aiplatformpb.JobState_JOB_STATE_RUNNING
	cancelled  = aiplatformpb.JobState_JOB_STATE_CANCELLED
	cancelling = aiplatformpb.JobState_JOB_STATE_CANCELLING
	expired    = aiplatformpb.JobState_JOB_STATE_EXPIRED
	failed     = aiplatformpb.JobState_JOB_STATE_FAILED
	succeeded  = aiplatformpb.JobState_JOB_STATE_SUCCEEDED
)

func (w *batchWorld) tryCreate(t *testing.T, job *aiplatformpb.BatchPredictionJob) error {
	t.Helper()
	_, err := w.jobs.CreateBatchPredictionJob(t.Context(), &aiplatformpb.CreateBatchPredictionJobRequest{Parent: batchParent, BatchPredictionJob: job})
	return err
}

func (w *batchWorld) cancel(t *testing.T, name string) error {
	t.Helper()
	return w.jobs.CancelBatchPredictionJob(t.Context(), &aiplatformpb.CancelBatchPredictionJobRequest{Name: name})
}

func (w *batchWorld) step(t *testing.T, name string, rows int) *aiplatformpb.BatchPredictionJob {
	t.Helper()
	if err := w.StepBatch(name, rows); err != nil {
		t.Fatal(err)
	}
	return w.get(t, name)
}

// list returns the display names that a filter finds.
func (w *batchWorld) list(t *testing.T, filter string, pageSize int32) []string {
	t.Helper()
	var out []string
	it := w.jobs.ListBatchPredictionJobs(t.Context(), &aiplatformpb.ListBatchPredictionJobsRequest{Parent: batchParent, Filter: filter, PageSize: pageSize})
	for {
		job, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		out = append(out, job.DisplayName)
	}
}

func TestBatchStates(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, Queued: time.Second}})
	w.input(prompts(4, "")...)
	job := w.create(t, batchRequest("x", nil))
	if job.State != aiplatformpb.JobState_JOB_STATE_QUEUED {
		t.Errorf("created %v", job.State)
	}
	for i, want := range []aiplatformpb.JobState{pending, running, running, succeeded} {
		got := w.step(t, job.Name, i) // rows count in RUNNING only
		if got.State != want || (got.StartTime != nil) != (want != pending) || (got.EndTime != nil) != (want == succeeded) {
			t.Errorf("step %d: %v, want %v", i, got, want)
		}
	}
}

func TestBatchRunsInTime(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{
		Queued: 30 * time.Millisecond, Pending: 30 * time.Millisecond, Running: 200 * time.Millisecond,
	}})
	w.input(prompts(10, "")...)
	job := w.finish(t, w.create(t, batchRequest("x", nil)).Name)
	created, started, ended := job.CreateTime.AsTime(), job.StartTime.AsTime(), job.EndTime.AsTime()
	if d := started.Sub(created); d < 60*time.Millisecond {
		t.Errorf("running after %v, want 60 ms", d)
	}
	if d := ended.Sub(started); d < 170*time.Millisecond { // the last of ten rows comes after nine tenths
		t.Errorf("ran for %v, want 180 ms", d)
	}
}

func TestBatchCancel(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true}})
	w.input(prompts(10, "")...)
	name := w.create(t, batchRequest("x", nil)).Name
	w.step(t, name, 0)
	w.step(t, name, 4)
	if err := w.cancel(t, name); err != nil {
		t.Fatal(err)
	}
	if err := w.cancel(t, name); err != nil && status.Code(err) != codes.FailedPrecondition {
		t.Error(err) // again, or too late
	}
	job := w.finish(t, name)
	if job.State != cancelled || job.Error == nil || job.CompletionStats.SuccessfulCount != 4 || job.CompletionStats.IncompleteCount != 6 {
		t.Errorf("%v", job)
	}
	rows, _ := w.rows(t)
	for _, r := range rows {
		checkRow(t, r)
	}
	if info := w.BatchJobs()[0]; len(rows) != 4 || info.Billed != 4 || job.OutputInfo.GetGcsOutputDirectory() == "" {
		t.Errorf("%d rows, %+v: completed rows are returned and charged", len(rows), info)
	}
	if err := w.cancel(t, name); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("cancelled a final job: %v", err)
	}
	// Before it ran: nothing is written.
	early := w.create(t, batchRequest("y", nil)).Name
	if err := w.cancel(t, early); err != nil {
		t.Fatal(err)
	}
	if job := w.finish(t, early); job.State != cancelled || job.OutputInfo != nil || job.StartTime != nil {
		t.Errorf("%v", job)
	}
}

func TestBatchCancelling(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Pending: time.Hour, Cancelling: time.Hour}})
	name := w.create(t, batchRequest("x", nil)).Name
	if err := w.cancel(t, name); err != nil {
		t.Fatal(err)
	}
	if job := w.get(t, name); job.State != cancelling || job.Error != nil {
		t.Errorf("%v", job)
	}
}

func TestBatchEnds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		batch vertextest.Batch
		state aiplatformpb.JobState
		rows  int
		error string
	}{
		"stuck":              {vertextest.Batch{PendingLimit: 20 * time.Millisecond, Faults: vertextest.BatchFaults{Stuck: 1}}, expired, 0, ""},
		"slow":               {vertextest.Batch{Pending: time.Hour, PendingLimit: 20 * time.Millisecond}, expired, 0, ""},
		"expires by time":    {vertextest.Batch{Running: 10 * time.Hour, RunningLimit: 50 * time.Millisecond}, expired, 1, ""},
		"expires after rows": {endsAfter(vertextest.EndExpired, 0.3), expired, 6, ""},
		"expires at once":    {endsAfter(vertextest.EndExpired, 0), expired, 0, ""},
		"fails":              {endsAfter(vertextest.EndFailed, 0.5), failed, 10, "fails as a whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startBatch(t, vertextest.Config{Batch: tc.batch})
			job, info := w.run(t, prompts(20, "")...)
			if job.State != tc.state || !strings.Contains(job.Error.GetMessage(), tc.error) || (job.Error != nil) != (tc.error != "") {
				t.Errorf("%v", job)
			}
			if len(w.lines()) != tc.rows || info.Billed != tc.rows || info.Successful != tc.rows || job.CompletionStats.GetSuccessfulCount() != int64(tc.rows) {
				t.Errorf("%d rows, %+v, want %d", len(w.lines()), info, tc.rows)
			}
		})
	}
}

func endsAfter(end vertextest.JobEnd, share float64) vertextest.Batch {
	return vertextest.Batch{JobHook: func(_ vertextest.BatchJob, f vertextest.JobFate) vertextest.JobFate {
		f.End, f.EndShare = end, share
		return f
	}}
}

func TestBatchStuckUntilCancelled(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, Faults: vertextest.BatchFaults{Stuck: 1}}})
	name := w.create(t, batchRequest("x", nil)).Name
	for range 3 {
		if job := w.step(t, name, 0); job.State != pending {
			t.Errorf("%v", job.State)
		}
	}
	if err := w.cancel(t, name); err != nil {
		t.Fatal(err)
	}
	if job := w.finish(t, name); job.State != cancelled {
		t.Errorf("%v", job)
	}
	other := w.create(t, batchRequest("y", nil)).Name
	if err := w.ExpireBatch(other); err != nil || w.get(t, other).State != expired {
		t.Errorf("%v, %v", err, w.get(t, other))
	}
}

func TestBatchResume(t *testing.T) {
	t.Parallel()
	for _, incomplete := range []bool{false, true} {
		w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, ExportIncomplete: incomplete}})
		w.input(append(prompts(9, ""), "Lighthouse 9 [[fault:429x1]]")...)
		first := w.create(t, batchRequest("first", nil)).Name
		w.step(t, first, 0)
		w.step(t, first, 6)
		if err := w.ExpireBatch(first); err != nil {
			t.Fatal(err)
		}
		info := w.BatchJobs()[0]
		rows := 6
		if incomplete {
			rows = 10
		}
		if n := len(w.lines()); n != rows || info.Successful+info.Failed != 6 {
			t.Fatalf("%d rows, want %d; %+v", n, rows, info)
		}
		resume := batchRequest("second", nil)
		resume.InputConfig.GetGcsSource().Uris = []string{info.Files[0]}
		resume.OutputConfig.GetGcsDestination().OutputUriPrefix = "gs://work/again/"
		second := w.create(t, resume).Name
		w.step(t, second, 0)
		job := w.step(t, second, 0)
		again := w.BatchJobs()[1]
		if job.State != succeeded || again.Rows != rows || again.Carried != info.Successful || again.Billed != rows-info.Successful || again.Successful != rows {
			t.Errorf("resumed: %v, %+v", job, again)
		}
		body, _ := w.b.get(again.Files[0])
		seen := map[string]bool{}
		for line := range strings.Lines(string(body)) {
			var r outputRow
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			checkRow(t, r)
			seen[r.prompt()] = true
		}
		if len(seen) != rows {
			t.Errorf("%d rows after the second job", len(seen))
		}
	}
}

func TestBatchCreateFaults(t *testing.T) {
	t.Parallel()
	fault := func(kind vertextest.CreateFault) vertextest.Config {
		return vertextest.Config{Batch: vertextest.Batch{JobHook: func(j vertextest.BatchJob, f vertextest.JobFate) vertextest.JobFate {
			if j.DisplayName == "faulty" {
				f.Create = kind
			}
			return f
		}}}
	}
	for kind, tc := range map[vertextest.CreateFault]struct {
		code codes.Code
		jobs int
	}{
		vertextest.CreateLost: {codes.Unavailable, 1}, vertextest.CreateUnavailable: {codes.Unavailable, 0}, vertextest.CreateThrottled: {codes.ResourceExhausted, 0},
	} {
		w := startBatch(t, fault(kind))
		w.input(prompts(2, "")...)
		if err := w.tryCreate(t, batchRequest("faulty", map[string]string{"batch": "b-1"})); status.Code(err) != tc.code {
			t.Errorf("%d: %v, want %v", kind, err, tc.code)
		}
		if got := w.list(t, "labels.batch=b-1", 0); len(got) != tc.jobs || len(w.BatchJobs()) != tc.jobs {
			t.Errorf("%d: list %v, want %d", kind, got, tc.jobs)
		}
		if tc.jobs == 1 {
			w.finish(t, w.BatchJobs()[0].Name) // it runs although nobody was told
		}
		w.create(t, batchRequest("good", nil))
	}
}

func TestBatchCreateHangs(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Faults: vertextest.BatchFaults{CreateHang: 1}}})
	w.input(prompts(2, "")...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := w.jobs.CreateBatchPredictionJob(ctx, &aiplatformpb.CreateBatchPredictionJobRequest{Parent: batchParent, BatchPredictionJob: batchRequest("x", nil)})
		done <- err
	}()
	poll(t, "the job", func() bool { return len(w.list(t, `display_name="x"`, 0)) == 1 })
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	w.finish(t, w.BatchJobs()[0].Name)
}

func TestBatchControlEndpoint(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true}})
	w.input(prompts(5, "")...)
	name := w.create(t, batchRequest("x", nil)).Name
	control := func(path, body string) vertextest.BatchJob {
		t.Helper()
		code, got := post(t, client(t, w.Server, "h1"), w.URL()+"/_vertextest/batches/"+path, body)
		var jobs []vertextest.BatchJob
		if err := json.Unmarshal(got, &jobs); err != nil || code != http.StatusOK || len(jobs) != 1 {
			t.Fatalf("%s: %d %s", path, code, got)
		}
		return jobs[0]
	}
	control("step", `{"name":"`+name+`"}`)
	if job := control("step", `{"name":"`+name+`","rows":2}`); job.Successful != 2 || job.State != "JOB_STATE_RUNNING" {
		t.Errorf("%+v", job)
	}
	if job := control("expire", `{"name":"`+name+`"}`); job.State != "JOB_STATE_EXPIRED" {
		t.Errorf("%+v", job)
	}
	if code, got := post(t, client(t, w.Server, "h1"), w.URL()+"/_vertextest/batches/step", `{"name":"x"}`); code != http.StatusBadRequest {
		t.Errorf("%d %s", code, got)
	}
}

func TestBatchCreateShares(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, Faults: vertextest.BatchFaults{CreateLost: 0.3, CreateThrottled: 0.3}}})
	got := map[codes.Code]int{}
	for i := range 100 {
		got[status.Code(w.tryCreate(t, batchRequest(fmt.Sprint("job ", i), nil)))]++
	}
	if got[codes.OK] < 20 || got[codes.Unavailable] < 15 || got[codes.ResourceExhausted] < 15 || len(w.BatchJobs()) != 100-got[codes.ResourceExhausted] {
		t.Errorf("%v, %d jobs", got, len(w.BatchJobs()))
	}
}

func TestBatchCreateChecks(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{})
	for name, tc := range map[string]struct {
		change func(*aiplatformpb.BatchPredictionJob)
		code   codes.Code
	}{
		"no name":    {func(j *aiplatformpb.BatchPredictionJob) { j.DisplayName = "" }, codes.InvalidArgument},
		"long name":  {func(j *aiplatformpb.BatchPredictionJob) { j.DisplayName = strings.Repeat("x", 129) }, codes.InvalidArgument},
		"model":      {func(j *aiplatformpb.BatchPredictionJob) { j.Model = "publishers/google/models/gemini-9" }, codes.NotFound},
		"bad model":  {func(j *aiplatformpb.BatchPredictionJob) { j.Model = pro }, codes.InvalidArgument},
		"elsewhere":  {func(j *aiplatformpb.BatchPredictionJob) { j.Model = "projects/p/locations/x/" + j.Model }, codes.InvalidArgument},
		"full model": {func(j *aiplatformpb.BatchPredictionJob) { j.Model = batchParent + "/" + j.Model }, codes.OK},
		"format":     {func(j *aiplatformpb.BatchPredictionJob) { j.InputConfig.InstancesFormat = "csv" }, codes.InvalidArgument},
		"two files": {func(j *aiplatformpb.BatchPredictionJob) {
			j.InputConfig.GetGcsSource().Uris = []string{"gs://a/b", "gs://a/c"}
		}, codes.InvalidArgument},
		"wildcard": {func(j *aiplatformpb.BatchPredictionJob) {
			j.InputConfig.GetGcsSource().Uris = []string{"gs://a/*.jsonl"}
		}, codes.InvalidArgument},
		"no output":   {func(j *aiplatformpb.BatchPredictionJob) { j.OutputConfig.GetGcsDestination().OutputUriPrefix = "out" }, codes.InvalidArgument},
		"label value": {func(j *aiplatformpb.BatchPredictionJob) { j.Labels = map[string]string{"k": "V"} }, codes.InvalidArgument},
		"BigQuery": {func(j *aiplatformpb.BatchPredictionJob) {
			j.InputConfig.Source = &aiplatformpb.BatchPredictionJob_InputConfig_BigquerySource{BigquerySource: &aiplatformpb.BigQuerySource{InputUri: "bq://p.d.t"}}
		}, codes.Unimplemented},
	} {
		job := batchRequest("x", nil)
		tc.change(job)
		if err := w.tryCreate(t, job); status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %v", name, err, tc.code)
		}
	}
	plain := start(t, vertextest.Config{})
	if status, body := post(t, client(t, plain, "h1"), plain.URL()+"/v1/"+batchParent+"/batchPredictionJobs", `{"displayName":"x"}`); status != http.StatusNotImplemented {
		t.Errorf("without storage: %d %s", status, body)
	}
}

func TestBatchList(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true}})
	for i := range 5 {
		w.create(t, batchRequest(fmt.Sprint("job_", i), map[string]string{"n": fmt.Sprint(i), "odd": fmt.Sprint(i % 2)}))
	}
	if err := w.ExpireBatch(w.BatchJobs()[2].Name); err != nil {
		t.Fatal(err)
	}
	middle := w.BatchJobs()[2].Created.Format(time.RFC3339Nano)
	for filter, want := range map[string]string{
		"":                                              "43210",
		`display_name="job_3"`:                          "3",
		`display_name!="job_3"`:                         "4210",
		`displayName=job_3`:                             "3",
		`display_name:"job_*"`:                          "43210",
		`display_name:"*_1"`:                            "1",
		`NOT display_name="job_3"`:                      "4210",
		`labels.n=3`:                                    "3",
		`labels.n="3"`:                                  "3",
		`labels.n:*`:                                    "43210",
		`labels.other:*`:                                "",
		`labels.odd=1 AND labels.n!=3`:                  "1",
		`labels.odd=1 labels.n=3`:                       "3",
		`labels.n=0 OR labels.n=4`:                      "40",
		`labels.odd=0 AND labels.n=0 OR n=1`:            "error",
		`labels.odd=0 labels.n=0 OR labels.n=1`:         "0", // OR binds more tightly
		`(labels.n=0 AND labels.odd=0) OR labels.n=1`:   "10",
		`state="JOB_STATE_EXPIRED"`:                     "2",
		`state!="JOB_STATE_EXPIRED" AND NOT labels.n=4`: "310",
		`create_time>="` + middle + `"`:                 "432",
		`create_time<"` + middle + `" AND state=JOB_STATE_PENDING`: "10",
		`model_display_name="x"`:                                   "",
		`bogus="x"`:                                                "error",
		`display_name`:                                             "error",
		`display_name>"x"`:                                         "error",
		`create_time>"yesterday"`:                                  "error",
		`(labels.n=1`:                                              "error",
		`labels.n=1)`:                                              "error",
		`labels.n="1`:                                              "error",
		`AND`:                                                      "error",
	} {
		if want == "error" {
			_, err := w.jobs.ListBatchPredictionJobs(t.Context(), &aiplatformpb.ListBatchPredictionJobsRequest{Parent: batchParent, Filter: filter}).Next()
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v", filter, err)
			}
			continue
		}
		for _, size := range []int32{0, 1, 2} {
			got := strings.ReplaceAll(strings.Join(w.list(t, filter, size), ""), "job_", "")
			if got != want {
				t.Errorf("%s in pages of %d: %s, want %s", filter, size, got, want)
			}
		}
	}
	// Pages don't shift when jobs are created meanwhile.
	it := w.jobs.ListBatchPredictionJobs(t.Context(), &aiplatformpb.ListBatchPredictionJobsRequest{Parent: batchParent, PageSize: 2})
	var names []string
	for range 5 {
		job, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, job.DisplayName)
		w.create(t, batchRequest("new", nil))
	}
	if want := []string{"job_4", "job_3", "job_2", "job_1", "job_0"}; !slices.Equal(names, want) {
		t.Errorf("pages %v, want %v", names, want)
	}
	for _, req := range []*aiplatformpb.ListBatchPredictionJobsRequest{{Parent: batchParent, PageToken: "x"}, {Parent: batchParent, PageSize: -1}, {Parent: "p"}} {
		if _, err := w.jobs.ListBatchPredictionJobs(t.Context(), req).Next(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
	if got := w.jobs.ListBatchPredictionJobs(t.Context(), &aiplatformpb.ListBatchPredictionJobsRequest{Parent: "projects/q/locations/global"}); got != nil {
		if job, err := got.Next(); !errors.Is(err, iterator.Done) {
			t.Errorf("another project's jobs: %v, %v", job, err)
		}
	}
}

func TestBatchListLags(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, ListLag: 50 * time.Millisecond}})
	created := w.create(t, batchRequest("x", nil))
	if got := w.list(t, "", 0); len(got) != 0 {
		t.Errorf("listed %v at once", got)
	}
	w.get(t, created.Name)
	poll(t, "the job in the list", func() bool { return len(w.list(t, "", 0)) == 1 })
}

func TestBatchNamesByIDAndNumber(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true}})
	name := w.create(t, batchRequest("x", nil)).Name
	_, id, _ := strings.Cut(name, "/locations/")
	if got := w.get(t, "projects/p/locations/"+id); got.Name != name {
		t.Errorf("%v", got)
	}
	for _, wrong := range []string{"projects/q/locations/" + id, strings.Replace(name, "global", "us-central1", 1), name + "1", "x"} {
		_, err := w.jobs.GetBatchPredictionJob(t.Context(), &aiplatformpb.GetBatchPredictionJobRequest{Name: wrong})
		if c := status.Code(err); c != codes.NotFound && (wrong != "x" || c != codes.InvalidArgument) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestBatchDelete(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true}})
	name := w.create(t, batchRequest("x", nil)).Name
	req := &aiplatformpb.DeleteBatchPredictionJobRequest{Name: name}
	if _, err := w.jobs.DeleteBatchPredictionJob(t.Context(), req); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("deleted a running job: %v", err)
	}
	if err := w.ExpireBatch(name); err != nil {
		t.Fatal(err)
	}
	op, err := w.jobs.DeleteBatchPredictionJob(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.jobs.DeleteBatchPredictionJob(t.Context(), req); status.Code(err) != codes.NotFound || len(w.BatchJobs()) != 0 {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestBatchQuotas(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Manual: true, CreatesPerMinute: 3, ReadsPerMinute: 5}})
	var err error
	n := 0
	for ; err == nil && n < 10; n++ {
		err = w.tryCreate(t, batchRequest("x", nil))
	}
	if n != 4 || status.Code(err) != codes.ResourceExhausted || len(w.BatchJobs()) != 3 {
		t.Errorf("creation %d: %v", n, err)
	}
	name := w.BatchJobs()[0].Name
	for n, err = 0, nil; err == nil && n < 10; n++ {
		_, err = w.jobs.GetBatchPredictionJob(t.Context(), &aiplatformpb.GetBatchPredictionJobRequest{Name: name})
	}
	if n != 6 || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("read %d: %v", n, err)
	}
}

func TestBatchOverREST(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{})
	w.input(prompts(3, "")...)
	c := client(t, w.Server, "h1")
	base := w.URL() + "/v1/" + batchParent + "/batchPredictionJobs"
	do := func(method, url, body string) (int, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		if err := json.Unmarshal(got, &out); err != nil {
			t.Fatalf("%s %s: %d %s", method, url, resp.StatusCode, got)
		}
		return resp.StatusCode, out
	}
	const create = `{"displayName":"spring","model":"publishers/google/models/gemini-3-pro-image","labels":{"batch":"b-1"},
		"inputConfig":{"instancesFormat":"jsonl","gcsSource":{"uris":["gs://work/in.jsonl"]}},
		"outputConfig":{"predictionsFormat":"jsonl","gcsDestination":{"outputUriPrefix":"gs://work/out/"}}}`
	code, job := do(http.MethodPost, base, create)
	name, _ := job["name"].(string)
	if code != http.StatusOK || job["state"] != "JOB_STATE_PENDING" || name == "" {
		t.Fatalf("%d %v", code, job)
	}
	poll(t, "the end of the job", func() bool {
		_, job = do(http.MethodGet, w.URL()+"/v1/"+name, "")
		return job["state"] == "JOB_STATE_SUCCEEDED"
	})
	if stats, ok := job["completionStats"].(map[string]any); !ok || stats["successfulCount"] != "3" {
		t.Errorf("%v", job)
	}
	if code, list := do(http.MethodGet, base+"?filter=labels.batch%3Db-1&pageSize=5", ""); code != http.StatusOK || len(list["batchPredictionJobs"].([]any)) != 1 {
		t.Errorf("%d %v", code, list)
	}
	for name, tc := range map[string]struct {
		method, url, body string
		code              int
	}{
		"unknown field": {http.MethodPost, base, `{"bogus":1}`, 400},
		"bad filter":    {http.MethodGet, base + "?filter=x", "", 400},
		"bad size":      {http.MethodGet, base + "?pageSize=x", "", 400},
		"cancel":        {http.MethodPost, w.URL() + "/v1/" + name + ":cancel", "", 400},
		"cancel all":    {http.MethodPost, base + ":cancel", "", 404},
		"no job":        {http.MethodGet, base + "/1", "", 404},
		"patch":         {http.MethodPatch, base + "/1", "", 404},
	} {
		if code, got := do(tc.method, tc.url, tc.body); code != tc.code {
			t.Errorf("%s: %d %v, want %d", name, code, got, tc.code)
		}
	}
	if code, got := do(http.MethodDelete, w.URL()+"/v1/"+name, ""); code != http.StatusOK || got["done"] != true {
		t.Errorf("delete: %d %v", code, got)
	}
}

func TestBatchStorageErrors(t *testing.T) {
	t.Parallel()
	for code, err := range map[codes.Code]error{
		codes.PermissionDenied: fs.ErrPermission, codes.NotFound: fs.ErrNotExist, codes.Internal: errors.New("disk full"),
	} {
		w := startBatch(t, vertextest.Config{})
		w.b.fail = fmt.Errorf("create: %w", err)
		job, info := w.run(t, prompts(3, "")...)
		if job.State != failed || codes.Code(job.Error.GetCode()) != code || info.Exported != 0 {
			t.Errorf("%v: %v", err, job)
		}
	}
}

// A server that closes in the middle of a job leaves no half file.
func TestBatchClose(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Running: time.Hour}})
	w.input(prompts(1000, "")...)
	name := w.create(t, batchRequest("x", nil)).Name
	poll(t, "the first row", func() bool { return w.get(t, name).GetCompletionStats().GetSuccessfulCount() > 0 })
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n := len(w.lines()); n != 0 {
		t.Errorf("%d lines", n)
	}
	if err := w.StepBatch(name, 1); err == nil {
		t.Error("a step of a closed server")
	}
}
