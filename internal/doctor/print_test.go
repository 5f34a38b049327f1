package doctor_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/assetmill/assetmill/internal/doctor"
)

func TestPrint(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	c.sub("jobs-online", func(s *pubsubpb.Subscription) { s.RetryPolicy = nil })
	c.revoke(workerMember, "roles/pubsub.publisher on topic results")
	r := run(t, cfg)
	want := `Project mill-test, looked at by serviceAccount:assetmill-worker@mill-test.iam.gserviceaccount.com, for the worker

Credentials: N ok

APIs: N ok

Pub/Sub: N ok
  error    topic results  (permission.missing)
           pubsub.topics.publish is missing: no job ends, since its result can't be announced.
           fix:       gcloud pubsub topics add-iam-policy-binding results --member=serviceAccount:assetmill-worker@mill-test.iam.gserviceaccount.com --role=roles/pubsub.publisher --project=mill-test
           terraform: google_pubsub_topic_iam_member.this
  warning  subscription jobs-online  (subscription.retry)
           It has no retry policy: a message that is given back comes again at once, and again.
           fix:       gcloud pubsub subscriptions update jobs-online --min-retry-delay=1s --max-retry-delay=600s --project=mill-test
           terraform: google_pubsub_subscription.this["jobs-online"]
           --fix:     set its retry policy to 1s until 600s

Cloud Storage: N ok

BigQuery: N ok

Vertex AI: N ok
  info     quotas of project mill-test  (quota.limit)
           No fixed quota is set for the lanes' models: their capacity is shared, and workers learn how much they get.

1 error, 1 warning, 1 note; N checks passed.
1 finding can be put right by assetmill doctor --fix, which lists and asks before it touches it.
`
	var b strings.Builder
	if err := r.Print(&b, doctor.PrintOptions{}); err != nil {
		t.Fatal(err)
	}
	// How many checks there are is of no interest here.
	got := regexp.MustCompile(`[0-9]+( ok\n| checks passed)`).ReplaceAllString(b.String(), "N$1")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	if err := r.Print(&b, doctor.PrintOptions{Color: true, All: true}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "\x1b[31merror  \x1b[0m") || strings.Count(got, "\x1b[32mok     \x1b[0m") != r.Count(doctor.OK) {
		t.Errorf("in color and whole: %q", got)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	c.sub("jobs-online", func(s *pubsubpb.Subscription) { s.RetryPolicy = nil })
	text, err := json.Marshal(run(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Project, Role, Identity string
		Findings                []map[string]any
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Project != projectID || got.Role != "worker" || got.Identity != workerMember {
		t.Errorf("%s", text)
	}
	for _, f := range got.Findings {
		if f["severity"] == "warning" {
			want := map[string]any{
				"id": "subscription.retry", "severity": "warning", "area": "Pub/Sub", "resource": "subscription jobs-online",
				"problem": "It has no retry policy: a message that is given back comes again at once, and again.",
				"fix": map[string]any{
					"command":   "gcloud pubsub subscriptions update jobs-online --min-retry-delay=1s --max-retry-delay=600s --project=mill-test",
					"terraform": `google_pubsub_subscription.this["jobs-online"]`,
				},
				"mendable": "set its retry policy to 1s until 600s",
			}
			if diff := cmp.Diff(want, f); diff != "" {
				t.Error(diff)
			}
		}
		if _, has := f["fix"]; has && f["severity"] == "ok" {
			t.Errorf("what is right has a fix: %v", f)
		}
	}
}
