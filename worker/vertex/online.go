package vertex

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"google.golang.org/genai"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// apiVersion is the stable API. The SDK's default, v1beta1, lacks image sizes.
	apiVersion = "v1"
	scope      = "https://www.googleapis.com/auth/cloud-platform"

	// CallTimeout bounds a call from its start to the first bytes of its image. Images take 10 to 60 seconds, under load up to
	// two minutes and more; there is no official bound below ten minutes.
	CallTimeout = 5 * time.Minute
	// CallTimeout4K is CallTimeout for images of size 4K, which take several times as long.
	CallTimeout4K = 10 * time.Minute
	// CallTimeoutFlex is CallTimeout in the flex tier, where a call may wait for capacity for as long as Vertex allows.
	CallTimeoutFlex = 30 * time.Minute
	// serverTimeoutMargin is how much earlier the service is asked to give up than we do. Its own 504 says that nothing is
	// paid; our running out of patience says nothing.
	serverTimeoutMargin = 10 * time.Second

	// defaultMaxConns is the number of calls in flight that one worker is built for.
	defaultMaxConns = 3200
)

// Config says how to reach Vertex AI. Project and Budget are required.
type Config struct {
	Project string
	// Location is where jobs run that may run anywhere, if their model is served there; else they run in `global`. A job
	// with a data region always runs there. Default: `global`.
	Location string
	// BaseURL is an address such as http://127.0.0.1:9 that stands for Vertex in all locations. Default: Google's host of
	// each location.
	BaseURL string
	// Tier is the catalogue's name of the tier to ask for: `provisioned`, `standard` or `flex`. Default: Vertex's own
	// choice, which is provisioned throughput where the project has any, then standard; the lane is called standard.
	Tier string
	// Budget bounds the image bytes in memory.
	Budget *blob.Budget

	// Credentials authenticate the calls. Default: Application Default Credentials.
	Credentials *auth.Credentials
	// NoAuth sends no credentials, for emulators.
	NoAuth bool

	// CallTimeout bounds each call from its start to the first bytes of its image; waiting for the budget and reading the
	// image have bounds of their own. Default: [CallTimeout], [CallTimeout4K] for size 4K,
	// [CallTimeoutFlex] in the flex tier.
	CallTimeout time.Duration
	// MaxConns bounds the connections per host. With HTTP/1.1 it should be the number of calls in flight. Default: 3,200.
	MaxConns int
	// HTTP2 uses HTTP/2 where the server offers it; see newTransport.
	HTTP2 bool
	// Transport replaces the transport beneath the calls. MaxConns and HTTP2 then mean nothing.
	Transport http.RoundTripper
	// UserAgent names the program and its version, such as `assetmill/1.2.0`.
	UserAgent string
}

// Online makes online calls. It is safe for concurrent use.
type Online struct {
	cfg    Config
	client *http.Client
	close  func()
	// maxImage is maxImageBytes, but for tests.
	maxImage int64

	mu        sync.Mutex
	locations map[string]*genai.Client // made when first needed; no more than the catalogue has
}

var _ worker.Model = (*Online)(nil)

// New returns an Online. It finds the credentials but makes no call; see [Online.Check].
func New(ctx context.Context, cfg Config) (*Online, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("vertex: %w", err)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns
	}
	o := &Online{cfg: cfg, close: func() {}, maxImage: maxImageBytes, locations: map[string]*genai.Client{}}
	base := cfg.Transport
	if base == nil {
		t := newTransport(cfg.MaxConns, cfg.HTTP2)
		base, o.close = t, t.CloseIdleConnections
	}
	o.client = &http.Client{
		Transport: roundTripper{base},
		// A redirect would send the request, and pay for it, a second time.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.NoAuth {
		return o, nil
	}
	if err := o.authenticate(ctx); err != nil {
		return nil, fmt.Errorf("vertex: %w", err)
	}
	return o, nil
}

func (cfg *Config) check() error {
	if cfg.Project == "" {
		return errors.New("no project is given")
	}
	if cfg.Budget == nil {
		return errors.New("no byte budget is given")
	}
	if !slices.Contains([]string{"", "provisioned", "standard", "flex"}, cfg.Tier) {
		return fmt.Errorf("tier %q is unknown; allowed: provisioned, standard, flex", cfg.Tier)
	}
	if cfg.BaseURL == "" {
		return nil
	}
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("base URL %q is not an http or https address", cfg.BaseURL)
	}
	if u.Scheme == "http" && !cfg.NoAuth {
		return fmt.Errorf("credentials are not sent to %s, which is not encrypted; an emulator needs NoAuth", cfg.BaseURL)
	}
	return nil
}

// authenticate puts credentials around the client's transport.
func (o *Online) authenticate(ctx context.Context) error {
	creds := o.cfg.Credentials
	if creds == nil {
		var err error
		if creds, err = credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{scope}}); err != nil {
			return fmt.Errorf("find Application Default Credentials: %w", err)
		}
	}
	// A person's credentials, unlike a service account's, are charged to a quota project that each request must name.
	if quota, err := creds.QuotaProjectID(ctx); err == nil && quota != "" {
		o.client.Transport = quotaProject{o.client.Transport, quota}
	}
	if err := httptransport.AddAuthorizationMiddleware(o.client, creds); err != nil {
		return fmt.Errorf("use the credentials: %w", err)
	}
	return nil
}

// quotaProject names the quota project in each request.
type quotaProject struct {
	base    http.RoundTripper
	project string
}

func (q quotaProject) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Goog-User-Project", q.project)
	return q.base.RoundTrip(req)
}

// Close gives up idle connections. Calls in flight end as they would have.
func (o *Online) Close() { o.close() }

// Generate makes one call for the job, as worker.Model says.
//
// An image that is larger than 64 MiB is an answer with ReasonBadAnswer, since it was complete, is paid for, and its usage
// is known.
func (o *Online) Generate(ctx context.Context, j *jobs.Job) (*worker.Answer, error) {
	lane := o.lane(j)
	if ctx.Err() != nil {
		return nil, &worker.CallError{Kind: worker.Interrupted, Lane: lane, Err: context.Cause(ctx)}
	}
	client, err := o.at(ctx, lane.Location)
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Denied, Lane: lane, Err: err}
	}
	timeout := o.timeout(j)
	c, callCtx, done := o.newCall(ctx, j, lane, timeout)
	defer done()
	resp, err := client.Models.GenerateContent(callCtx, j.Model.ID, contents(j), o.config(j, timeout))
	if err != nil {
		return nil, o.explain(ctx, c.failure(ctx, err), j)
	}
	return c.answer(resp), nil
}

// newCall returns a call and the context to make it with. done ends both, and releases what the call still holds.
func (o *Online) newCall(ctx context.Context, j *jobs.Job, lane worker.Lane, timeout time.Duration) (c *call, callCtx context.Context, done func()) {
	callCtx, cancel := context.WithCancelCause(ctx)
	c = &call{job: j, lane: lane, budget: o.cfg.Budget, maxImage: o.maxImage, clock: startClock(timeout, cancel)}
	done = func() {
		c.clock.pause()
		c.release()
		cancel(nil)
	}
	return c, context.WithValue(callCtx, callKey{}, c), done
}

func (o *Online) lane(j *jobs.Job) worker.Lane {
	location := j.Region
	if location == jobs.GlobalRegion && slices.Contains(j.Model.Locations, o.cfg.Location) {
		location = o.cfg.Location
	}
	tier := o.cfg.Tier
	if tier == "" {
		tier = "standard"
	}
	return worker.Lane{Name: tier + "/" + location, Tier: tier, Location: location}
}

func (o *Online) timeout(j *jobs.Job) time.Duration {
	switch {
	case o.cfg.CallTimeout > 0:
		return o.cfg.CallTimeout
	case o.cfg.Tier == "flex":
		return CallTimeoutFlex
	case j.Size == "4K":
		return CallTimeout4K
	default:
		return CallTimeout
	}
}

// at returns the SDK's client for a location.
func (o *Online) at(ctx context.Context, location string) (*genai.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.locations[location]; c != nil {
		return c, nil
	}
	base := o.cfg.BaseURL
	if base == "" {
		base = hostOf(location) // always explicit, or the SDK would let an environment variable override it
	}
	c, err := genai.NewClient(ctx, &genai.ClientConfig{
		Backend: genai.BackendVertexAI, Project: o.cfg.Project, Location: location, HTTPClient: o.client,
		HTTPOptions: genai.HTTPOptions{BaseURL: base, APIVersion: apiVersion, Headers: o.headers()},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client for location %s: %w", location, err)
	}
	o.locations[location] = c
	return c, nil
}

// hostOf returns the address of Vertex in a location.
func hostOf(location string) string {
	switch location {
	case jobs.GlobalRegion:
		return "https://aiplatform.googleapis.com/"
	case "us", "eu":
		return "https://aiplatform." + location + ".rep.googleapis.com/"
	default:
		return "https://" + location + "-aiplatform.googleapis.com/"
	}
}

// headers are those of every request: who asks, and for which tier.
func (o *Online) headers() http.Header {
	h := http.Header{}
	if o.cfg.UserAgent != "" {
		h.Set("User-Agent", o.cfg.UserAgent)
	}
	const requestType = "X-Vertex-AI-LLM-Request-Type"
	switch o.cfg.Tier {
	case "provisioned":
		h.Set(requestType, "dedicated")
	case "standard":
		h.Set(requestType, "shared")
	case "flex":
		h.Set(requestType, "shared")
		h.Set("X-Vertex-AI-LLM-Shared-Request-Type", "flex")
	}
	return h
}

// callHeaders are those of one call. The SDK would send the context's deadline as X-Server-Timeout, but the call's clock is
// not a deadline.
func callHeaders(timeout time.Duration) http.Header {
	server := max(timeout-serverTimeoutMargin, timeout/2)
	return http.Header{"X-Server-Timeout": {strconv.Itoa(max(int(server.Seconds()), 1))}}
}
