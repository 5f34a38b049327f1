package terraform_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// module returns the module's own files by name.
func module(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.tf")
	if err != nil || len(names) == 0 {
		t.Fatalf("no *.tf here: %v", err)
	}
	files := map[string]string{}
	for _, name := range names {
		files[name] = read(t, name)
	}
	return files
}

// block returns what stands between the braces that follow a text, which must be there once.
func block(t *testing.T, text, opening string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, opening)
	if !ok {
		t.Fatalf("%q is not there", opening)
	}
	depth := 1
	for i, r := range rest {
		switch r {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return rest[:i]
			}
		}
	}
	t.Fatalf("%q has no end", opening)
	return ""
}

// keys returns the keys of a map that is written one key a line, at a depth of indentation.
func keys(text string, indent int) []string {
	var all []string
	key := regexp.MustCompile(`(?m)^ {` + strconv.Itoa(indent) + `}"?([A-Za-z0-9_/-]+)"? += `)
	for _, m := range key.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

func declared(text, kind string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^`+kind+` "([^"]+)"`).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// Names are constants of the worker, so Terraform has to use the same.
func TestQueueHasTheWorkersNames(t *testing.T) {
	t.Parallel()
	topics := keys(block(t, read(t, "topics.tf"), "_topics = merge(\n    {"), 6)
	want := []string{schemas.TopicBatches, schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults}
	if diff := cmp.Diff(want, topics); diff != "" {
		t.Errorf("topics: %s", diff)
	}
	text := block(t, read(t, "subscriptions.tf"), "_subscriptions = merge(\n    {")
	want = []string{schemas.SubscriptionBatches, schemas.SubscriptionBatch, schemas.SubscriptionDead, schemas.SubscriptionOnline}
	if diff := cmp.Diff(want, keys(text, 6)); diff != "" {
		t.Errorf("subscriptions: %s", diff)
	}
	for name, filter := range map[string]string{schemas.SubscriptionBatch: schemas.BatchFilter, schemas.SubscriptionOnline: schemas.OnlineFilter} {
		if !strings.Contains(block(t, text, name+" = {"), "filter = "+strconv.Quote(filter)+"\n") {
			t.Errorf("%s does not filter by %s", name, filter)
		}
	}
}

func TestTopicsHaveTheirSchemas(t *testing.T) {
	t.Parallel()
	text := block(t, read(t, "topics.tf"), "_schemas = {")
	files := map[string]string{}
	for _, m := range regexp.MustCompile(`(\S+) += "(\S+)"`).FindAllStringSubmatch(text, -1) {
		files[m[1]] = read(t, filepath.Join("../../schemas", m[2]))
	}
	for _, topic := range []string{schemas.TopicBatches, schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults} {
		if files[topic] != schemas.TopicSchema(topic) {
			t.Errorf("topic %s has another schema than schemas.TopicSchema says", topic)
		}
	}
}

func TestRetentionClassesAreTheJobs(t *testing.T) {
	t.Parallel()
	got := keys(block(t, read(t, "assets.tf"), "retention_classes = {"), 4)
	if diff := cmp.Diff(slices.Sorted(slices.Values(jobs.Retentions())), slices.Sorted(slices.Values(got))); diff != "" {
		t.Error(diff)
	}
}

// Rules for folders act on nothing when the code's folders have other names.
func TestFoldersAreTheCodes(t *testing.T) {
	t.Parallel()
	for folder, where := range map[string]string{
		"batches/": "../../worker/ledger", "workers/": "../../worker/ledger", "control/": "../../worker/ledger", "submissions/": "../../worker/ledger", "ledger/": "../../worker/ledger",
		"straight/": "../../worker/assets",
	} {
		names, err := filepath.Glob(filepath.Join(where, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(names, func(name string) bool { return strings.Contains(read(t, name), strconv.Quote(folder)) }) {
			t.Errorf("no file of %s speaks of %q", where, folder)
		}
		used := slices.ContainsFunc(slices.Collect(maps.Values(module(t))), func(text string) bool { return strings.Contains(text, strconv.Quote(folder)) })
		if !used {
			t.Errorf("no *.tf speaks of %q", folder)
		}
	}
}

func TestEnvironmentIsTheCommands(t *testing.T) {
	t.Parallel()
	setting := regexp.MustCompile(`ASSETMILL_[A-Z_]+`)
	known := setting.FindAllString(read(t, "../../cmd/assetmill/settings.go"), -1)
	given := setting.FindAllString(block(t, read(t, "outputs.tf"), "environment = {"), -1)
	for _, required := range []string{"ASSETMILL_BUCKET", "ASSETMILL_DATASET", "ASSETMILL_PROJECT", "ASSETMILL_WORK_BUCKET"} {
		if !slices.Contains(given, required) {
			t.Errorf("%s is not among the outputs", required)
		}
	}
	for _, name := range given {
		if !slices.Contains(known, name) {
			t.Errorf("%s is no setting of assetmill's", name)
		}
	}
}

// The tests with a list of roles per account read local.grants, so a grant that is missing there goes unseen.
func TestEveryGrantIsListed(t *testing.T) {
	t.Parallel()
	grant := regexp.MustCompile(`(?m)^resource "(google_\w+_(?:iam_\w+|access))" "(\w+)"`)
	files := module(t)
	count := 0
	for name, text := range files {
		for _, m := range grant.FindAllStringSubmatch(text, -1) {
			count++
			if !strings.Contains(files["grants.tf"], m[1]+"."+m[2]) && m[1] != "google_project_iam_custom_role" {
				t.Errorf("%s: %s.%s is not in grants.tf", name, m[1], m[2])
			}
			if strings.HasSuffix(m[1], "_iam_binding") || strings.HasSuffix(m[1], "_iam_policy") {
				t.Errorf("%s: %s.%s takes roles away from members that it does not know", name, m[1], m[2])
			}
		}
	}
	if count == 0 {
		t.Error("no grant was found: the pattern of this test is wrong")
	}
}

func TestNothingIsPublicAndNoAccountHasAKey(t *testing.T) {
	t.Parallel()
	for name, text := range module(t) {
		for _, banned := range []string{"google_service_account_key", "google_storage_bucket_acl", "google_storage_default_object_acl", "google_storage_object_acl", `"allUsers"`, `"allAuthenticatedUsers"`} {
			if strings.Contains(text, banned) {
				t.Errorf("%s has %s", name, banned)
			}
		}
	}
}

func TestVariablesAndOutputsAreDocumentedInOrder(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for file, kind := range map[string]string{"variables.tf": "variable", "outputs.tf": "output"} {
		text := read(t, file)
		names := declared(text, kind)
		if len(names) == 0 || !slices.IsSorted(names) {
			t.Errorf("%s: %ss are not in alphabetical order: %v", file, kind, names)
		}
		for _, name := range names {
			if !strings.HasPrefix(block(t, text, kind+` "`+name+`" {`), "\n  description = \"") {
				t.Errorf("%s: %s %s does not begin with its description", file, kind, name)
			}
		}
		_, section, _ := strings.Cut(readme, "\n## "+strings.ToUpper(kind[:1])+kind[1:]+"s\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var listed []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
			listed = append(listed, m[1])
		}
		if diff := cmp.Diff(names, listed); diff != "" {
			t.Errorf("README.md, %ss: %s", kind, diff)
		}
	}
}

func TestExamplesSetWhatThereIs(t *testing.T) {
	t.Parallel()
	known := declared(read(t, "variables.tf"), "variable")
	names, err := filepath.Glob("examples/*.tfvars")
	if err != nil || len(names) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range names {
		set := keys(read(t, name), 0)
		for _, v := range set {
			if !slices.Contains(known, v) {
				t.Errorf("%s sets %s, which is no variable", name, v)
			}
		}
		for _, required := range []string{"project_id", "region"} {
			if !slices.Contains(set, required) {
				t.Errorf("%s does not set %s", name, required)
			}
		}
	}
}

// Long lines are for texts and names that can't be broken.
func TestLinesAreShort(t *testing.T) {
	t.Parallel()
	const limit = 79
	for name, text := range module(t) {
		for i, line := range strings.Split(text, "\n") {
			if len(line) > limit && !strings.Contains(line, `"`) {
				t.Errorf("%s:%d has %d characters", name, i+1, len(line))
			}
		}
	}
}

// Analysts may read views and not the tables under them, so the queries that docs/lineage.md gives them must do with views.
func TestAnalystsQueriesReadViews(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../schemas/views/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no views: %v", err)
	}
	known := []string{"UNNEST"}
	for _, file := range files {
		_, name, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".sql"), "_")
		known = append(known, name)
	}
	blocks := regexp.MustCompile("(?s)```[a-z]*\n(.*?)```").FindAllStringSubmatch(read(t, "../../docs/lineage.md"), -1)
	asked := 0
	for _, block := range blocks {
		with := regexp.MustCompile(`WITH ([a-z_]+) AS`).FindStringSubmatch(block[1])
		for _, m := range regexp.MustCompile(`(?:FROM|JOIN) (?:assetmill_analysts[.])?([A-Za-z_]+)`).FindAllStringSubmatch(block[1], -1) {
			asked++
			if !slices.Contains(known, m[1]) && (with == nil || with[1] != m[1]) {
				t.Errorf("%s is no view, in:\n%s", m[1], block[1])
			}
		}
	}
	if asked < 15 {
		t.Errorf("only %d are asked: the pattern of this test is wrong", asked)
	}
}
