package vertextest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/internal/vertextest"
)

const (
	batchParent = "projects/p/locations/global"
	inputURI    = "gs://work/in.jsonl"
)

// batchWorld is a server with its Cloud Storage and the client that a worker uses.
type batchWorld struct {
	*vertextest.Server
	b    *buckets
	log  *safeBuffer
	jobs *aiplatform.JobClient
}

func startBatch(t *testing.T, cfg vertextest.Config) *batchWorld {
	t.Helper()
	w := &batchWorld{b: &buckets{}, log: &safeBuffer{}}
	cfg.CreateObject, cfg.OpenObject, cfg.CallLog, cfg.PlainPictures = w.b.create, w.b.open, w.log, true
	cfg.Batch.SpoolDir = t.TempDir()
	w.Server = start(t, cfg)
	var err error
	w.jobs, err = aiplatform.NewJobClient(t.Context(), option.WithEndpoint(w.GRPCAddr()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.jobs.Close() })
	return w
}

// rowRequest is the request of row i, as our worker writes it.
func rowRequest(i int, prompt string) string {
	b, err := json.Marshal(prompt)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%s}]}],"labels":{"row_hi":"%d","row_lo":"%d"},"generationConfig":{"temperature":1.0,"imageConfig":{"aspectRatio":"1:1"}}}`, b, i/1000, i%1000)
}

// prompts returns n prompts, each followed by the same text.
func prompts(n int, suffix string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("Lighthouse %d %s", i, suffix)
	}
	return out
}

func (w *batchWorld) input(prompts ...string) {
	var buf bytes.Buffer
	for i, p := range prompts {
		fmt.Fprintf(&buf, "{\"request\":%s}\n", rowRequest(i, p))
	}
	w.b.put(inputURI, buf.Bytes())
}

// request is a job that reads the input and writes below gs://work/out.
func batchRequest(name string, labels map[string]string) *aiplatformpb.BatchPredictionJob {
	return &aiplatformpb.BatchPredictionJob{
		DisplayName: name, Model: "publishers/google/models/" + pro, Labels: labels,
		InputConfig: &aiplatformpb.BatchPredictionJob_InputConfig{
			InstancesFormat: "jsonl",
			Source:          &aiplatformpb.BatchPredictionJob_InputConfig_GcsSource{GcsSource: &aiplatformpb.GcsSource{Uris: []string{inputURI}}},
		},
		OutputConfig: &aiplatformpb.BatchPredictionJob_OutputConfig{
			PredictionsFormat: "jsonl",
			Destination: &aiplatformpb.BatchPredictionJob_OutputConfig_GcsDestination{
				GcsDestination: &aiplatformpb.GcsDestination{OutputUriPrefix: "gs://work/out"},
			},
		},
	}
}

func (w *batchWorld) create(t *testing.T, job *aiplatformpb.BatchPredictionJob) *aiplatformpb.BatchPredictionJob {
	t.Helper()
	out, err := w.jobs.CreateBatchPredictionJob(t.Context(), &aiplatformpb.CreateBatchPredictionJobRequest{Parent: batchParent, BatchPredictionJob: job})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *batchWorld) get(t *testing.T, name string) *aiplatformpb.BatchPredictionJob {
	t.Helper()
	out, err := w.jobs.GetBatchPredictionJob(t.Context(), &aiplatformpb.GetBatchPredictionJobRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// finish waits for the end of a job.
func (w *batchWorld) finish(t *testing.T, name string) *aiplatformpb.BatchPredictionJob {
	t.Helper()
	var job *aiplatformpb.BatchPredictionJob
	poll(t, "the end of the job", func() bool {
		job = w.get(t, name)
		return job.EndTime != nil
	})
	return job
}

// run takes one job over the prompts to its end.
func (w *batchWorld) run(t *testing.T, prompts ...string) (*aiplatformpb.BatchPredictionJob, vertextest.BatchJob) {
	t.Helper()
	w.input(prompts...)
	name := w.create(t, batchRequest("job", nil)).Name
	job := w.finish(t, name)
	infos := w.BatchJobs()
	return job, infos[len(infos)-1]
}

// outputRow is one line of an output.
type outputRow struct {
	Status        string
	ProcessedTime string `json:"processed_time"`
	Request       struct {
		Contents []struct {
			Parts []struct{ Text string }
		}
		Labels map[string]string
	}
	Response response
	line     string
}

func (r outputRow) prompt() string {
	if len(r.Request.Contents) == 0 {
		return ""
	}
	return r.Request.Contents[0].Parts[0].Text
}

// lines returns the lines of all output files.
func (w *batchWorld) lines() (out []string) {
	for _, uri := range w.b.names() {
		if !strings.HasPrefix(uri, "gs://work/out/") {
			continue
		}
		body, _ := w.b.get(uri)
		for line := range strings.Lines(string(body)) {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}

// rows returns the lines that are JSON, and how many are not.
func (w *batchWorld) rows(t *testing.T) (rows []outputRow, broken int) {
	t.Helper()
	for _, line := range w.lines() {
		r := outputRow{line: line}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			broken++
			continue
		}
		rows = append(rows, r)
	}
	return rows, broken
}

// checkRow wants the right picture and the labels of the row.
func checkRow(t *testing.T, r outputRow) {
	t.Helper()
	images := r.Response.images()
	if r.Status != "" || len(images) == 0 {
		t.Errorf("row %q: status %q and %d images", r.prompt(), r.Status, len(images))
		return
	}
	if hash, ok := vertextest.PromptHash(images[0]); !ok || hash != sum([]byte(r.prompt())) {
		t.Errorf("row %q has another row's picture", r.prompt())
	}
	var n int
	if _, err := fmt.Sscanf(r.prompt(), "Lighthouse %d", &n); err != nil || r.Request.Labels["row_lo"] != fmt.Sprint(n%1000) {
		t.Errorf("row %q has labels %v", r.prompt(), r.Request.Labels)
	}
}

func TestBatchJob(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{ImageBytes: 50_000})
	w.input(prompts(30, "")...)
	created := w.create(t, batchRequest("spring", map[string]string{"batch": "b-1"}))
	if created.State != aiplatformpb.JobState_JOB_STATE_PENDING || created.CreateTime == nil || created.DisplayName != "spring" || created.Labels["batch"] != "b-1" {
		t.Errorf("created %v", created)
	}
	if !strings.HasPrefix(created.Name, "projects/") || strings.HasPrefix(created.Name, "projects/p/") {
		t.Errorf("name %s: the service puts the project's number there", created.Name)
	}
	job := w.finish(t, created.Name)
	stats := job.CompletionStats
	if job.State != aiplatformpb.JobState_JOB_STATE_SUCCEEDED || stats.SuccessfulCount != 30 || stats.FailedCount != 0 || stats.IncompleteCount != 0 {
		t.Errorf("finished %v", job)
	}
	if job.StartTime == nil || job.UpdateTime == nil || job.Error != nil || len(job.PartialFailures) != 0 {
		t.Errorf("finished %v", job)
	}
	dir := job.OutputInfo.GetGcsOutputDirectory()
	if stamp, ok := strings.CutPrefix(dir, "gs://work/out/prediction-model-"); !ok {
		t.Errorf("output in %s", dir)
	} else if _, err := time.Parse(time.RFC3339, stamp); err != nil {
		t.Error(err)
	}
	info := w.BatchJobs()[0]
	if len(info.Files) != 1 || info.Files[0] != dir+"/predictions.jsonl" || info.State != "JOB_STATE_SUCCEEDED" ||
		info.Rows != 30 || info.Successful != 30 || info.Billed != 30 || info.Exported != 30 || info.OutputDir != dir {
		t.Errorf("%+v", info)
	}
	rows, broken := w.rows(t)
	if len(rows) != 30 || broken != 0 {
		t.Fatalf("%d rows, %d broken", len(rows), broken)
	}
	inOrder := true
	for i, r := range rows {
		checkRow(t, r)
		inOrder = inOrder && strings.HasPrefix(r.prompt(), fmt.Sprintf("Lighthouse %d ", i))
		if len(r.Response.images()[0]) != 50_000 {
			t.Errorf("image of %d bytes", len(r.Response.images()[0]))
		}
	}
	if inOrder {
		t.Error("the rows are in the order of the input: nobody promised that")
	}
	if !strings.HasPrefix(rows[0].line, `{"status":"","processed_time":"`) || !strings.Contains(rows[0].line, `"temperature":1.0`) {
		t.Errorf("row begins %.200s", rows[0].line)
	}
	checkBatchLog(t, w, info)
}

// checkBatchLog wants one line of the call log for each billed image.
func checkBatchLog(t *testing.T, w *batchWorld, info vertextest.BatchJob) {
	t.Helper()
	images := 0
	for _, rec := range w.log.records(t) {
		if rec.Tier != "batch" || rec.Method != "batch" || rec.Batch != info.Name {
			t.Errorf("call log %+v", rec)
		}
		if rec.Result == "image" {
			images++
		}
	}
	if images != info.Billed {
		t.Errorf("%d images in the call log, %d billed", images, info.Billed)
	}
}

func TestBatchIsDeterministic(t *testing.T) {
	t.Parallel()
	cfg := vertextest.Config{Seed: 3, Batch: vertextest.Batch{Faults: vertextest.BatchFaults{
		Throttled: 0.1, Missing: 0.1, Duplicated: 0.2, NoLabels: 0.2, Cut: 0.1,
	}}}
	prompt := func(w *batchWorld) (out []string) {
		w.run(t, prompts(100, "")...)
		rows, _ := w.rows(t)
		for _, r := range rows {
			out = append(out, r.prompt()+r.Status+fmt.Sprint(r.Request.Labels))
		}
		return out
	}
	first := prompt(startBatch(t, cfg))
	if again := prompt(startBatch(t, cfg)); !slices.Equal(first, again) {
		t.Error("the same seed has another output")
	}
	cfg.Seed++
	if other := prompt(startBatch(t, cfg)); slices.Equal(first, other) {
		t.Error("another seed has the same output")
	}
	if len(first) < 80 || len(first) > 125 {
		t.Errorf("%d rows", len(first))
	}
}

func TestBatchKeepsOrderWhenAsked(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{KeepOrder: true}})
	w.run(t, prompts(20, "")...)
	rows, _ := w.rows(t)
	for i, r := range rows {
		if !strings.HasPrefix(r.prompt(), fmt.Sprintf("Lighthouse %d ", i)) {
			t.Errorf("row %d is %q", i, r.prompt())
		}
	}
}

func TestBatchShards(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{ShardRows: 8, Manual: true}})
	w.input(prompts(20, "")...)
	name := w.create(t, batchRequest("job", nil)).Name
	step := func(rows int) *aiplatformpb.BatchPredictionJob {
		if err := w.StepBatch(name, rows); err != nil {
			t.Fatal(err)
		}
		return w.get(t, name)
	}
	running := step(0)
	if running.State != aiplatformpb.JobState_JOB_STATE_RUNNING || running.OutputInfo.GetGcsOutputDirectory() == "" || running.CompletionStats.IncompleteCount != 20 {
		t.Errorf("running %v", running)
	}
	for rows, visible := range map[int]int{7: 0} { // seven rows fill no shard
		step(rows)
		if n := len(w.lines()); n != visible {
			t.Errorf("%d rows visible, want %d", n, visible)
		}
	}
	if job := step(10); job.State != aiplatformpb.JobState_JOB_STATE_RUNNING || job.CompletionStats.SuccessfulCount != 17 || len(w.lines()) != 16 {
		t.Errorf("%v, %d lines; want 17 rows and two full shards", job, len(w.lines()))
	}
	if job := step(0); job.State != aiplatformpb.JobState_JOB_STATE_SUCCEEDED || len(w.lines()) != 20 || len(w.BatchJobs()[0].Files) != 3 {
		t.Errorf("%v, %d lines", job, len(w.lines()))
	}
	if err := w.StepBatch(name, 1); err != nil {
		t.Errorf("a step of a final job: %v", err)
	}
	if err := w.StepBatch("projects/p/locations/global/batchPredictionJobs/1", 1); err == nil {
		t.Error("a step of no job")
	}
}

// The one file of a running job may be replaced by a longer one.
func TestBatchFileGrows(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{GrowRows: 5, Manual: true}})
	w.input(prompts(13, "")...)
	name := w.create(t, batchRequest("job", nil)).Name
	w.step(t, name, 0)
	var before []string
	for i, want := range []int{0, 5, 10, 13} {
		w.step(t, name, 4)
		lines := w.lines()
		if len(lines) != want || !slices.Equal(lines[:len(before)], before) {
			t.Errorf("step %d: %d lines, want %d that begin as before", i, len(lines), want)
		}
		before = lines
	}
	if info := w.BatchJobs()[0]; len(info.Files) != 1 || info.State != "JOB_STATE_SUCCEEDED" {
		t.Errorf("%+v", info)
	}
}

func TestBatchRowFaults(t *testing.T) {
	t.Parallel()
	for directive, check := range map[string]func(t *testing.T, rows []outputRow, broken int, info vertextest.BatchJob){
		"[[fault:400]]":  failedRow("Bad Request: ", 400, "INVALID_ARGUMENT"),
		"[[fault:429]]":  failedRow("Too Many Requests: ", 429, "RESOURCE_EXHAUSTED"),
		"[[fault:500]]":  failedRow("Internal Server Error: ", 500, "INTERNAL"),
		"[[fault:hang]]": missingRow(0),
		"[[fault:lost]]": missingRow(1),
		"[[batch:lost]]": missingRow(1),
		"[[batch:cut]]": func(t *testing.T, rows []outputRow, broken int, info vertextest.BatchJob) {
			if len(rows) != 1 || broken != 1 || info.Damaged != 1 || info.Billed != 2 || info.Successful != 2 {
				t.Errorf("%d rows, %d broken, %+v", len(rows), broken, info)
			}
		},
		"[[batch:garbage]]": func(t *testing.T, rows []outputRow, broken int, info vertextest.BatchJob) {
			if len(rows) != 1 || broken != 1 || info.Damaged != 1 || info.Billed != 2 {
				t.Errorf("%d rows, %d broken, %+v", len(rows), broken, info)
			}
		},
		"[[batch:base64]]": func(t *testing.T, rows []outputRow, broken int, info vertextest.BatchJob) {
			// The test's decoder decodes base64 with the JSON.
			if len(rows) != 1 || broken != 1 || info.Damaged != 1 || info.Billed != 2 {
				t.Errorf("%d rows, %d broken, %+v", len(rows), broken, info)
			}
		},
		"[[refuse:output]]": refusedRow(func(r response) bool { return r.Candidates[0].FinishReason == "IMAGE_SAFETY" }),
		"[[refuse:prompt]]": refusedRow(func(r response) bool { return r.PromptFeedback.BlockReason == "PROHIBITED_CONTENT" }),
		"[[refuse:text]]":   refusedRow(func(r response) bool { return r.Candidates[0].Content.Parts[0].Text != "" }),
	} {
		t.Run(directive, func(t *testing.T) {
			t.Parallel()
			w := startBatch(t, vertextest.Config{})
			_, info := w.run(t, "Lighthouse 0", "Lighthouse 1 "+directive)
			rows, broken := w.rows(t)
			rows = slices.DeleteFunc(rows, func(r outputRow) bool { return r.prompt() == "Lighthouse 0" && r.Response.images() == nil })
			slices.SortFunc(rows, func(a, b outputRow) int { return strings.Compare(a.prompt(), b.prompt()) })
			if len(rows) == 0 || rows[0].prompt() != "Lighthouse 0" {
				t.Fatalf("the other row suffers: %+v", rows)
			}
			checkRow(t, rows[0])
			check(t, rows, broken, info)
			checkBatchLog(t, w, info)
		})
	}
}

func failedRow(prefix string, code int, status string) func(*testing.T, []outputRow, int, vertextest.BatchJob) {
	return func(t *testing.T, rows []outputRow, _ int, info vertextest.BatchJob) {
		if len(rows) != 2 || info.Failed != 1 || info.Successful != 1 || info.Billed != 1 || info.State != "JOB_STATE_SUCCEEDED" {
			t.Fatalf("%d rows, %+v", len(rows), info)
		}
		text, ok := strings.CutPrefix(rows[1].Status, prefix)
		var e struct {
			Error struct {
				Code            int
				Message, Status string
			}
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil || !ok || e.Error.Code != code || e.Error.Status != status || e.Error.Message == "" {
			t.Errorf("status %q, want %q and %d %s", rows[1].Status, prefix, code, status)
		}
		if !strings.HasSuffix(rows[1].line, `"response":{}}`) {
			t.Errorf("row %s", rows[1].line)
		}
	}
}

func missingRow(billed int) func(*testing.T, []outputRow, int, vertextest.BatchJob) {
	return func(t *testing.T, rows []outputRow, _ int, info vertextest.BatchJob) {
		state := "JOB_STATE_SUCCEEDED"
		if billed == 0 {
			state = "JOB_STATE_PARTIALLY_SUCCEEDED"
		}
		if len(rows) != 1 || info.Missing != 1-billed || info.Lost != billed || info.Billed != 1+billed || info.State != state || info.Incomplete != 1-billed {
			t.Errorf("%d rows, %+v", len(rows), info)
		}
	}
}

func refusedRow(check func(response) bool) func(*testing.T, []outputRow, int, vertextest.BatchJob) {
	return func(t *testing.T, rows []outputRow, _ int, info vertextest.BatchJob) {
		if len(rows) != 2 || rows[1].Status != "" || len(rows[1].Response.images()) != 0 || !check(rows[1].Response) || info.Billed != 1 || info.Successful != 2 {
			t.Errorf("%+v, %+v", rows[1], info)
		}
	}
}

func TestBatchRowForms(t *testing.T) {
	t.Parallel()
	for directive, check := range map[string]func(r outputRow) bool{
		"[[batch:nolabels]]": func(r outputRow) bool {
			return r.Request.Labels == nil && !strings.Contains(r.line, `"labels"`)
		},
		"[[batch:nulls]]":    func(r outputRow) bool { return strings.Contains(r.line, `"systemInstruction":null`) },
		"[[batch:reversed]]": func(r outputRow) bool { return strings.HasPrefix(r.line, `{"response":{`) },
		"[[escape]]":         func(r outputRow) bool { return strings.Contains(r.line, `\/`) && strings.Contains(r.line, `\u00`) },
		"[[two]]":            func(r outputRow) bool { return len(r.Response.images()) == 2 },
		"[[text]]":           func(r outputRow) bool { return r.Response.Candidates[0].Content.Parts[0].Text != "" },
		"[[thought]]":        func(r outputRow) bool { return r.Response.Candidates[0].Content.Parts[0].Thought },
		"[[nousage]]":        func(r outputRow) bool { return r.Response.UsageMetadata == nil },
		"[[bytes:70000]]":    func(r outputRow) bool { return len(r.Response.images()[0]) == 70_000 },
	} {
		t.Run(directive, func(t *testing.T) {
			t.Parallel()
			w := startBatch(t, vertextest.Config{})
			w.run(t, "Lighthouse 0 "+directive)
			rows, broken := w.rows(t)
			if len(rows) != 1 || broken != 0 || !check(rows[0]) {
				t.Fatalf("%d rows, %d broken: %.400s", len(rows), broken, w.lines())
			}
			if rows[0].Request.Labels != nil {
				checkRow(t, rows[0])
			}
			if rows[0].prompt() != "Lighthouse 0 "+directive {
				t.Errorf("echo %+v", rows[0].Request)
			}
		})
	}
}

func TestBatchDuplicatesAndOrphans(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{VaryRepeats: true})
	_, info := w.run(t, append(prompts(20, ""), "Lighthouse 20 [[batch:copies:19]]", "Lighthouse 21 [[batch:orphan]]", "Lighthouse 22 [[batch:copies:500]]")...)
	rows, _ := w.rows(t)
	count := map[string]int{}
	images := map[string]bool{}
	for _, r := range rows {
		count[strings.Fields(r.prompt())[1]]++
		images[sum(r.Response.images()[0])] = true
		if r.Request.Labels != nil {
			checkRow(t, r)
		}
	}
	if count["20"] != 20 || count["22"] != 20 || count["1"] != 1 || count["asked"] != 1 || len(rows) != 62 {
		t.Errorf("%d rows: %v", len(rows), count)
	}
	if len(images) != 62 {
		t.Errorf("%d different images of 62: duplicates are answers of their own", len(images))
	}
	if info.Duplicates != 38 || info.Orphans != 1 || info.Billed != 62 || info.Successful != 23 || info.Exported != 62 || info.Incomplete != 0 {
		t.Errorf("%+v", info)
	}
	checkBatchLog(t, w, info)
	at := slices.IndexFunc(rows, func(r outputRow) bool { return strings.Fields(r.prompt())[1] == "20" })
	if next := rows[at+1 : at+20]; !slices.ContainsFunc(next, func(r outputRow) bool { return strings.Fields(r.prompt())[1] != "20" }) && at < 20 {
		t.Error("the duplicates follow each other")
	}
}

func TestBatchShares(t *testing.T) {
	t.Parallel()
	const n = 1000
	faults := vertextest.BatchFaults{
		BadRequest: 0.05, Throttled: 0.05, Internal: 0.05, Missing: 0.05, Lost: 0.05, Cut: 0.05, Garbage: 0.05,
		Duplicated: 0.1, MaxCopies: 19, Orphans: 0.05, NoLabels: 0.1, Nulls: 0.1, ResponseFirst: 0.1, TwoImages: 0.1, Escaped: 0.1,
	}
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{Faults: faults}, Refusals: vertextest.Refusals{Output: 0.1}})
	_, info := w.run(t, prompts(n, "")...)
	near := func(what string, got int, share float64) {
		if want := share * n; float64(got) < want*0.5 || float64(got) > want*1.5 {
			t.Errorf("%d %s, want about %.0f", got, what, want)
		}
	}
	near("failed", info.Failed, 0.15)
	near("missing", info.Missing, 0.05)
	near("lost", info.Lost, 0.05)
	near("damaged", info.Damaged, 0.1*1.3)
	near("orphans", info.Orphans, 0.05)
	near("duplicates", info.Duplicates, 0.1*4)
	rows, broken := w.rows(t)
	if len(rows)+broken != info.Exported || broken != info.Damaged {
		t.Errorf("%d rows and %d broken; %+v", len(rows), broken, info)
	}
	if info.Successful+info.Failed+info.Incomplete != n || info.Incomplete != info.Missing {
		t.Errorf("the counts don't add up: %+v", info)
	}
	labels, nulls, first, refused := 0, 0, 0, 0
	for _, r := range rows {
		if r.Request.Labels == nil {
			labels++
		}
		if strings.Contains(r.line, ":null") {
			nulls++
		}
		if strings.HasPrefix(r.line, `{"response"`) {
			first++
		}
		if r.Status == "" && len(r.Response.images()) == 0 {
			refused++
		}
	}
	near("without labels", labels, 0.17)
	near("with nulls", nulls, 0.12)
	near("response first", first, 0.12)
	near("refused", refused, 0.1)
	checkBatchLog(t, w, info)
}

func TestBatchHooks(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{Batch: vertextest.Batch{
		HideGaps: true,
		RowHook: func(c *vertextest.Call, f vertextest.RowFate) vertextest.RowFate {
			if c.Method != "batch" || c.Tier != vertextest.TierBatch || c.Labels["row_hi"] == "" {
				t.Errorf("%+v", c)
			}
			f.Missing = c.Labels["row_lo"] == "3"
			if c.Labels["row_lo"] == "4" {
				f.FailStatus = 1
			}
			return f
		},
		JobHook: func(j vertextest.BatchJob, f vertextest.JobFate) vertextest.JobFate {
			if j.Labels["batch"] == "b-2" {
				f.End, f.EndShare = vertextest.EndFailed, 2
			}
			return f
		},
	}})
	job, info := w.run(t, prompts(10, "")...)
	if job.State != aiplatformpb.JobState_JOB_STATE_SUCCEEDED || job.CompletionStats.SuccessfulCount != 9 || info.Missing != 1 || len(w.lines()) != 9 || info.Failed != 1 {
		t.Errorf("%v, %+v", job, info)
	}
	failed := w.finish(t, w.create(t, batchRequest("x", map[string]string{"batch": "b-2"})).Name)
	if failed.State != aiplatformpb.JobState_JOB_STATE_FAILED || failed.Error == nil || failed.CompletionStats.IncompleteCount != 10 {
		t.Errorf("%v", failed)
	}
}

func TestBatchChecksRows(t *testing.T) {
	t.Parallel()
	size := func(s string) string {
		return fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":"Lighthouse 1"}]}],"generationConfig":{"imageConfig":{"imageSize":"%s"}}}`, s)
	}
	for name, tc := range map[string]struct {
		request, want string // empty: accepted
		cfg           vertextest.Batch
		size          int // width of the image
	}{
		"1K":          {request: size("1K"), size: 1024},
		"2K":          {request: size("2K"), want: "is not supported by model gemini-3-pro-image in batch prediction"},
		"2K silently": {request: size("2K"), cfg: vertextest.Batch{SilentSize: true}, size: 1024},
		"no contents": {request: `{}`, want: "contents"},
		"unknown":     {request: `{"contents":[],"bogus":1}`, want: "Unknown name"},
		"bad role":    {request: turns("", turn("model", text("x"))), want: "start with a user role"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startBatch(t, vertextest.Config{Batch: tc.cfg})
			w.b.put(inputURI, []byte(`{"request":`+tc.request+"}\n\n{\"request\":"+rowRequest(0, "Lighthouse 0")+"}"))
			job := w.finish(t, w.create(t, batchRequest("x", nil)).Name)
			if job.State != aiplatformpb.JobState_JOB_STATE_SUCCEEDED {
				t.Fatal(job)
			}
			rows, _ := w.rows(t)
			at := slices.IndexFunc(rows, func(r outputRow) bool { return r.prompt() != "Lighthouse 0" })
			switch {
			case len(rows) != 2 || at < 0:
				t.Fatalf("rows %+v", rows)
			case tc.want == "":
				checkPicture(t, rows[at].Response.images()[0], "image/png", tc.size, tc.size)
			case !strings.Contains(rows[at].Status, tc.want) || !strings.HasPrefix(rows[at].Status, "Bad Request: "):
				t.Errorf("status %q, want %q", rows[at].Status, tc.want)
			case len(job.PartialFailures) != 1 || job.PartialFailures[0].Code != 3:
				t.Errorf("partial failures %v", job.PartialFailures)
			}
		})
	}
}

func TestBatchPartialFailuresAreBounded(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{})
	job, _ := w.run(t, prompts(50, "[[fault:500]]")...)
	if len(job.PartialFailures) != 20 || job.CompletionStats.FailedCount != 50 {
		t.Errorf("%d partial failures, %v", len(job.PartialFailures), job.CompletionStats)
	}
}

func TestBatchRefusesInputs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		input, want string
	}{
		"no file":     {"", "not found"},
		"empty":       {"\n\n", "no requests"},
		"not JSON":    {`{"request":{}}` + "\n{\n", "line 2"},
		"no request":  {`{"contents":[]}`, `no field "request"`},
		"too many":    {strings.Repeat(`{"request":{}}`+"\n", 200_001), "200000 requests"},
		"wrong types": {`{"request":"x"}`, "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startBatch(t, vertextest.Config{})
			if tc.input != "" {
				w.b.put(inputURI, []byte(tc.input))
			}
			job := w.finish(t, w.create(t, batchRequest("x", nil)).Name)
			if job.State != aiplatformpb.JobState_JOB_STATE_FAILED || !strings.Contains(job.Error.GetMessage(), tc.want) || job.OutputInfo != nil || len(w.lines()) != 0 {
				t.Errorf("%v, want %q", job, tc.want)
			}
		})
	}
}

func TestBatchLabelsSurvive(t *testing.T) {
	t.Parallel()
	w := startBatch(t, vertextest.Config{})
	_, info := w.run(t, prompts(3, "")...)
	for _, rec := range w.log.records(t) {
		if !maps.Equal(rec.Labels, map[string]string{"row_hi": "0", "row_lo": rec.Labels["row_lo"]}) {
			t.Errorf("call log %+v of %s", rec, info.Name)
		}
	}
}
