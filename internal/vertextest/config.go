package vertextest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Tiers in which a call can be served, as the call log names them. The request
// headers X-Vertex-AI-LLM-Request-Type and X-Vertex-AI-LLM-Shared-Request-Type
// choose one.
const (
	TierStandard    = "standard"
	TierFlex        = "flex"
	TierProvisioned = "provisioned"
	TierBatch       = "batch" // rows of batch prediction jobs; no header asks for it
)

// Defaults and bounds.
const (
	defaultSlowBody = 2 * time.Second

	// defaultQuotaBurst is how much unused quota is kept: the service spaces
	// calls below one second, so a client that sends a minute's quota at once is
	// throttled.
	defaultQuotaBurst = 250 * time.Millisecond

	defaultNoisePeriod = 5 * time.Second

	// maxLatency bounds a configured or directed latency: the longest deadline
	// that the service grants is 30 minutes (Flex).
	maxLatency = 30 * time.Minute

	// maxImageBytes bounds [[bytes:N]] and Config.ImageBytes; a 4K PNG is about 25 MB.
	maxImageBytes = 256 << 20
)

// Config is what a [Server] does. The zero value serves every model at once
// (no latency), without faults, refusals or quota, in plain text on free ports
// of the loopback interface.
type Config struct {
	// Addr and GRPCAddr are the addresses to listen on. Default 127.0.0.1:0.
	Addr, GRPCAddr string
	// TLS serves both transports with a certificate made for this server; see
	// [Server.CACert]. It covers localhost, 127.0.0.1 and ::1.
	TLS bool
	// Gzip compresses answers for clients that accept it, as the service does.
	Gzip bool

	// Models replaces [DefaultModels].
	Models []Model
	// Endpoints are the endpoint ids that Predict knows. Empty: every id.
	Endpoints []string
	// Dedicated makes the endpoints dedicated ones: Predict then needs the
	// metadata x-vertex-ai-endpoint-id.
	Dedicated bool
	// ReferenceExists says whether a gs:// reference exists. Nil: all do. An
	// error answers the call with 500. It must be safe for concurrent use.
	ReferenceExists func(ctx context.Context, bucket, object string) (bool, error)
	// DirectOutput says by model id what becomes of outputConfig.outputUriPrefix.
	// A model that is not named ignores it.
	DirectOutput map[string]DirectOutput
	// CreateObject opens a new object in Cloud Storage, replacing one of that
	// name, as the service agent. Close makes the object visible as a whole;
	// when ctx ends before Close, nothing becomes visible. An error that is
	// [io/fs.ErrPermission] or [io/fs.ErrNotExist] (no such bucket) is told to
	// the caller as such. It must be safe for concurrent use. Needed by
	// DirectHonoured.
	CreateObject func(ctx context.Context, bucket, name, contentType string) (io.WriteCloser, error)
	// OpenObject reads an object of Cloud Storage, as the service agent, with the
	// same meaning of errors. Batch prediction needs both.
	OpenObject func(ctx context.Context, bucket, name string) (io.ReadCloser, error)
	// Batch is how batch prediction jobs run.
	Batch Batch

	// Seed changes every random choice below.
	Seed uint64
	// MinLatency and MaxLatency bound the time from request to first byte. Each
	// prompt and seed has its own latency between them. At most 30 minutes.
	MinLatency, MaxLatency time.Duration
	// RequestsPerMinute is the quota of each (project, location, model, tier).
	// 0: none. [Server.SetRequestsPerMinute] changes it while serving.
	RequestsPerMinute float64
	// TierRequestsPerMinute overrides RequestsPerMinute by tier. An entry for
	// TierProvisioned means that throughput was bought: calls that don't choose
	// between dedicated and shared use it first and spill over when it is used up.
	TierRequestsPerMinute map[string]float64
	// QuotaSteps change the quota at fixed times, in order of After.
	QuotaSteps []QuotaStep
	// QuotaNoise is how much other tenants change the quota, as a share up or
	// down, 0 to 1, wandering between random values QuotaNoisePeriod (default
	// 5 s) apart.
	QuotaNoise       float64
	QuotaNoisePeriod time.Duration
	// QuotaGrowth is by how many requests per minute the admitted rate of a lane
	// may grow in a minute; what comes faster is throttled although the quota is
	// not used up. It is also the rate at which a lane starts. 0: no bound.
	QuotaGrowth float64
	// RetryAfter is told with each 429, in whole seconds rounded up: the header
	// Retry-After over REST, RetryInfo over gRPC. 0: not told, as observed.
	RetryAfter time.Duration
	// QuotaBurst is how much unused quota is kept, as time. Default 250 ms. One
	// call can always be kept.
	QuotaBurst time.Duration
	// MaxInFlight throttles calls beyond so many at once. 0: no bound.
	MaxInFlight int
	// GateAt holds answers that are ready until so many are, and then sends them
	// at the same moment, group after group. A group that never fills waits until
	// [Server.OpenGate], or GateWait after its first answer if that is set. 0: no gate.
	GateAt   int
	GateWait time.Duration

	Refusals Refusals
	Faults   Faults
	// TextPart, ThoughtImage and MissingUsage are the shares of answers, 0 to 1,
	// with a text part first, with an interim image marked thought, and without
	// usageMetadata.
	TextPart, ThoughtImage, MissingUsage float64
	// SlowBody is how long a slow body takes. Default 2 s.
	SlowBody time.Duration
	// BillAbandoned lets the model finish, and bills, calls whose client left.
	BillAbandoned bool

	// ImageBytes pads every image file to so many bytes (0: as drawn).
	ImageBytes int
	// PlainPictures draws bands without text: some hundred times cheaper, for
	// benchmarks in which the model must not be what is measured. The pixel
	// size and the embedded hashes are the same.
	PlainPictures bool
	// VaryRepeats draws a different image each time the same request comes, as
	// the real model does. By default the same request has the same image.
	VaryRepeats bool

	// Hook sees each call that passed validation and the quota, with the fate
	// that the rates and directives chose, and returns the fate it gets. It must
	// be safe for concurrent use and must not keep the call.
	Hook func(c *Call, f Fate) Fate
	// CallLog gets one JSON line ([CallRecord]) for each answer that the model
	// made. Writes are serialized. Errors are counted in [Stats.LogErrors].
	CallLog io.Writer
}

// Refusals are shares of calls, 0 to 1, that the model refuses, by kind.
type Refusals struct {
	Prompt  float64 // promptFeedback.blockReason, no candidate
	Output  float64 // finishReason of the IMAGE_ group, no content
	Text    float64 // STOP with text and no image
	NoImage float64 // finishReason NO_IMAGE
}

// Faults are shares of calls, 0 to 1, that fail, by kind.
type Faults struct {
	Internal    float64 // 500
	Unavailable float64 // 503
	Hang        float64 // no answer until the client gives up
	Cut         float64 // the body breaks off in the middle
	Garbage     float64 // 200 with a body that is not JSON
	Slow        float64 // the body trickles
	Lost        float64 // the answer is made, written where it belongs, billed, and never sent
}

// Fault is a kind of failure.
type Fault int

// The kinds of failure. With FaultLost the model answers, its images are
// written below outputUriPrefix if that was asked for and the call is billed,
// but the client gets Fate.Status, or nothing at all when that is 0. Over gRPC, which has no body to break, FaultCut is
// UNAVAILABLE, FaultGarbage is INTERNAL and FaultSlow adds Config.SlowBody
// before the answer; who is billed stays the same.
const (
	FaultNone Fault = iota
	FaultStatus
	FaultHang
	FaultCut
	FaultGarbage
	FaultSlow
	FaultLost
)

// Refusal is a kind of answer without an image.
type Refusal int

// The kinds of refusal.
const (
	RefusalNone Refusal = iota
	RefusalPrompt
	RefusalOutput
	RefusalText
)

// Fate is what happens to one call.
type Fate struct {
	// Latency from request to first byte.
	Latency time.Duration
	// Fault, and with FaultStatus the HTTP Status that is answered. With
	// FaultLost, Status 0 is silence.
	Fault  Fault
	Status int
	// Refusal, and its blockReason (RefusalPrompt) or finishReason
	// (RefusalOutput).
	Refusal Refusal
	Reason  string
	// Parts and form of an answer.
	TextPart, ThoughtImage, TwoImages, NoUsage, Escape bool
	// Bytes pads the image file to so many bytes; 0 leaves it alone.
	Bytes int
}

func (c *Config) setDefaults() {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.GRPCAddr == "" {
		c.GRPCAddr = "127.0.0.1:0"
	}
	if c.Models == nil {
		c.Models = DefaultModels()
	}
	if c.QuotaBurst == 0 {
		c.QuotaBurst = defaultQuotaBurst
	}
	c.Batch.setDefaults()
	if c.QuotaNoisePeriod == 0 {
		c.QuotaNoisePeriod = defaultNoisePeriod
	}
	if c.SlowBody == 0 {
		c.SlowBody = defaultSlowBody
	}
	if c.MaxLatency < c.MinLatency {
		c.MaxLatency = c.MinLatency
	}
}

func (c *Config) validate() error {
	var errs []error
	share := func(name string, parts ...float64) {
		sum := 0.0
		for _, p := range parts {
			if !(p >= 0) { // also catches NaN
				errs = append(errs, fmt.Errorf("%s: share %v is not 0 to 1", name, p))
			}
			sum += p
		}
		if sum > 1 {
			errs = append(errs, fmt.Errorf("%s: shares add up to %v, more than 1", name, sum))
		}
	}
	share("Refusals", c.Refusals.Prompt, c.Refusals.Output, c.Refusals.Text, c.Refusals.NoImage)
	share("Faults", c.Faults.Internal, c.Faults.Unavailable, c.Faults.Hang, c.Faults.Cut, c.Faults.Garbage, c.Faults.Slow, c.Faults.Lost)
	share("TextPart", c.TextPart)
	share("ThoughtImage", c.ThoughtImage)
	share("MissingUsage", c.MissingUsage)
	if c.MinLatency < 0 || c.MaxLatency > maxLatency {
		errs = append(errs, fmt.Errorf("latency %v to %v is not within 0 to %v", c.MinLatency, c.MaxLatency, maxLatency))
	}
	if c.ImageBytes < 0 || c.ImageBytes > maxImageBytes {
		errs = append(errs, fmt.Errorf("ImageBytes %d is not within 0 to %d", c.ImageBytes, maxImageBytes))
	}
	if c.RequestsPerMinute < 0 || c.MaxInFlight < 0 || c.QuotaBurst < 0 || c.SlowBody < 0 {
		errs = append(errs, errors.New("RequestsPerMinute, MaxInFlight, QuotaBurst and SlowBody cannot be negative"))
	}
	errs = append(errs, c.Batch.validate(share)...)
	errs = append(errs, c.validateQuota()...)
	errs = append(errs, c.validateHooks()...)
	return errors.Join(errs...)
}

func (c *Config) validateQuota() (errs []error) {
	for tier, rpm := range c.TierRequestsPerMinute {
		if rpm < 0 {
			errs = append(errs, fmt.Errorf("TierRequestsPerMinute[%q] is negative", tier))
		}
	}
	if !(c.QuotaNoise >= 0 && c.QuotaNoise <= 1) || c.QuotaNoisePeriod < 0 || c.QuotaGrowth < 0 || c.RetryAfter < 0 {
		errs = append(errs, errors.New("QuotaNoise is not 0 to 1, or QuotaNoisePeriod, QuotaGrowth or RetryAfter is negative"))
	}
	if c.GateAt < 0 || c.GateWait < 0 {
		errs = append(errs, errors.New("GateAt and GateWait cannot be negative"))
	}
	for i, s := range c.QuotaSteps {
		if s.RequestsPerMinute < 0 || s.After < 0 || i > 0 && s.After < c.QuotaSteps[i-1].After {
			errs = append(errs, fmt.Errorf("QuotaSteps[%d]: negative or out of order", i))
		}
	}
	return errs
}

func (c *Config) validateHooks() (errs []error) {
	for model, kind := range c.DirectOutput {
		if kind < DirectIgnored || kind > DirectDenied {
			errs = append(errs, fmt.Errorf("DirectOutput[%q]: unknown kind %d", model, kind))
		}
		if kind == DirectHonoured && c.CreateObject == nil {
			errs = append(errs, fmt.Errorf("DirectOutput[%q] is honoured without CreateObject", model))
		}
	}
	return errs
}
