package schemas_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// examples are the golden messages by file, each with the message that it is.
var examples = map[string]func() proto.Message{
	"job-minimal.json":    func() proto.Message { return &schemas.Job{} },
	"job-full.json":       func() proto.Message { return &schemas.Job{} },
	"result.json":         func() proto.Message { return &schemas.JobResult{} },
	"generation-row.json": func() proto.Message { return &schemas.GenerationRow{} },
	"attempt-row.json":    func() proto.Message { return &schemas.AttemptRow{} },
	"submission-row.json": func() proto.Message { return &schemas.SubmissionRow{} },
	"result-no-lane.json": func() proto.Message { return &schemas.JobResult{} },
	"batch-handoff.json":  func() proto.Message { return &schemas.BatchHandoff{} },
	"batch-row.json":      func() proto.Message { return &schemas.BatchRow{} },
}

func readExample(t *testing.T, name string) (text []byte, m proto.Message) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("examples", name))
	if err != nil {
		t.Fatal(err)
	}
	m = examples[name]()
	if err := schemas.Unmarshal(text, m); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return text, m
}

// canonical parses JSON so that only its content is compared: protojson varies its white space on purpose.
func canonical(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The examples are what assetmill itself would write, so that a producer who copies them is right in every detail.
func TestExamplesAreCanonical(t *testing.T) {
	t.Parallel()
	for name := range examples {
		text, m := readExample(t, name)
		again, err := schemas.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(canonical(t, again), canonical(t, text)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	entries, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if examples[e.Name()] == nil {
			t.Errorf("examples/%s is not tested", e.Name())
		}
	}
}

func TestExampleJobsAreValid(t *testing.T) {
	t.Parallel()
	for name, make := range examples {
		if _, isJob := make().(*schemas.Job); !isJob {
			continue
		}
		_, m := readExample(t, name)
		if _, err := jobs.DefaultCatalogue().Parse(m.(*schemas.Job)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The full job shows every field, and the other examples tell its story.
func TestExamplesAgree(t *testing.T) {
	t.Parallel()
	_, m := readExample(t, "job-full.json")
	job := m.(*schemas.Job)
	fields := job.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !job.ProtoReflect().Has(fields.Get(i)) {
			t.Errorf("job-full.json lacks %s", fields.Get(i).Name())
		}
	}
	_, m = readExample(t, "result.json")
	result := m.(*schemas.JobResult)
	_, m = readExample(t, "generation-row.json")
	row := m.(*schemas.GenerationRow)
	if result.GetJobId() != job.GetId() || row.GetJobId() != job.GetId() || row.GetAssetUri() != result.GetAssetUri() || row.GetCostUsd() != result.GetCostUsd() {
		t.Error("job, result and row are about different jobs")
	}
	if diff := cmp.Diff(job.GetSource(), result.GetSource()); diff != "" {
		t.Error(diff)
	}
	hash := sha256.Sum256([]byte(row.GetPrompt()))
	if row.GetPrompt() != job.GetPrompt() || row.GetPromptSha256() != hex.EncodeToString(hash[:]) {
		t.Error("the row's prompt or its hash is wrong")
	}
	if got := time.UnixMicro(row.GetFinishedAt()).UTC().Format(time.RFC3339Nano); got != result.GetFinishedAt() {
		t.Errorf("the row ended at %s, the result says %s", got, result.GetFinishedAt())
	}
	if got := time.UnixMicro(row.GetDeadline()).UTC().Format(time.RFC3339); got != job.GetDeadline() {
		t.Errorf("the row's deadline is %s, the job's %s", got, job.GetDeadline())
	}
	if jobs.Reason(row.GetReason()).Outcome() != jobs.Outcome(row.GetOutcome()) {
		t.Errorf("reason %s does not belong to outcome %s", row.GetReason(), row.GetOutcome())
	}
}

func TestUnmarshalNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"unknown field":   {`{"prompt": "x", "promt": "y"}`, "promt"},
		"twice":           {`{"prompt": "x", "prompt": "y"}`, "prompt"},
		"wrong type":      {`{"prompt": 7}`, "prompt"},
		"fraction":        {`{"prompt": "x", "variant": 1.5}`, "variant"},
		"seed too large":  {`{"prompt": "x", "seed": 2147483648}`, "seed"},
		"wrong in a map":  {`{"prompt": "x", "labels": {"a": 1}}`, "line 1:33"},
		"not an object":   {`["prompt"]`, "Job"},
		"not JSON":        {`prompt=x`, "Job"},
		"empty":           {``, "Job"},
		"two objects":     {`{"prompt": "x"} {"prompt": "y"}`, "Job"},
		"not UTF-8":       {"{\"prompt\": \"\xff\"}", "UTF-8"},
		"lone surrogates": {`{"prompt": "\ud800"}`, "Job"},
	} {
		err := schemas.Unmarshal([]byte(tc.text), &schemas.Job{})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v does not name %q", name, err, tc.want)
			continue
		}
		if strings.ContainsRune(err.Error(), '\u00a0') || strings.Contains(err.Error(), "proto:") {
			t.Errorf("%s: %q is not fit for people", name, err)
		}
	}
}

// Pub/Sub takes a definition with one top-level message and no imports.
func TestTopicSchemas(t *testing.T) {
	t.Parallel()
	for topic, m := range map[string]proto.Message{schemas.TopicJobs: &schemas.Job{}, schemas.TopicResults: &schemas.JobResult{}, schemas.TopicBatches: &schemas.BatchHandoff{}} {
		compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{"topic.proto": schemas.TopicSchema(topic)}),
		}}
		files, err := compiler.Compile(context.Background(), "topic.proto")
		if err != nil {
			t.Fatalf("%s: %v", topic, err)
		}
		file := files[0]
		if file.Messages().Len() != 1 || file.Imports().Len() != 0 || file.Enums().Len() != 0 || file.Extensions().Len() != 0 {
			t.Fatalf("%s: %d messages, %d imports", topic, file.Messages().Len(), file.Imports().Len())
		}
		if diff := cmp.Diff(shape(m.ProtoReflect().Descriptor()), shape(file.Messages().Get(0))); diff != "" {
			t.Errorf("%s: %s", topic, diff)
		}
	}
	if got := schemas.TopicSchema(schemas.TopicDead); got != "" {
		t.Errorf("the dead letter topic has a schema: %s", got)
	}
}

func shape(d protoreflect.MessageDescriptor) map[string]protoreflect.FieldNumber {
	fields := map[string]protoreflect.FieldNumber{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		fields[string(f.Name())+" "+f.Kind().String()+" "+f.Cardinality().String()] = f.Number()
	}
	return fields
}

// column is a column in BigQuery's JSON schema format.
type column struct {
	Name, Type, Mode, Description string
	Fields                        []column
}

// maxDescription is BigQuery's limit for a column's description, in characters.
const maxDescription = 1024

func TestTables(t *testing.T) {
	t.Parallel()
	var names []string
	for _, table := range schemas.Tables() {
		names = append(names, table.Name)
		var columns []column
		if err := json.Unmarshal(table.Schema, &columns); err != nil {
			t.Fatalf("%s: %v", table.Name, err)
		}
		checkDescriptions(t, table.Name, columns)
		byName := map[string]column{}
		for _, c := range columns {
			byName[c.Name] = c
		}
		if p := byName[table.PartitionBy]; p.Type != "TIMESTAMP" || p.Mode != "REQUIRED" {
			t.Errorf("%s is partitioned by %s, which is %s %s", table.Name, table.PartitionBy, p.Mode, p.Type)
		}
		if n := len(table.ClusterBy); n == 0 || n > 4 {
			t.Errorf("%s is clustered by %d columns", table.Name, n)
		}
		for _, c := range table.ClusterBy {
			if byName[c].Type != "STRING" || byName[c].Mode == "REPEATED" {
				t.Errorf("%s is clustered by %s, which is %s %s", table.Name, c, byName[c].Mode, byName[c].Type)
			}
		}
	}
	slices.Sort(names)
	if want := []string{schemas.TableAttempts, schemas.TableBatches, schemas.TableGenerations, schemas.TableSubmissions}; !slices.Equal(names, want) {
		t.Errorf("tables are %v, not %v", names, want)
	}
}

func checkDescriptions(t *testing.T, at string, columns []column) {
	t.Helper()
	for _, c := range columns {
		if c.Description == "" || len(c.Description) > maxDescription {
			t.Errorf("%s.%s has a description of %d bytes", at, c.Name, len(c.Description))
		}
		checkDescriptions(t, at+"."+c.Name, c.Fields)
	}
}

// Each view is described, and can be created in the order given: it reads tables and views before it only.
func TestViews(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, table := range schemas.Tables() {
		known[table.Name] = true
	}
	source := regexp.MustCompile("`my-project\\.lineage\\.([a-z_]+)`")
	for _, v := range schemas.Views("my-project", "lineage") {
		if v.Description == "" || strings.Contains(v.Description, "--") || strings.Contains(v.Description, "SELECT") {
			t.Errorf("%s is described as %q", v.Name, v.Description)
		}
		if strings.Contains(v.SQL, "${") || !strings.HasPrefix(v.SQL, "SELECT") {
			t.Errorf("%s is %s", v.Name, v.SQL)
		}
		sources := source.FindAllStringSubmatch(v.SQL, -1)
		if len(sources) == 0 {
			t.Errorf("%s reads nothing", v.Name)
		}
		for _, s := range sources {
			if !known[s[1]] {
				t.Errorf("%s reads %s, which does not exist before it", v.Name, s[1])
			}
		}
		if known[v.Name] {
			t.Errorf("%s exists twice", v.Name)
		}
		known[v.Name] = true
	}
	for _, name := range []string{"generations", "attempts", "submissions", "batches"} {
		if !known[name] {
			t.Errorf("there is no view %s", name)
		}
	}
}
