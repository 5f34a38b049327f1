package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/bigquery/v2"

	"github.com/assetmill/assetmill/internal/doctor"
	"github.com/assetmill/assetmill/worker"
)

// find returns the findings of a check.
func find(r *doctor.Report, id string) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f doctor.Finding) bool { return f.ID != id })
}

// Against emulators, what they can't tell is no defect, and what they can is.
func TestEmulators(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	cfg.Local = doctor.Local{PubSub: true, Storage: true, BigQuery: true, Vertex: true}
	cfg.Identity, cfg.Clients.HTTP, cfg.Clients.Schemas = doctor.Identity{}, nil, nil
	c.buckets = map[string]map[string]any{assetsBucket: {"name": assetsBucket}, workBucket: {"name": workBucket}, extraBucket: {"name": extraBucket}}
	c.grants["project"]["roles/storage.admin"] = map[string]struct{}{workerMember: {}} // emulators have no IAM
	for _, id := range []string{"batches", "jobs-batch", "jobs-dead-review", "jobs-online"} {
		c.sub(id, func(s *pubsubpb.Subscription) {
			s.ExpirationPolicy, s.DeadLetterPolicy, s.RetryPolicy, s.AckDeadlineSeconds = nil, nil, nil, 10
		})
	}
	for _, table := range c.tables {
		table.TimePartitioning, table.Clustering = nil, nil
	}
	r := run(t, cfg)
	wantHealthy(t, r)
	if n := len(find(r, "emulator.limits")); n != 4 {
		t.Errorf("%d notes of what emulators can't tell; want 4", n)
	}
	if len(find(r, "credentials.identity"))+len(find(r, "permission.missing")) > 0 {
		t.Error("emulators were asked for credentials or permissions")
	}

	delete(c.tables, "generations_raw")
	delete(c.buckets, workBucket)
	delete(c.models, "global/gemini-3-pro-image")
	c.sub("jobs-online", func(s *pubsubpb.Subscription) { s.Filter = "" })
	r = run(t, cfg)
	for _, id := range []string{"table.missing", "bucket.missing", "lane.model", "subscription.filter"} {
		if all := find(r, id); len(all) == 0 || all[0].Severity != doctor.Error {
			t.Errorf("no %s", id)
		}
	}
	for _, f := range serious(r) {
		if f.Fix.Command != "" || !strings.Contains(f.Fix.Note, "make local") {
			t.Errorf("%s on this machine is put right by %+v", f.ID, f.Fix)
		}
	}
}

// One missing permission may be found in two ways; its fix is the same.
func TestDeniedCalls(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	c.revoke(workerMember, "projects/mill-test/roles/assetmillModelCaller on project")
	r := run(t, cfg)
	denied := find(r, "lane.denied")
	if len(denied) != 3 {
		t.Errorf("%d lanes are denied; want 3", len(denied))
	}
	for _, f := range append(denied, serious(r)...) {
		if !strings.HasPrefix(f.Fix.Command, "gcloud projects add-iam-policy-binding mill-test "+worksFor+" --role=roles/aiplatform.user") {
			t.Errorf("%s: fix %q", f.ID, f.Fix.Command)
		}
	}
	c.run(denied[0].Fix.Command)
	wantHealthy(t, run(t, cfg))
}

func TestLanesThatGiveNoClearAnswer(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	answers := map[string]error{
		"gemini-3-pro-image/global/standard":             &worker.CallError{Kind: worker.Throttled, Status: http.StatusTooManyRequests, Detail: "busy"},
		"gemini-2.5-flash-image/europe-west4/standard":   errors.New("odd"),
		"gemini-2.5-flash-image/us-central1/standard":    &worker.CallError{Kind: worker.Denied, Status: http.StatusUnauthorized, Detail: "expired"},
		"gemini-2.5-flash-image/us-central1/provisioned": nil,
	}
	dedicated := worker.Lane{Name: "gemini-2.5-flash-image/us-central1/provisioned", Project: projectID, Location: "us-central1", Endpoint: "123", Tier: "dedicated"}
	cfg.First = append(cfg.First, dedicated)
	cfg.Clients.AskLane = func(_ context.Context, l worker.Lane) error { return answers[l.Name] }
	r := run(t, cfg)
	got := map[doctor.Severity]int{}
	for _, f := range find(r, "lane.unchecked") {
		got[f.Severity]++
	}
	if got[doctor.Warning] != 2 || got[doctor.Info] != 1 {
		t.Errorf("lanes without a clear answer: %v", got)
	}
	if len(find(r, "credentials.missing")) != 1 {
		t.Error("credentials that are not accepted were not found")
	}
}

// A service that does not answer is one finding, not one for each question.
func TestServicesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	var tries atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tries.Add(1)
		http.Error(w, "out of order", http.StatusBadGateway)
	}))
	t.Cleanup(down.Close)
	cfg.Clients.Endpoints.Storage = down.URL + "/"
	r := run(t, cfg)
	all := serious(r)
	if len(all) != 1 || all[0].ID != "service.unreachable" || all[0].Resource != "storage.googleapis.com" || all[0].Severity != doctor.Error {
		t.Errorf("found %+v", all)
	}
	if n := tries.Load(); n < 3 {
		t.Errorf("%d tries", n)
	}
}

// What only the doctor needs is no defect when it does not answer; what a perimeter keeps away is no missing permission.
func TestServicesThatOnlyTheDoctorNeeds(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusGatewayTimeout) }))
	t.Cleanup(down.Close)
	perimeter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "Request is prohibited by organization's policy.", "SECURITY_POLICY_VIOLATED", nil)
	}))
	t.Cleanup(perimeter.Close)
	cfg.Clients.Endpoints.ServiceUsage, cfg.Clients.Endpoints.ResourceManager = down.URL+"/", perimeter.URL+"/"
	r := run(t, cfg)
	wantHealthy(t, r)
	if n := len(find(r, "service.unreachable")); n != 2 {
		t.Errorf("%d services could not be asked: %+v", n, find(r, "service.unreachable"))
	}
	cfg.Clients.Endpoints.BigQuery = perimeter.URL + "/"
	if all := serious(run(t, cfg)); len(all) != 1 || all[0].ID != "service.unreachable" || !strings.Contains(all[0].Problem, "organization's policy") {
		t.Errorf("behind a perimeter: %+v", all)
	}
}

// A service that fails for a moment is asked again.
func TestAMomentaryFailure(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	failed := map[string]bool{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		first := !failed[r.URL.Path]
		failed[r.URL.Path] = true
		c.mu.Unlock()
		if first && r.Method == http.MethodGet {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		c.rest.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	cfg.Clients.Endpoints.Storage, cfg.Clients.Endpoints.BigQuery = front.URL+"/storage/v1/", front.URL+"/bigquery/v2/"
	wantHealthy(t, run(t, cfg))
}

// An account that may look at nothing gets notes, and the permissions that it lacks.
func TestAnAccountWithoutRights(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	c.caller = "user:stranger@example.com"
	cfg.Identity = doctor.Identity{Email: "stranger@example.com", Person: true, QuotaProject: projectID}
	r := run(t, cfg)
	for _, f := range serious(r) {
		if f.ID != "permission.missing" && f.ID != "lane.denied" {
			t.Errorf("%s, %s: %s", f.ID, f.Resource, f.Problem)
		}
		if !strings.Contains(f.Fix.Command, "user:stranger@example.com") {
			t.Errorf("%s is mended by %s", f.Resource, f.Fix.Command)
		}
	}
	if len(find(r, "access.limited")) < 10 {
		t.Errorf("%d notes of what was not checked", len(find(r, "access.limited")))
	}
	who := find(r, "credentials.identity")
	if len(who) != 1 || who[0].Severity != doctor.Info || !strings.Contains(who[0].Fix.Command, "--impersonate-service-account=assetmill-worker@mill-test.iam.gserviceaccount.com") {
		t.Errorf("identity: %+v", who)
	}
}

func TestHarmlessDriftOfColumns(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.tables["generations_raw"].Schema.Fields = append(c.tables["generations_raw"].Schema.Fields, &bigquery.TableFieldSchema{Name: "more", Type: "STRING"})
	for _, f := range c.tables["generations_raw"].Schema.Fields {
		switch f.Name {
		case "job_id":
			f.Mode = "NULLABLE"
		case "seed":
			f.Type = "INT64" // another name for the same
		case "labels":
			f.Name, f.Type = "LABELS", "STRUCT"
		}
	}
	r := run(t, c.config())
	wantHealthy(t, r)
	notes := slices.DeleteFunc(find(r, "table.columns"), func(f doctor.Finding) bool { return f.Severity != doctor.Info })
	if len(notes) != 1 || !strings.Contains(notes[0].Problem, "column job_id is NULLABLE instead of REQUIRED; column more is unknown") {
		t.Errorf("notes: %+v", notes)
	}
}

// Drift is told column by column, into records.
func TestDriftOfColumns(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for _, f := range c.tables["generations_raw"].Schema.Fields {
		switch f.Name {
		case "labels":
			f.Fields = f.Fields[:1]
		case "prompt":
			f.Mode = "REQUIRED"
		case "references":
			f.Mode = ""
		case "outcome":
			f.Name = "result"
		}
	}
	all := serious(run(t, c.config()))
	if len(all) != 1 {
		t.Fatalf("found %+v", all)
	}
	for _, want := range []string{
		"column labels.value is missing", "column prompt is REQUIRED instead of NULLABLE", "column references is NULLABLE instead of REPEATED",
		"column outcome is missing, and one that is REQUIRED can't be added", "column result is REQUIRED and unknown",
	} {
		if !strings.Contains(all[0].Problem, want) {
			t.Errorf("%q lacks %q", all[0].Problem, want)
		}
	}
}

// What Mend writes back of a lifecycle loses nothing, not even what this program has never heard of.
func TestMendKeepsOtherRules(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	rules(workBucket, without("workers/"))(c, &cfg)
	rules(workBucket, added(`{"action":{"type":"Delete"},"condition":{"age":400,"matchesPrefix":["batches/"],"phaseOfTheMoon":"new"}}`))(c, &cfg)
	r := run(t, cfg)
	if _, err := doctor.Mend(t.Context(), r.Mendable()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c.buckets[workBucket]["lifecycle"])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"phaseOfTheMoon":"new"`, `"AbortIncompleteMultipartUpload"`, `"matchesPrefix":["workers/"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	if !strings.Contains(find(r, "bucket.lifecycle")[0].Fix.Command, "phaseOfTheMoon") {
		t.Error("the command would lose a condition")
	}
}

// Mend never writes over what somebody else has changed meanwhile, and goes on with the rest.
func TestMendGivesWay(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	cfg := c.config()
	rules(workBucket, without("workers/"))(c, &cfg)
	c.sub("jobs-online", func(s *pubsubpb.Subscription) { s.RetryPolicy = nil })
	front := http.NewServeMux()
	front.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		c.rest.Config.Handler.ServeHTTP(w, req)
		if req.Method == http.MethodGet && strings.Contains(req.URL.RawQuery, "metageneration") {
			c.mu.Lock()
			c.buckets[workBucket]["metageneration"] = "4"
			c.mu.Unlock()
		}
	})
	between := httptest.NewServer(front)
	t.Cleanup(between.Close)
	cfg.Clients.Endpoints.Storage = between.URL + "/storage/v1/"
	r := run(t, cfg)
	done, err := doctor.Mend(t.Context(), r.Mendable())
	if err == nil || !strings.Contains(err.Error(), "bucket gs://mill-test-work") || len(done) != 1 || done[0].ID != "subscription.retry" {
		t.Errorf("mended %v, %v", done, err)
	}
}

func TestFindingsOfTheCaller(t *testing.T) {
	t.Parallel()
	for id, f := range map[string]doctor.Finding{
		"settings.lanes":       doctor.BadLanes("my lanes.yaml", errors.New("lanes.yaml:4:15: no such model")),
		"settings.catalogue":   doctor.BadCatalogue(errors.New("no such file")),
		"settings.environment": doctor.BadSettings(errors.New("set ASSETMILL_BUCKET")),
		"credentials.missing":  doctor.BadCredentials(errors.New("could not find default credentials")),
	} {
		if f.ID != id || f.Severity != doctor.Error || f.Fix.Command == "" || !oneSentence.MatchString(f.Problem) {
			t.Errorf("%s: %+v", id, f)
		}
		checkTerraform(t, f.Fix.Terraform)
	}
	c := newCloud(t)
	cfg := c.config()
	cfg.Before = []doctor.Finding{doctor.BadLanes("lanes.yaml", errors.New("no"))}
	cfg.Lanes, cfg.First, cfg.OwnLanes = nil, nil, false
	r := run(t, cfg)
	if all := serious(r); len(all) != 1 || all[0].ID != "settings.lanes" || r.Findings[0].ID != "settings.lanes" {
		t.Errorf("found %+v", all)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := doctor.Run(ctx, c.config()); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("error %v", err)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]string{
		0: "It is within a minute", 50 * time.Second: "It is within a minute", 2 * time.Minute: "behind Google's", -2 * time.Minute: "ahead of Google's",
	} {
		c := newCloud(t)
		c.skew = skew
		all := find(run(t, c.config()), "credentials.clock")
		if len(all) != 1 || !strings.Contains(all[0].Problem, want) {
			t.Errorf("%s: %+v", skew, all)
		}
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	whose := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("access_token") != "token" || r.URL.RawQuery != "" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, `{"email":"ann@example.com"}`)
	}))
	t.Cleanup(whose.Close)
	for name, test := range map[string]struct {
		file string
		want doctor.Identity
	}{
		"a key":         {`{"type":"service_account","client_email":"a@b.iam.gserviceaccount.com"}`, doctor.Identity{Email: "a@b.iam.gserviceaccount.com"}},
		"a person":      {`{"type":"authorized_user","client_id":"x"}`, doctor.Identity{Email: "ann@example.com", Person: true}},
		"impersonation": {`{"type":"impersonated_service_account","service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/w@p.iam.gserviceaccount.com:generateAccessToken"}`, doctor.Identity{Email: "w@p.iam.gserviceaccount.com"}},
		"a federation":  {`{"type":"external_account"}`, doctor.Identity{}},
	} {
		creds := auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: token{}, JSON: []byte(test.file)})
		got, err := doctor.Identify(t.Context(), creds, whose.URL)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, test.want)
		}
	}
	broken := auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: token{errors.New("expired")}, JSON: []byte(`{}`)})
	if _, err := doctor.Identify(t.Context(), broken, whose.URL); err == nil {
		t.Error("credentials without a token were taken")
	}
}

type token struct{ err error }

// Token implements auth.TokenProvider.
func (t token) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: "token", Expiry: time.Now().Add(time.Hour)}, t.err
}

// The page lists every check, as the code describes it.
func TestPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash("../../docs/doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	if table := doctor.Table(); !strings.Contains(string(text), table) {
		t.Errorf("docs/doctor.md has not this table of checks:\n%s", table)
	}
}
