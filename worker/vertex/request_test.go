package vertex

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// seen is a request as a server got it.
type seen struct {
	path   string
	header http.Header
	body   string
}

func capturing(requests chan<- seen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{r.URL.Path, r.Header, string(body)}
		_, _ = io.WriteString(w, `{"candidates":[{"finishReason":"NO_IMAGE"}]}`)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	seed := int32(0)
	tests := []struct {
		name       string
		job        *schemas.Job
		path, body string
	}{
		{
			"everything",
			&schemas.Job{
				Id: "job-1", Prompt: "p <&> \u2028 \"q\"", System: "s", Campaign: "c", Client: "acme", Size: "2K", AspectRatio: "16:9", Seed: &seed,
				References: []string{"gs://bkt/a b.png", "gs://bkt/c.JPG"}, Safety: map[string]string{"hate": "off"}, Labels: map[string]string{"sku": "1"},
			},
			"/v1/projects/p-1/locations/global/publishers/google/models/gemini-3-pro-image:generateContent",
			`{"contents":[{"role":"user","parts":[
				{"fileData":{"fileUri":"gs://bkt/a b.png","mimeType":"image/png"}},{"fileData":{"fileUri":"gs://bkt/c.JPG","mimeType":"image/jpeg"}},
				{"text":"p <&> \u2028 \"q\""}]}],
			"systemInstruction":{"role":"user","parts":[{"text":"s"}]},
			"generationConfig":{"candidateCount":1,"responseModalities":["TEXT","IMAGE"],"seed":0,"imageConfig":{"aspectRatio":"16:9","imageSize":"2K"}},
			"safetySettings":[{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"OFF"}],
			"labels":{"campaign":"c","client":"acme"}}`,
		},
		{
			"turns that show what is wanted",
			&schemas.Job{Prompt: "p", References: []string{"gs://bkt/o.webp"}, Turns: []*schemas.Job_Turn{
				{Prompt: "first", Image: "gs://bkt/1.png"}, {Prompt: "second", Image: "gs://bkt/2.jpeg"},
			}},
			"/v1/projects/p-1/locations/global/publishers/google/models/gemini-3-pro-image:generateContent",
			`{"contents":[{"role":"user","parts":[
				{"text":"first"},{"fileData":{"fileUri":"gs://bkt/1.png","mimeType":"image/png"}},
				{"text":"second"},{"fileData":{"fileUri":"gs://bkt/2.jpeg","mimeType":"image/jpeg"}},
				{"fileData":{"fileUri":"gs://bkt/o.webp","mimeType":"image/webp"}},{"text":"p"}]}],
			"generationConfig":{"candidateCount":1,"responseModalities":["TEXT","IMAGE"],"imageConfig":{"imageSize":"1K"}},
			"labels":{"campaign":"default"}}`,
		},
		{
			"little, in a region, by a model of one size, in the reference's own ratio",
			&schemas.Job{Prompt: "p", Model: "gemini-2.5-flash-image", Region: "europe-west4", References: []string{"gs://bkt/o.webp"}},
			"/v1/projects/p-1/locations/europe-west4/publishers/google/models/gemini-2.5-flash-image:generateContent",
			`{"contents":[{"role":"user","parts":[{"fileData":{"fileUri":"gs://bkt/o.webp","mimeType":"image/webp"}},{"text":"p"}]}],
			"generationConfig":{"candidateCount":1,"responseModalities":["TEXT","IMAGE"]},
			"labels":{"campaign":"default"}}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan seen, 1)
			o := newOnline(t, serve(t, capturing(requests)), nil)
			call := callOf(newJob(t, func(m *schemas.Job) { proto.Reset(m); proto.Merge(m, test.job) }))
			call.Lane.Tier = "flex"
			if _, err := o.Generate(t.Context(), call); err != nil {
				t.Fatal(err)
			}
			got := <-requests
			if got.path != test.path {
				t.Errorf("path %s, want %s", got.path, test.path)
			}
			var gotBody, wantBody any
			if err := json.Unmarshal([]byte(got.body), &gotBody); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(test.body), &wantBody); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantBody, gotBody); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			for name, want := range map[string]string{
				"X-Server-Timeout": "1790", "X-Vertex-Ai-Llm-Request-Type": "shared", "X-Vertex-Ai-Llm-Shared-Request-Type": "flex",
				"Accept-Encoding": "", "Authorization": "", "Content-Type": "application/json",
			} {
				if v := got.header.Get(name); v != want {
					t.Errorf("header %s is %q, want %q", name, v, want)
				}
			}
			if agents := got.header.Values("User-Agent"); !strings.Contains(strings.Join(agents, " "), "assetmill/test") {
				t.Errorf("User-Agent %q", agents)
			}
		})
	}
}

func TestTiers(t *testing.T) {
	t.Parallel()
	job := newJob(t, nil)
	provisioned := laneOf(job)
	provisioned.Name, provisioned.Tier = "provisioned", "provisioned"
	elsewhere := provisioned
	elsewhere.Project = "p-2"
	tests := []struct {
		tier           string
		others         []worker.Lane
		request, share string
	}{
		{"standard", nil, "", ""},
		{"standard", []worker.Lane{elsewhere}, "", ""},
		{"standard", []worker.Lane{elsewhere, provisioned}, "shared", ""},
		{"provisioned", nil, "dedicated", ""},
		{"flex", nil, "shared", "flex"},
	}
	for _, test := range tests {
		requests := make(chan seen, 1)
		call := callOf(job)
		call.Lane.Tier = test.tier
		o := newOnline(t, serve(t, capturing(requests)), func(c *Config) { c.Lanes = append(test.others, call.Lane) })
		if _, err := o.Generate(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		h := (<-requests).header
		if r, s := h.Get("X-Vertex-AI-LLM-Request-Type"), h.Get("X-Vertex-AI-LLM-Shared-Request-Type"); r != test.request || s != test.share {
			t.Errorf("%+v: %q, %q", test, r, s)
		}
	}
}

// TestLanes checks that a call goes where its lane says, and nowhere else.
func TestLanes(t *testing.T) {
	t.Parallel()
	job := newJob(t, func(m *schemas.Job) { m.Model = "gemini-2.5-flash-image" })
	tests := []struct{ project, location, host, want string }{
		{"p-1", "global", "", "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/"},
		{"p-2", "global", "", "https://aiplatform.googleapis.com/v1/projects/p-2/locations/global/"},
		{"p-2", "us-east4", "", "https://us-east4-aiplatform.googleapis.com/v1/projects/p-2/locations/us-east4/"},
		{"p-2", "us-east4", "aiplatform-vpc.p.googleapis.com", "https://aiplatform-vpc.p.googleapis.com/v1/projects/p-2/locations/us-east4/"},
		{"p-1", "eu", "", "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu/"},
	}
	urls := make(chan string, 1)
	o := newOnline(t, "", func(c *Config) {
		c.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			urls <- r.URL.String()
			return memory(`{"candidates":[{"finishReason":"NO_IMAGE"}]}`).RoundTrip(r)
		})
	})
	for range 2 { // clients are kept
		for _, test := range tests {
			lane := worker.Lane{Name: "x", Project: test.project, Location: test.location, Host: test.host, Model: job.Model.ID, Tier: "standard"}
			if _, err := o.Generate(t.Context(), worker.Call{Job: job, Lane: lane}); err != nil {
				t.Fatal(err)
			}
			if got, want := <-urls, test.want+"publishers/google/models/gemini-2.5-flash-image:generateContent"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
	if len(o.clients) != len(tests) {
		t.Errorf("%d clients for %d lanes", len(o.clients), len(tests))
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{
		"global":      "aiplatform.googleapis.com",
		"us-central1": "us-central1-aiplatform.googleapis.com",
		"eu":          "aiplatform.eu.rep.googleapis.com",
	} {
		if got := hostOf(location); got != want {
			t.Errorf("%s: %s, want %s", location, got, want)
		}
	}
}

// tokens are credentials of a test.
type tokens struct{ err error }

func (p tokens) Token(context.Context) (*auth.Token, error) {
	if p.err != nil {
		return nil, p.err
	}
	return &auth.Token{Value: "secret", Type: "Bearer", Expiry: time.Now().Add(time.Hour)}, nil
}

func property(value string) auth.CredentialsPropertyFunc {
	return func(context.Context) (string, error) { return value, nil }
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	requests := make(chan seen, 1)
	server := httptest.NewTLSServer(capturing(requests))
	t.Cleanup(server.Close)
	expired := &auth.Error{Response: &http.Response{StatusCode: 400}, Body: []byte(`{"error":"invalid_grant"}`)}
	down := &auth.Error{Response: &http.Response{StatusCode: 503}}
	tests := []struct {
		name string
		err  error
		want worker.Kind
	}{{"good", nil, 0}, {"expired", expired, worker.Denied}, {"token service down", down, worker.Unreached}, {"metadata server unreachable", errors.New("dial"), worker.Unreached}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newOnline(t, server.URL, func(c *Config) {
				c.NoAuth, c.Transport = false, server.Client().Transport
				c.Credentials = auth.NewCredentials(&auth.CredentialsOptions{
					TokenProvider: tokens{test.err}, QuotaProjectIDProvider: property("q-1"), UniverseDomainProvider: property("googleapis.com"),
				})
			})
			_, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
			if test.want == 0 {
				if err != nil {
					t.Fatal(err)
				}
				h := (<-requests).header
				if h.Get("Authorization") != "Bearer secret" || h.Get("X-Goog-User-Project") != "q-1" {
					t.Errorf("headers %v", h)
				}
				return
			}
			var e *worker.CallError
			if !errors.As(err, &e) || e.Kind != test.want {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	good := Config{Budget: blob.NewBudget(1), BaseURL: "http://127.0.0.1:9", NoAuth: true}
	for want, edit := range map[string]func(*Config){
		"no project":       func(c *Config) { c.Lanes = []worker.Lane{{Name: "a", Location: "global", Tier: "flex"}} },
		"no byte budget":   func(c *Config) { c.Budget = nil },
		"tier \"batch\"":   func(c *Config) { c.Lanes = []worker.Lane{{Name: "a", Project: "p", Location: "global", Tier: "batch"}} },
		"not encrypted":    func(c *Config) { c.NoAuth = false },
		"not an http":      func(c *Config) { c.BaseURL = "127.0.0.1:9" },
		"is not an http o": func(c *Config) { c.BaseURL = "ftp://x" },
	} {
		cfg := good
		edit(&cfg)
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status int
		kind   worker.Kind
		want   string
	}{
		{200, 0, ""},
		{401, worker.Denied, "does not accept this worker's credentials for model m in location global of project p-1"},
		{403, worker.Denied, "may not call model m in location global of project p-1: it needs the permission aiplatform.endpoints.predict"},
		{404, worker.Denied, "there is no model m in location global of project p-1"},
		{503, worker.Throttled, "can't tell whether this worker may call model m in location global of project p-1"},
	}
	for _, test := range tests {
		body := fmt.Sprintf(`{"totalTokens":1,"error":{"code":%d,"message":"as the service puts it"}}`, test.status)
		o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			if want := "/v1/projects/p-1/locations/global/publishers/google/models/m:countTokens"; r.URL.Path != want {
				t.Errorf("path %s, want %s", r.URL.Path, want)
			}
			respond(test.status, body)(w, r)
		}), nil)
		err := o.Check(t.Context(), worker.Lane{Name: "l", Project: "p-1", Location: "global", Model: "m", Tier: "standard"})
		if test.kind == 0 {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		var e *worker.CallError
		if !errors.As(err, &e) || e.Kind != test.kind || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "as the service puts it") {
			t.Errorf("%d: %v", test.status, err)
		}
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		respond(200, candidate("STOP", `,"finishMessage":"`+r.Proto+`"`, inline("image/png", append(pngImage(t, 3, 3), make([]byte, 1<<20)...))))(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	for _, http2 := range []bool{false, true} {
		tr := newTransport(4, http2)
		tr.TLSClientConfig = &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
		t.Cleanup(tr.CloseIdleConnections)
		protocol := make(chan string, 1)
		o := newOnline(t, server.URL, func(c *Config) {
			c.Transport = transportFunc(func(r *http.Request) (*http.Response, error) {
				resp, err := tr.RoundTrip(r)
				if err == nil {
					protocol <- resp.Proto
				}
				return resp, err
			})
		})
		a, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
		if err != nil {
			t.Fatal(err)
		}
		a.Image.Blob.Release()
		if got, want := <-protocol, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; got != want {
			t.Errorf("protocol %s, want %s", got, want)
		}
	}
}

// TestLargeRequest sends all that a job may have: it must arrive as it is.
func TestLargeRequest(t *testing.T) {
	t.Parallel()
	var references []string
	for i := range 14 {
		references = append(references, fmt.Sprintf("gs://bkt/%d.png", i))
	}
	prompt := strings.Repeat("A harbour at dusk, ünïcode & <tags>. ", 8192/9) // about 8,192 tokens
	requests := make(chan seen, 1)
	o := newOnline(t, serve(t, capturing(requests)), nil)
	job := newJob(t, func(m *schemas.Job) {
		m.Prompt, m.System, m.References = prompt, strings.Repeat("s ", 4000), references
	})
	if _, err := o.Generate(t.Context(), callOf(job)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Contents []struct {
			Parts []struct {
				Text     string
				FileData struct{ FileURI string }
			}
		}
		SystemInstruction struct{ Parts []struct{ Text string } }
	}
	if err := json.Unmarshal([]byte((<-requests).body), &got); err != nil {
		t.Fatal(err)
	}
	parts := got.Contents[0].Parts
	if len(parts) != 15 || parts[14].Text != job.Prompt || got.SystemInstruction.Parts[0].Text != job.System {
		t.Fatalf("%d parts", len(parts))
	}
	for i, uri := range references {
		if parts[i].FileData.FileURI != uri {
			t.Errorf("part %d: %+v", i, parts[i])
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, " 0.5 ": 500 * time.Millisecond, "-1": 0, "NaN": 0, "+Inf": maxRetryAfter, "99999999999": maxRetryAfter, "soon": 0,
		"Mon, 23 Nov 2026 12:00:30 GMT": 30 * time.Second, "Mon, 23 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestDetail(t *testing.T) {
	t.Parallel()
	const prompt = "A wide shot of a lighthouse at dawn, in oil"
	tests := []struct{ name, words, want string }{
		{"plain", "No.", "No."},
		{"lines", " No,\n\tnever. ", "No, never."},
		{"whole prompt", "x " + prompt + " y", "x [prompt] y"},
		{"twice", prompt + prompt, "[prompt][prompt]"},
		{"beginning of the prompt", "'A wide shot of a lighthouse a...'", "'[prompt]...'"},
		{"another white space", "A wide  shot of a lighthouse\nat dawn, in oil", "[prompt]"},
		{"too little to be the prompt", "A wide shot is impossible", "A wide shot is impossible"},
		{"system", "You said: Be brief.", "You said: [prompt]"},
		{"turn", "Like a lantern in the fog, before.", "[prompt], before."},
		{"no UTF-8", "a\xffb", "a\ufffdb"},
		{"long", strings.Repeat("é", 400), strings.Repeat("é", 248) + "…"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := detail(&jobs.Job{Prompt: prompt, System: "Be brief.", Turns: []jobs.Turn{{Prompt: "Like a lantern in the fog"}}}, test.words)
			if got != test.want || len(got) > maxDetailBytes {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
