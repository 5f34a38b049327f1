package doctor

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/api/storage/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/schemas"
)

func TestDefinitionDrift(t *testing.T) {
	t.Parallel()
	const want = "syntax = \"proto3\"; // comment; with a semicolon\nmessage Job {\n  /* a { brace */ string id = 1;\n  message Turn { string prompt = 1; }\n}\n"
	tests := map[string]struct {
		have string
		want []string
	}{
		"the same, written otherwise": {`syntax   =   "proto3";message Job{ string id=1 ; message Turn {string prompt = 1;}}`, nil},
		"a field is missing":          {`syntax = "proto3"; message Job { message Turn { string prompt = 1; } }`, []string{"it lacks `string id = 1`"}},
		"a field is new":              {`syntax = "proto3"; message Job { string id = 1; string more = 2; message Turn { string prompt = 1; } }`, []string{"it has `string more = 2`"}},
		"a field has another number":  {`syntax = "proto3"; message Job { string id = 9; message Turn { string prompt = 1; } }`, []string{"it lacks `string id = 1`", "it has `string id = 9`"}},
		"a field has moved":           {`syntax = "proto3"; message Job { message Turn { string prompt = 1; string id = 1; } }`, []string{"its statements are in another order"}},
		"nothing":                     {``, []string{"it lacks `syntax = \"proto3\"`", "it lacks `message Job {`", "it lacks `string id = 1`", "it lacks `message Turn {`", "it lacks `string prompt = 1`"}},
		"a quote without an end":      {`syntax = "proto3; message Job {`, nil},
	}
	for name, test := range tests {
		got := definitionDrift(want, test.have)
		if name == "a quote without an end" {
			if len(got) == 0 {
				t.Errorf("%s: no drift", name)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	job := schemas.TopicSchema(schemas.TopicJobs)
	if n := len(statements(job)); n < 25 || strings.Contains(strings.Join(statements(job), "\n"), "//") {
		t.Errorf("job.proto has %d statements", n)
	}
}

func TestPlainSQL(t *testing.T) {
	t.Parallel()
	for _, same := range []string{"SELECT 1\nFROM t", "-- says what\nSELECT 1\n  -- and more\n\n\tFROM   t ;\n", "SELECT 1 FROM t;"} {
		if got := plainSQL(same); got != "SELECT 1 FROM t" {
			t.Errorf("%q became %q", same, got)
		}
	}
	if plainSQL("SELECT 1 -- 2") == plainSQL("SELECT 1") {
		t.Error("a comment behind code counts, since it may be within a string")
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"jobs-online": "jobs-online", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "--member=user:a@b.c": "--member=user:a@b.c", "$HOME": "'$HOME'", "a;b": "'a;b'",
	} {
		if got := quote(in); got != want {
			t.Errorf("%q is quoted as %s; want %s", in, got, want)
		}
	}
}

func age(days int64) *int64 { return &days }

func TestRulesThatHarm(t *testing.T) {
	t.Parallel()
	no := false
	x := &exam{cfg: &Config{Bucket: "assets", WorkBucket: "work"}}
	tests := map[string]struct {
		bucket string
		rule   storage.BucketLifecycleRuleCondition
		harms  bool
	}{
		"everything after years":           {"assets", storage.BucketLifecycleRuleCondition{Age: age(3000)}, true},
		"the folder's own days":            {"assets", storage.BucketLifecycleRuleCondition{Age: age(30), MatchesPrefix: []string{"30d/"}}, false},
		"a day too early":                  {"assets", storage.BucketLifecycleRuleCondition{Age: age(29), MatchesPrefix: []string{"30d/"}}, true},
		"one campaign of a class":          {"assets", storage.BucketLifecycleRuleCondition{Age: age(60), MatchesPrefix: []string{"90d/spring/"}}, true},
		"prefix of several classes":        {"assets", storage.BucketLifecycleRuleCondition{Age: age(40), MatchesPrefix: []string{"3"}}, true},
		"archived objects":                 {"assets", storage.BucketLifecycleRuleCondition{Age: age(365), MatchesStorageClass: []string{"ARCHIVE"}}, true},
		"what was made before":             {"assets", storage.BucketLifecycleRuleCondition{CreatedBefore: "2026-01-01"}, true},
		"a folder of somebody else's":      {"assets", storage.BucketLifecycleRuleCondition{Age: age(1), MatchesPrefix: []string{"tmp/"}}, false},
		"files of another kind":            {"assets", storage.BucketLifecycleRuleCondition{Age: age(1), MatchesSuffix: []string{".tmp"}}, false},
		"images by their ending":           {"assets", storage.BucketLifecycleRuleCondition{Age: age(1), MatchesSuffix: []string{".tmp", ".png"}}, true},
		"old versions":                     {"assets", storage.BucketLifecycleRuleCondition{NumNewerVersions: 1}, false},
		"versions that live no more":       {"assets", storage.BucketLifecycleRuleCondition{IsLive: &no, Age: age(1)}, false},
		"straight, at once":                {"assets", storage.BucketLifecycleRuleCondition{Age: age(0), MatchesPrefix: []string{"straight/"}}, true},
		"signs of life of the living":      {"work", storage.BucketLifecycleRuleCondition{Age: age(0), MatchesPrefix: []string{"workers/"}}, true},
		"the ledger after half a year":     {"work", storage.BucketLifecycleRuleCondition{Age: age(180), MatchesPrefix: []string{"ledger/"}}, false},
		"the ledger before":                {"work", storage.BucketLifecycleRuleCondition{Age: age(179), MatchesPrefix: []string{"ledger/"}}, true},
		"files of batches":                 {"work", storage.BucketLifecycleRuleCondition{Age: age(30), MatchesPrefix: []string{"batches/"}, MatchesSuffix: []string{".jsonl"}}, false},
		"files of batches under way":       {"work", storage.BucketLifecycleRuleCondition{Age: age(2), MatchesSuffix: []string{".jsonl"}}, true},
		"controls, ever":                   {"work", storage.BucketLifecycleRuleCondition{Age: age(5000), MatchesPrefix: []string{"control/"}}, true},
		"one half of the ledger, by shard": {"work", storage.BucketLifecycleRuleCondition{Age: age(10), MatchesPrefix: []string{"ledger/0"}}, true},
	}
	for name, test := range tests {
		_, guards := x.expectations(test.bucket)
		rule := &storage.BucketLifecycleRule{Action: &storage.BucketLifecycleRuleAction{Type: "Delete"}, Condition: &test.rule}
		if got := harms(rule, guards); (got != "") != test.harms {
			t.Errorf("%s: %q", name, got)
		}
		rule.Action.Type = "SetStorageClass"
		if got := harms(rule, guards); got != "" {
			t.Errorf("%s: moving harms: %q", name, got)
		}
	}
}

func TestContains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outer, inner string
		want         bool
	}{{"eu", "europe-west4", true}, {"us", "us-east1", true}, {"europe-west4", "europe-west4", true}, {"europe-west4", "eu", false}, {"us", "europe-west4", false}, {"asia", "asia-east1", false}} {
		if contains(c.outer, c.inner) != c.want {
			t.Errorf("%s in %s: want %v", c.inner, c.outer, c.want)
		}
	}
}

// The doctor looks for what Terraform sets.
func TestNumbersAreTerraforms(t *testing.T) {
	t.Parallel()
	for _, one := range []struct{ file, pattern, want string }{
		{"work.tf", `record_days = (\d+)`, strconv.Itoa(recordDays)},
		{"work.tf", `prefix = "workers/", days = (\d+)`, strconv.Itoa(workersDays)},
		{"variables.tf", `straight_days +=.*number, (\d+)`, strconv.Itoa(straightDays)},
		{"variables.tf", `delivery_attempts +=.*number, (\d+)`, strconv.Itoa(goodAttempts)},
		{"variables.tf", `minimum_backoff +=.*"(.*)"`, minBackoff.String()},
		{"variables.tf", `maximum_backoff +=.*"(.*)"`, seconds(maxBackoff) + "s"},
		{"subscriptions.tf", `ack_deadline = try\(s.ack_deadline, (\d+)\)`, seconds(goodAckDeadline)},
	} {
		text, err := os.ReadFile("../../deploy/terraform/" + one.file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(one.pattern).FindSubmatch(text)
		if m == nil || string(m[1]) != one.want {
			t.Errorf("%s has %s for %s; want %s", one.file, m, one.pattern, one.want)
		}
	}
}
