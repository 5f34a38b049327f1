package vertex

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"go.uber.org/zap"
	"google.golang.org/api/option"
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

// Config says how to reach Vertex AI. Budget is required.
type Config struct {
	// Lanes are all lanes of the worker. A call in the tier standard bypasses provisioned throughput where one of them is
	// provisioned for the same project, location and model; elsewhere it leaves the choice to Vertex, which is provisioned throughput if
	// the project has any, then pay-as-you-go.
	Lanes []worker.Lane
	// BaseURL is an address such as http://127.0.0.1:9 that stands for Vertex in all lanes, whatever their hosts. Default: the
	// lane's host, or Google's host of its location.
	BaseURL string
	// EndpointAddr is the host:port of an emulator that stands for all dedicated endpoints, over gRPC in plain text. It needs NoAuth, and
	// without it lanes with an endpoint are denied under NoAuth.
	EndpointAddr string
	// Budget bounds the image bytes in memory.
	Budget *blob.Budget

	// Credentials authenticate the calls. Default: Application Default Credentials.
	Credentials *auth.Credentials
	// NoAuth sends no credentials, for emulators.
	NoAuth bool

	// Inline never asks a model to write its image to Cloud Storage itself.
	Inline bool
	// Log takes what is found out about models that write their images themselves, a line for each. Default: none.
	Log *zap.Logger

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

	// endpointOptions are more options for the clients of dedicated endpoints, in tests.
	endpointOptions []option.ClientOption
}

// Online makes online calls. It is safe for concurrent use.
type Online struct {
	cfg     Config
	client  *http.Client
	close   func()
	shared  map[place]bool // where the tier standard must say so
	outlets outlets
	// maxImage is maxImageBytes, but for tests.
	maxImage int64

	creds        *auth.Credentials // nil with Config.NoAuth
	quotaProject string            // may be empty

	mu        sync.Mutex
	clients   map[site]*genai.Client                  // made when first needed; no more than there are lanes
	endpoints map[string]*aiplatform.PredictionClient // likewise, by address
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
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	o := &Online{
		cfg: cfg, close: func() {}, shared: sharedPlaces(cfg.Lanes), maxImage: maxImageBytes, clients: map[site]*genai.Client{},
		outlets: outlets{log: cfg.Log, known: map[outlet]finding{}}, endpoints: map[string]*aiplatform.PredictionClient{},
	}
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
	if cfg.Budget == nil {
		return errors.New("no byte budget is given")
	}
	for _, l := range cfg.Lanes {
		if err := checkLane(l); err != nil {
			return err
		}
	}
	if cfg.EndpointAddr != "" && !cfg.NoAuth {
		return fmt.Errorf("credentials are not sent to %s, which is not encrypted; an emulator needs NoAuth", cfg.EndpointAddr)
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
	o.creds = o.cfg.Credentials
	if o.creds == nil {
		var err error
		if o.creds, err = credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{scope}}); err != nil {
			return fmt.Errorf("find Application Default Credentials: %w", err)
		}
	}
	// A person's credentials, unlike a service account's, are charged to a quota project that each request must name.
	if quota, err := o.creds.QuotaProjectID(ctx); err == nil && quota != "" {
		o.quotaProject = quota
		o.client.Transport = quotaProject{o.client.Transport, quota}
	}
	if err := httptransport.AddAuthorizationMiddleware(o.client, o.creds); err != nil {
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

// Close gives up idle connections. Calls in flight end as they would have, but those to dedicated endpoints, which are broken off.
func (o *Online) Close() {
	o.close()
	o.mu.Lock()
	defer o.mu.Unlock()
	for address, c := range o.endpoints {
		_ = c.Close() // of a connection; there is nothing to lose
		delete(o.endpoints, address)
	}
}

// Generate makes one call, as worker.Model says.
//
// An image that is larger than 64 MiB, or that the model wrote elsewhere than it was asked to, is an answer with ReasonBadAnswer: it was
// complete, is paid for, and its usage is known.
func (o *Online) Generate(ctx context.Context, call worker.Call) (*worker.Answer, error) {
	if call.Lane.Endpoint != "" {
		return o.predict(ctx, call)
	}
	at, how := outletOf(call), unasked
	if call.Prefix != "" && !o.cfg.Inline {
		how = o.outlets.choose(at)
	}
	if how == unasked {
		call.Prefix = ""
		return o.try(ctx, call).result()
	}
	var l lesson
	defer func() { o.outlets.learn(at, how, l) }()
	first := o.try(ctx, call)
	l, again := first.lesson(how)
	if !again {
		return first.result()
	}
	call.Prefix = ""
	second := o.try(ctx, call)
	if !first.aboutOutput && !first.agentMissing && second.err == nil {
		l = first.refusal()
	}
	return second.result()
}

// try is one request and what came of it: an answer or an error.
type try struct {
	answer *worker.Answer
	err    *worker.CallError

	images       bool // the answer had images
	strayed      bool // the model wrote an image elsewhere than it was asked to
	aboutOutput  bool // the error is about the wish to have the image written
	agentMissing bool // the error is that Vertex has not made its service agent yet
}

func (t *try) result() (*worker.Answer, error) {
	if t.err != nil {
		return nil, t.err
	}
	return t.answer, nil
}

// try sends one request.
func (o *Online) try(ctx context.Context, call worker.Call) *try {
	if ctx.Err() != nil {
		return &try{err: &worker.CallError{Kind: worker.Interrupted, Lane: call.Lane, Err: context.Cause(ctx)}}
	}
	client, err := o.at(ctx, call.Lane)
	if err != nil {
		return &try{err: &worker.CallError{Kind: worker.Denied, Lane: call.Lane, Err: err}}
	}
	timeout := o.timeout(call.Job, call.Lane)
	c, callCtx, done := o.newCall(ctx, call, timeout)
	defer done()
	resp, err := client.Models.GenerateContent(callCtx, call.Job.Model.ID, contents(call.Job), o.config(call, timeout))
	if err != nil {
		e := o.explain(ctx, c.failure(ctx, err), call.Job)
		return &try{err: e, aboutOutput: c.aboutOutput, agentMissing: c.agentMissing}
	}
	return &try{answer: c.answer(resp), images: c.count > 0, strayed: c.strayed}
}

// newCall returns a call and the context to make it with. done ends both, and releases what the call still holds.
func (o *Online) newCall(ctx context.Context, of worker.Call, timeout time.Duration) (c *call, callCtx context.Context, done func()) {
	callCtx, cancel := context.WithCancelCause(ctx)
	c = &call{Call: of, budget: o.cfg.Budget, maxImage: o.maxImage, clock: startClock(timeout, cancel)}
	done = func() {
		c.clock.pause()
		c.release()
		cancel(nil)
	}
	return c, context.WithValue(callCtx, callKey{}, c), done
}

func (o *Online) timeout(j *jobs.Job, lane worker.Lane) time.Duration {
	switch {
	case o.cfg.CallTimeout > 0:
		return o.cfg.CallTimeout
	case lane.Tier == tierFlex:
		return CallTimeoutFlex
	case j.Size == "4K":
		return CallTimeout4K
	default:
		return CallTimeout
	}
}

// at returns the SDK's client for a lane.
func (o *Online) at(ctx context.Context, lane worker.Lane) (*genai.Client, error) {
	if err := checkLane(lane); err != nil {
		return nil, err
	}
	s := siteOf(lane)
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.clients[s]; c != nil {
		return c, nil
	}
	base := o.cfg.BaseURL
	if base == "" {
		base = "https://" + s.host + "/" // always explicit, or the SDK would let an environment variable override it
	}
	header := http.Header{}
	if o.cfg.UserAgent != "" {
		header.Set("User-Agent", o.cfg.UserAgent)
	}
	c, err := genai.NewClient(ctx, &genai.ClientConfig{
		Backend: genai.BackendVertexAI, Project: s.project, Location: s.location, HTTPClient: o.client,
		HTTPOptions: genai.HTTPOptions{BaseURL: base, APIVersion: apiVersion, Headers: header},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client for lane %s: %w", lane.Name, err)
	}
	o.clients[s] = c
	return c, nil
}
