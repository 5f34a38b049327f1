package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// The tests of this file run the whole program against the local cloud, over real sockets. They share one cloud, whose start takes
// seconds, and so they don't run in parallel.

// shared is the local cloud of all tests.
var shared struct {
	cloud *localcloud.Cloud
	dir   string
}

func TestMain(m *testing.M) { os.Exit(withCloud(m)) }

func withCloud(m *testing.M) int {
	dir, err := os.MkdirTemp("", "assetmill-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cloud, err := localcloud.Start(context.Background(), localcloud.Config{Dir: dir, Vertex: vertextest.Config{
		MinLatency: time.Millisecond, MaxLatency: 20 * time.Millisecond,
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cloud.Close()
	for _, v := range cloud.Env() {
		os.Setenv(v.Name, v.Value) // the clients of Pub/Sub and Cloud Storage read theirs themselves
	}
	shared.cloud, shared.dir = cloud, dir
	return m.Run()
}

// output collects what a command prints, from any goroutine.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// assetmill runs one command line and returns what it printed and its exit code.
func assetmill(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, errs output
	code = run(ctx, args, streams{strings.NewReader(""), &out, &errs}, os.Getenv, nil)
	return out.String(), errs.String(), code
}

// startWorker runs a worker until the test ends and fails the test when it does not stop cleanly.
func startWorker(t *testing.T, args ...string) *output {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	log := &output{}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"worker", "--log-level", "debug"}, args...), streams{strings.NewReader(""), io.Discard, log}, os.Getenv, nil)
	}()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("the worker exited with %d:\n%s", code, log)
		}
	})
	return log
}

func csvFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "prompts.csv")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// query runs SQL through the program and returns the rows.
func query(t *testing.T, sql string) []map[string]any {
	t.Helper()
	out, errs, code := assetmill(t, "query", "--json", sql)
	if code != exitOK {
		t.Fatalf("query: exit %d: %s", code, errs)
	}
	var rows []map[string]any
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

// calls returns the call log's lines for a campaign.
func calls(t *testing.T, campaign string) (all []vertextest.CallRecord) {
	t.Helper()
	data, err := os.ReadFile(shared.cloud.CallLog())
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(data)); dec.More(); {
		var c vertextest.CallRecord
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		if c.Labels["campaign"] == campaign {
			all = append(all, c)
		}
	}
	return all
}

func storageClient(t *testing.T) *storage.Client {
	t.Helper()
	c, err := storage.NewClient(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func pubsubClient(t *testing.T) *pubsub.Client {
	t.Helper()
	c, err := pubsub.NewClient(t.Context(), localcloud.Project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func read(t *testing.T, c *storage.Client, uri string) ([]byte, *storage.ObjectAttrs) {
	t.Helper()
	name := strings.TrimPrefix(uri, "gs://"+localcloud.Bucket+"/")
	o := c.Bucket(localcloud.Bucket).Object(name)
	attrs, err := o.Attrs(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", uri, err)
	}
	r, err := o.NewReader(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", uri, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", uri, err)
	}
	return data, attrs
}

// status decodes what submit --watch --json and status --json print.
func status(t *testing.T, text string) Status {
	t.Helper()
	var s Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return s
}

// The books of one submission agree with each other: receipt, rows, objects and the model's own log; and every image is its own
// prompt's.
func TestFromCSVToImagesAndRows(t *testing.T) {
	c := storageClient(t)
	w := c.Bucket(localcloud.WorkBucket).Object("refs/fox.png").NewWriter(t.Context())
	w.Write([]byte("a reference"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	startWorker(t)
	file := csvFile(t, strings.Join([]string{
		"Prompt,Campaign,Size,Aspect Ratio,Variants,References,Seed,Label.team,SKU,Retention",
		"a red fox,e2e,1K,16:9,,,,web,A-1,30d",
		`"a hen, on a ""wall""` + "\nin the rain\",e2e,2K,,3,,7,,A-2,",
		"日本の猫 😺,e2e,,4:5,,,,,A-3,",
		"refuse me [[refuse:output]],e2e,,,,,,,A-4,",
		"blocked [[refuse:prompt]],e2e,,,,,,,A-5,",
		"words [[refuse:text]],e2e,,,,,,,A-6,",
		"new reason [[refuse:IMAGE_FUTURE_REASON]],e2e,,,,,,,A-7,",
		"nothing [[refuse:none]],e2e,,,,,,,A-8,",
		"odd json [[escape]],e2e,,,,,,,A-9,",
		"thinking [[thought]],e2e,,,,,,,A-10,",
		"no usage [[nousage]],e2e,,,,,,,A-11,",
		"throttled [[fault:429x1]],e2e,,,,,,,A-12,",
		"with a reference,e2e,,,,gs://assetmill-work/refs/fox.png,,,A-13,",
		"same,e2e,,,,,,,A-14,",
		"same,e2e,,,,,,,A-15,",
	}, "\n"))
	out, errs, code := assetmill(t, "submit", file, "--watch", "--json")
	if code != exitOK {
		t.Fatalf("exit %d\n%s\n%s", code, out, errs)
	}
	st := status(t, out)
	if st.Jobs != 17 || st.Ended != 17 || st.Published != 17 || !st.Complete || st.Outcomes["succeeded"] != 12 || st.Outcomes["refused"] != 5 {
		t.Errorf("status %+v", st)
	}
	reasons := map[string]int64{}
	for _, r := range st.Reasons {
		reasons[r.Reason] = r.Jobs
	}
	for reason, want := range map[string]int64{"image": 12, "output_filter": 2, "prompt_filter": 1, "model_declined": 1, "no_image": 1} {
		if reasons[reason] != want {
			t.Errorf("%d jobs ended for %s, want %d", reasons[reason], reason, want)
		}
	}

	rows := query(t, "SELECT * FROM generations WHERE submission = '"+st.Submission+"'")
	if len(rows) != 17 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		checkRow(t, c, row)
	}
	if got := calls(t, "e2e"); len(got) != 17 {
		t.Errorf("the model was called %d times for 17 jobs", len(got))
	}
	if twice := query(t, "SELECT * FROM paid_twice"); len(twice) != 0 {
		t.Errorf("paid twice: %v", twice)
	}

	// The same again: the same answer, and not a cent more.
	out, errs, code = assetmill(t, "submit", file, "--watch", "--json")
	if code != exitOK {
		t.Fatalf("again: exit %d\n%s", code, errs)
	}
	again := status(t, out)
	if again.Submission != st.Submission || again.Published != 0 || again.AlreadyDone != 17 || again.CostUSD != st.CostUSD {
		t.Errorf("again: %+v", again)
	}
	if got := calls(t, "e2e"); len(got) != 17 {
		t.Errorf("submitting again made %d calls", len(got)-17)
	}
}

// checkRow holds one generation row against the object that it describes.
func checkRow(t *testing.T, c *storage.Client, row map[string]any) {
	t.Helper()
	if row["outcome"] != "succeeded" {
		if row["asset_uri"] != nil {
			t.Errorf("%v has an asset although it was %v", row["prompt"], row["outcome"])
		}
		return
	}
	data, attrs := read(t, c, row["asset_uri"].(string))
	if hash, ok := vertextest.PromptHash(data); !ok || hash != row["prompt_sha256"] {
		t.Errorf("%v: the image was made for prompt %s", row["prompt"], hash)
	}
	if got := worker.EncodeCRC32C(attrs.CRC32C); got != row["asset_crc32c"] || float64(attrs.Size) != row["asset_bytes"] {
		t.Errorf("%v: object %s of %d bytes, row %v of %v", row["prompt"], got, attrs.Size, row["asset_crc32c"], row["asset_bytes"])
	}
	if attrs.Metadata["assetmill-job"] != row["job_id"] || attrs.Metadata["assetmill-prompt"] != row["prompt"] {
		t.Errorf("%v: metadata %v", row["prompt"], attrs.Metadata)
	}
	ratio, _ := row["aspect_ratio"].(string)
	if ratio == "" {
		ratio = "1:1" // with a reference: its own, which the stand-in takes for square
	}
	width, height, ok := vertextest.PixelSize(ratio, row["size"].(string))
	if !ok || float64(width) != row["asset_width"] || float64(height) != row["asset_height"] {
		t.Errorf("%v: %v x %v, want %d x %d", row["prompt"], row["asset_width"], row["asset_height"], width, height)
	}
	if row["source"] == nil || row["source_row"] == nil || row["cost_usd"] == nil {
		t.Errorf("%v: source %v, row %v, cost %v", row["prompt"], row["source"], row["source_row"], row["cost_usd"])
	}
}

func TestInvalidRowsExitWith3AndAFileToMend(t *testing.T) {
	file := csvFile(t, "prompt,size\ngood,1K\nbad,3K\n,1K\n")
	mend := filepath.Join(t.TempDir(), "mend.csv")
	_, errs, code := assetmill(t, "submit", file, "--errors", mend, "--campaign", "invalid")
	if code != exitInvalid || !strings.Contains(errs, "2 of 3 rows are invalid; nothing was published") || !strings.Contains(errs, `row 3, column size: "3K"`) {
		t.Errorf("exit %d: %s", code, errs)
	}
	data, err := os.ReadFile(mend)
	if err != nil || strings.Count(string(data), "\n") != 3 {
		t.Errorf("errors file: %q, %v", data, err)
	}
	if got := calls(t, "invalid"); len(got) != 0 {
		t.Errorf("%d calls", len(got))
	}
}

func TestWrongUseExitsWith2(t *testing.T) {
	file := csvFile(t, "prompt\nx\n")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"submit"}, "at least one CSV file"},
		{[]string{"submit", "no-such.csv"}, "no-such.csv"},
		{[]string{"submit", t.TempDir()}, "no regular file"},
		{[]string{"submit", file, "--size", "9K"}, "1K, 2K, 4K"},
		{[]string{"submit", file, "--campaign", "a/b"}, "try a-b"},
		{[]string{"submit", file, "--label", "x"}, "key=value"},
		{[]string{"submit", file, "--variants", "0"}, "1 to 100"},
		{[]string{"submit", file, "--mode", "sometimes"}, "online, batch, auto"},
		{[]string{"submit", file, "--colour", "red"}, "colour"},
		{[]string{"status"}, "id of a submission"},
		{[]string{"status", "../x"}, "no id"},
		{[]string{"worker", "--concurrency", "0"}, "1 to 3200"},
		{[]string{"worker", "--log-level", "loud"}, "debug, info"},
		{[]string{"frobnicate"}, "frobnicate"},
	} {
		if _, errs, code := assetmill(t, c.args...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d: %s; want 2 with %q", c.args, code, errs, c.want)
		}
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	t.Setenv("ASSETMILL_BUCKET", "")
	t.Setenv("ASSETMILL_PROJECT", "")
	_, errs, code := assetmill(t, "worker")
	if code != exitUsage || !strings.Contains(errs, "ASSETMILL_PROJECT, ASSETMILL_BUCKET") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestTheWorkerSaysWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"assets bucket": {"ASSETMILL_BUCKET", "nowhere", "bucket gs://nowhere does not exist"},
		"work bucket":   {"ASSETMILL_WORK_BUCKET", "nowhere", "bucket gs://nowhere does not exist"},
		"dataset":       {"ASSETMILL_DATASET", "nothing", "nothing"},
		"project":       {"ASSETMILL_PROJECT", "another", "subscription jobs-online does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			_, errs, code := assetmill(t, "worker")
			if code != exitFailure || !strings.Contains(errs, c.want) {
				t.Errorf("exit %d: %s; want 1 with %q", code, errs, c.want)
			}
		})
	}
}

func TestStatusOfNothing(t *testing.T) {
	_, errs, code := assetmill(t, "status", "s-nothing")
	if code != exitFailure || !strings.Contains(errs, "there is no submission s-nothing") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// A producer that is not ours publishes good and bad messages; each good one gets its object, its row and its event, each bad
// one its row, its event and its dead letter.
func TestMessagesOfOtherProducers(t *testing.T) {
	client := pubsubClient(t)
	events := subscribe(t, client, schemas.TopicResults)
	dead := subscribe(t, client, schemas.TopicDead)
	log := startWorker(t)

	topic := client.Publisher(schemas.TopicJobs)
	defer topic.Stop()
	big := `{"prompt":"` + strings.Repeat("x", 9<<20) + `"}`
	want := map[string]string{} // message id to reason
	for data, reason := range map[string]string{
		`{"id":"other-1","prompt":"a secret lighthouse","campaign":"other","source":{"order":"42"}}`: "image",
		`not json`:                        "invalid_message",
		`{"prompt":"x","color":"red"}`:    "invalid_message",
		`{"prompt":"x","model":"dall-e"}`: "invalid_job",
		`{"id":"other-2","prompt":"x","campaign":"other","references":["gs://assetmill-work/none.png"]}`: "reference_unavailable",
		big: "invalid_job",
	} {
		id, err := topic.Publish(t.Context(), &pubsub.Message{Data: []byte(data)}).Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want[id] = reason
	}
	got := map[string]*schemas.JobResult{}
	for len(got) < len(want) {
		r := &schemas.JobResult{}
		if err := schemas.Unmarshal(events.next(t).Data, r); err != nil {
			t.Fatal(err)
		}
		got[r.GetMessageId()] = r
	}
	for id, reason := range want {
		if got[id].GetReason() != reason {
			t.Errorf("message %s ended for %q (%s), want %s", id, got[id].GetReason(), got[id].GetDetail(), reason)
		}
		if rows := query(t, "SELECT reason FROM generations WHERE message_id = '"+id+"'"); len(rows) != 1 || rows[0]["reason"] != reason {
			t.Errorf("message %s has rows %v, want one with %s", id, rows, reason)
		}
	}
	for range 4 {
		m := dead.next(t)
		if reason := want[m.Attributes[schemas.AttributeMessageID]]; reason != m.Attributes[schemas.AttributeReason] || !strings.HasPrefix(reason, "invalid") {
			t.Errorf("dead letter with %v, want %s", m.Attributes, reason)
		}
	}
	testDeadLetters(t)
	for _, r := range got {
		if r.GetJobId() == "other-1" {
			data, _ := read(t, storageClient(t), r.GetAssetUri())
			if int64(len(data)) != r.GetAssetBytes() || r.GetSource()["order"] != "42" || http.DetectContentType(data) != "image/png" {
				t.Errorf("event %v", r)
			}
		}
	}
	if strings.Contains(log.String(), "lighthouse") {
		t.Error("the log holds a prompt")
	}
}

// testDeadLetters lists, replays and drops the four messages that were given up, while a worker is running.
func testDeadLetters(t *testing.T) {
	t.Helper()
	list := func(args ...string) []string {
		out, errs, code := assetmill(t, append([]string{"dead", "list", "--json"}, args...)...)
		if code != exitOK {
			t.Fatalf("dead list: exit %d: %s", code, errs)
		}
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	if all, some := list(), list("--reason", "invalid_job"); len(all) != 4 || len(some) != 2 {
		t.Errorf("%d dead letters, %d of them invalid jobs", len(all), len(some))
	}
	if _, errs, code := assetmill(t, "dead", "drop"); code != exitUsage || !strings.Contains(errs, "--all") {
		t.Errorf("drop of nothing in particular: exit %d: %s", code, errs)
	}
	// What is still wrong comes back, under the same message.
	if out, errs, code := assetmill(t, "dead", "replay", "--reason", "invalid_message"); code != exitOK || !strings.Contains(out, "Replayed 2") {
		t.Errorf("replay: exit %d: %s%s", code, out, errs)
	}
	if out, _, code := assetmill(t, "dead", "drop", "--reason", "invalid_job"); code != exitOK || !strings.Contains(out, "Dropped 2") {
		t.Errorf("drop: exit %d: %s", code, out)
	}
}

// Ids are shared by all submissions: what ended in one ends in the other, and an id that belongs to another job is a failure that is
// told, not waited for.
func TestIDsOfTwoSubmissions(t *testing.T) {
	startWorker(t)
	first := csvFile(t, "id,prompt,campaign\nshared-1,a,ids\nshared-2,b,ids\n")
	if _, errs, code := assetmill(t, "submit", first, "--watch"); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	second := csvFile(t, "id,prompt,campaign\nshared-1,a,ids\nshared-2,CHANGED,ids\n")
	for range 2 {
		out, errs, code := assetmill(t, "submit", second, "--watch", "--json")
		st := status(t, out)
		if code != exitFailure || st.Jobs != 2 || st.Outcomes["succeeded"] != 1 || st.Outcomes["failed"] != 1 || st.CostUSD != "0.000000000" {
			t.Errorf("exit %d: %+v\n%s", code, st, errs)
		}
	}
	if got := calls(t, "ids"); len(got) != 2 {
		t.Errorf("%d calls", len(got))
	}
}

func TestControlOfASubmission(t *testing.T) {
	file := csvFile(t, "prompt,campaign\na [[latency:1s]],control\nb,control\nc,control\n")
	out, errs, code := assetmill(t, "submit", file, "--json")
	if code != exitOK {
		t.Fatalf("submit: exit %d: %s", code, errs)
	}
	var receipt struct{ Submission string }
	if err := json.Unmarshal([]byte(out), &receipt); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := assetmill(t, "cancel", "s-nothing"); code != exitFailure || !strings.Contains(errs, "no submission") {
		t.Errorf("cancel of nothing: exit %d: %s", code, errs)
	}
	for _, verb := range []string{"pause", "resume", "cancel"} {
		if _, errs, code := assetmill(t, verb, receipt.Submission); code != exitOK {
			t.Fatalf("%s: exit %d: %s", verb, code, errs)
		}
	}
	startWorker(t)
	out, _, code = assetmill(t, "status", receipt.Submission, "--watch", "--json")
	if st := status(t, out); code != exitFailure || st.Outcomes["cancelled"] != 3 || st.Control != "cancel" {
		t.Errorf("exit %d: %+v", code, st)
	}
	if got := calls(t, "control"); len(got) != 0 {
		t.Errorf("%d calls for a cancelled submission", len(got))
	}
}

// inbox is a subscription of a test's own.
type inbox struct{ messages chan *pubsub.Message }

func (i inbox) next(t *testing.T) *pubsub.Message {
	t.Helper()
	select {
	case m := <-i.messages:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no message came")
		return nil
	}
}

// subscribe receives a topic's messages for the test.
func subscribe(t *testing.T, client *pubsub.Client, topic string) inbox {
	t.Helper()
	name := "test-" + topic + "-" + strings.ToLower(rand.Text()[:6])
	_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name:  "projects/" + localcloud.Project + "/subscriptions/" + name,
		Topic: "projects/" + localcloud.Project + "/topics/" + topic,
	})
	if err != nil {
		t.Fatal(err)
	}
	box := inbox{make(chan *pubsub.Message, 100)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- client.Subscriber(name).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			box.messages <- m
			m.Ack()
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("receive from %s: %v", name, err)
		}
	})
	return box
}
