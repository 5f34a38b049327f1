package localcloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/localbq"
	"github.com/assetmill/assetmill/schemas"
)

func start(t *testing.T, cfg Config) *Cloud {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// sourced returns the environment of a shell that has read the env file.
func sourced(t *testing.T, file string) map[string]string {
	t.Helper()
	cmd := exec.Command("sh", "-c", `. "$0" && env -0`, file)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

func storageClient(t *testing.T, url string) *storage.Client {
	t.Helper()
	client, err := storage.NewClient(t.Context(), option.WithEndpoint(url+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func bigqueryClient(t *testing.T, url string) *bigquery.Client {
	t.Helper()
	client, err := bigquery.NewClient(t.Context(), Project, localbq.RESTOptions(url)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func count(t *testing.T, client *bigquery.Client, sql string) int64 {
	t.Helper()
	it, err := client.Query(sql).Read(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var row []bigquery.Value
	if err := it.Next(&row); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return row[0].(int64)
}

func TestStartCreatesEverything(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a folder's name")
	c := start(t, Config{Dir: dir})
	env := sourced(t, c.EnvFile())

	for name, want := range map[string]string{
		"ASSETMILL_PROJECT": "assetmill-local", "ASSETMILL_BUCKET": "assetmill-assets",
		"ASSETMILL_WORK_BUCKET": "assetmill-work", "ASSETMILL_DATASET": "assetmill",
	} {
		if env[name] != want {
			t.Errorf("%s = %q, want %q", name, env[name], want)
		}
	}
	for _, name := range []string{"BIGQUERY_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "VERTEX_EMULATOR_HOST"} {
		if !strings.HasPrefix(env[name], "http://127.0.0.1:") {
			t.Errorf("%s = %q is no URL on the loopback interface", name, env[name])
		}
	}
	for _, name := range []string{"PUBSUB_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST", "VERTEX_GRPC_EMULATOR_HOST"} {
		if !strings.HasPrefix(env[name], "127.0.0.1:") {
			t.Errorf("%s = %q is no host:port on the loopback interface", name, env[name])
		}
	}
	checkTables(t, env["BIGQUERY_EMULATOR_HOST"])
	checkBuckets(t, env["STORAGE_EMULATOR_HOST"])
	checkSubscriptions(t, env["PUBSUB_EMULATOR_HOST"])
	resp, err := http.Get(env["VERTEX_EMULATOR_HOST"] + "/")
	if err != nil {
		t.Fatalf("Vertex does not answer: %v", err)
	}
	resp.Body.Close()

	checkSecondStart(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.EnvFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the env file is there after Close: %v", err)
	}
}

func checkTables(t *testing.T, url string) {
	t.Helper()
	var got []string
	for it := bigqueryClient(t, url).Dataset(Dataset).Tables(t.Context()); ; {
		table, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, table.TableID)
	}
	var want []string
	for _, table := range schemas.Tables() {
		want = append(want, table.Name)
	}
	for _, view := range schemas.Views(Project, Dataset) {
		want = append(want, view.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tables and views (-want +got):\n%s", diff)
	}
}

func checkBuckets(t *testing.T, url string) {
	t.Helper()
	client := storageClient(t, url)
	for _, name := range []string{Bucket, WorkBucket} {
		if _, err := client.Bucket(name).Attrs(t.Context()); err != nil {
			t.Errorf("bucket %s: %v", name, err)
		}
	}
}

func checkSecondStart(t *testing.T, running *Cloud) {
	t.Helper()
	_, err := Start(t.Context(), Config{Dir: running.dir})
	if !errors.Is(err, ErrRunning) {
		t.Fatalf("second start: %v, want ErrRunning", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second start: %q does not name the process", err)
	}
	if _, err := os.Stat(running.EnvFile()); err != nil {
		t.Errorf("the refused start took the env file away: %v", err)
	}
}

func TestRestartKeepsObjectsAndRows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := start(t, Config{Dir: dir})
	env := sourced(t, c.EnvFile())
	object := func(url string) *storage.ObjectHandle {
		return storageClient(t, url).Bucket(Bucket).Object("keep/spring/job-1.png")
	}
	write(t, object(env["STORAGE_EMULATOR_HOST"]), "image", nil)
	insert := "INSERT INTO assetmill.generations_raw (job_id, outcome, reason, finished_at) VALUES ('job-1', 'succeeded', 'image', TIMESTAMP '2026-11-23 10:00:00 UTC')"
	if _, err := bigqueryClient(t, env["BIGQUERY_EMULATOR_HOST"]).Query(insert).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	env = sourced(t, start(t, Config{Dir: dir}).EnvFile())
	if got := read(t, object(env["STORAGE_EMULATOR_HOST"])); got != "image" {
		t.Errorf("object after restart: %q", got)
	}
	if n := count(t, bigqueryClient(t, env["BIGQUERY_EMULATOR_HOST"]), "SELECT COUNT(*) FROM assetmill.generations WHERE job_id = 'job-1'"); n != 1 {
		t.Errorf("rows after restart: %d, want 1", n)
	}
}

func TestTakenPortsAreReplaced(t *testing.T) {
	t.Parallel()
	first, err := DefaultPorts.listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	var taken int
	if _, err := fmt.Sscanf(first.Addr().String(), "127.0.0.1:%d", &taken); err != nil {
		t.Fatal(err)
	}
	second, err := Ports{}.listen(t.Context(), taken)
	if err != nil {
		t.Fatalf("a taken port is an error: %v", err)
	}
	defer second.Close()
	if first.Addr().String() == second.Addr().String() {
		t.Error("both listen on one port")
	}
	if got := (Ports{}).address(taken); got != "127.0.0.1:0" {
		t.Errorf("address of a taken port is %s", got)
	}
}

func TestFailedStartGivesTheDirectoryFree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(gone, Config{Dir: dir}); err == nil {
		t.Fatal("started with a cancelled context")
	}
	if _, err := os.Stat(filepath.Join(dir, envFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the env file is there: %v", err)
	}
	lock, err := acquire(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatalf("still locked: %v", err)
	}
	lock.Close()
}

func TestQuoteSurvivesTheShell(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env")
	values := []string{"", "plain", "with space", "it's", "$HOME `x` \"y\" \\", "a\nb", "ü", "~/x"}
	var env []Variable
	for i, v := range values {
		env = append(env, Variable{fmt.Sprintf("V%d", i), v})
	}
	if err := writeEnv(file, env); err != nil {
		t.Fatal(err)
	}
	got := sourced(t, file)
	for _, v := range env {
		if got[v.Name] != v.Value {
			t.Errorf("%q arrives as %q", v.Value, got[v.Name])
		}
	}
}

func TestPubSubEmulator(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, host, own, want string
	}{
		{name: "none"},
		{name: "somebody's", host: "localhost:8085", want: "localhost:8085"},
		{name: "ours, of an earlier start", host: "127.0.0.1:8085", own: "127.0.0.1:8085"},
		{name: "somebody's, chosen after an earlier start of ours", host: "localhost:9999", own: "127.0.0.1:8085", want: "localhost:9999"},
	} {
		env := map[string]string{"PUBSUB_EMULATOR_HOST": tt.host, ownPubSub: tt.own}
		if got := PubSubEmulator(func(name string) string { return env[name] }); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func write(t *testing.T, object *storage.ObjectHandle, content string, metadata map[string]string) {
	t.Helper()
	w := object.NewWriter(t.Context())
	w.ChunkSize = 0
	w.Metadata = metadata
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("write %s: %v", object.ObjectName(), err)
	}
}

func read(t *testing.T, object *storage.ObjectHandle) string {
	t.Helper()
	r, err := object.NewReader(t.Context())
	if err != nil {
		t.Fatalf("read %s: %v", object.ObjectName(), err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
