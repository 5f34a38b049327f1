package vertex

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"cloud.google.com/go/auth"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// endpointCall returns the call for a job by a dedicated endpoint.
func endpointCall(j *jobs.Job) worker.Call {
	return worker.Call{Job: j, Lane: worker.Lane{
		Name: "own", Project: "p-1", Location: "us-central1", Model: j.Model.ID, Tier: "dedicated", Endpoint: "e-7", Host: "e-7.us-central1-1.prediction.vertexai.goog",
	}}
}

// endpoint is a dedicated endpoint of a test.
type endpoint struct {
	aiplatformpb.UnimplementedPredictionServiceServer
	predict func(context.Context, *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error)
	calls   atomic.Int32
}

func (e *endpoint) Predict(ctx context.Context, req *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
	e.calls.Add(1)
	return e.predict(ctx, req)
}

// start serves the endpoint and returns its server and address.
func (e *endpoint) start(t *testing.T, options ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	aiplatformpb.RegisterPredictionServiceServer(s, e)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return s, l.Addr().String()
}

func at(address string) func(*Config) {
	return func(c *Config) { c.BaseURL, c.EndpointAddr = "", address }
}

// predictions returns a response of that many predictions, each with the fields given.
func predictions(t *testing.T, all ...map[string]any) *aiplatformpb.PredictResponse {
	t.Helper()
	resp := &aiplatformpb.PredictResponse{Model: "projects/p-1/models/m", ModelVersionId: "3"}
	for _, fields := range all {
		v, err := structpb.NewValue(fields)
		if err != nil {
			t.Fatal(err)
		}
		resp.Predictions = append(resp.Predictions, v)
	}
	return resp
}

func TestEmulatorEndpoint(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, vertextest.Config{PlainPictures: true, Dedicated: true, Endpoints: []string{"e-7"}})
	o := newOnline(t, s.URL(), func(c *Config) { c.EndpointAddr = s.GRPCAddr() })
	price := jobs.USD(20_000_000)
	for _, prompt := range []string{"a cup", "a cup [[bytes:5000000]]"} {
		for _, p := range []*jobs.USD{nil, &price} {
			call := endpointCall(newJob(t, func(m *schemas.Job) { m.Prompt, m.Size, m.AspectRatio = prompt, "2K", "16:9" }))
			call.Lane.ImagePrice = p
			call.Prefix = testPrefix // which endpoints know nothing of
			a, err := o.Generate(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			if a.Reason != jobs.ReasonImage || a.Image.Width != 2752 || a.UsageMissing != (p == nil) || (a.Usage.Image > 0) != (p == nil) {
				t.Errorf("answer %+v, image %+v", a, a.Image)
			}
			checkImage(t, a, prompt)
		}
	}
	a, err := o.Generate(t.Context(), endpointCall(newJob(t, func(m *schemas.Job) { m.Prompt = "a cup [[refuse:output]]" })))
	if err != nil || a.Reason != jobs.ReasonOutputFilter || !strings.Contains(a.Detail, "IMAGE_SAFETY") {
		t.Errorf("a refusal: %+v, %v", a, err)
	}
	for prompt, want := range map[string]worker.Kind{"[[fault:429]]": worker.Throttled, "[[fault:503]]": worker.Throttled, "[[fault:500]]": worker.Failing} {
		_, err := o.Generate(t.Context(), endpointCall(newJob(t, func(m *schemas.Job) { m.Prompt = "a cup " + prompt })))
		var e *worker.CallError
		if !errors.As(err, &e) || e.Kind != want {
			t.Errorf("%s: %v", prompt, err)
		}
	}
	call := endpointCall(newJob(t, nil))
	call.Lane.Endpoint = "e-8"
	var e *worker.CallError
	if _, err := o.Generate(t.Context(), call); !errors.As(err, &e) || e.Kind != worker.Denied {
		t.Errorf("an endpoint that is not there: %v", err)
	}
	if err := o.Check(t.Context(), call.Lane); err != nil {
		t.Errorf("check: %v", err)
	}
}

func TestPredictRequest(t *testing.T) {
	t.Parallel()
	seed := int32(7)
	requests := make(chan *aiplatformpb.PredictRequest, 1)
	headers := make(chan metadata.MD, 1)
	e := &endpoint{predict: func(ctx context.Context, req *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		requests <- req
		headers <- md
		return predictions(t), nil
	}}
	_, address := e.start(t)
	o := newOnline(t, "", at(address))
	a, err := o.Generate(t.Context(), endpointCall(newJob(t, func(m *schemas.Job) { m.Prompt, m.Seed, m.AspectRatio = "a <red> cup", &seed, "4:5" })))
	if err != nil || a.Reason != jobs.ReasonNoImage || a.ModelVersion != "projects/p-1/models/m@3" {
		t.Errorf("%+v, %v", a, err)
	}
	value := func(v map[string]any) *structpb.Value {
		s, err := structpb.NewValue(v)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := &aiplatformpb.PredictRequest{
		Endpoint:   "projects/p-1/locations/us-central1/endpoints/e-7",
		Instances:  []*structpb.Value{value(map[string]any{"prompt": "a <red> cup"})},
		Parameters: value(map[string]any{"sampleCount": 1, "aspectRatio": "4:5", "sampleImageSize": "1K", "seed": 7}),
		Labels:     map[string]string{"campaign": "spring-2026", "client": "acme"},
	}
	if diff := cmp.Diff(want, <-requests, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	h := <-headers
	if got := h.Get(endpointHeader); len(got) != 1 || got[0] != "e-7" || !strings.Contains(strings.Join(h.Get("user-agent"), " "), "assetmill/test") || len(h.Get("authorization")) > 0 {
		t.Errorf("headers %v", h)
	}

	for name, edit := range map[string]func(*schemas.Job){
		"system":     func(m *schemas.Job) { m.System = "s" },
		"references": func(m *schemas.Job) { m.References = []string{"gs://bkt/o.png"} },
		"turns":      func(m *schemas.Job) { m.Turns = []*schemas.Job_Turn{{Prompt: "p", Image: "gs://bkt/o.png"}} },
		"safety":     func(m *schemas.Job) { m.Safety = map[string]string{"hate": "off"} },
	} {
		_, err := o.Generate(t.Context(), endpointCall(newJob(t, edit)))
		var ce *worker.CallError
		if !errors.As(err, &ce) || ce.Kind != worker.Rejected || ce.Reason != jobs.ReasonRejected || ce.Detail == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := e.calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestPredictions(t *testing.T) {
	t.Parallel()
	pic := pngImage(t, 64, 36)
	b64 := base64.StdEncoding.EncodeToString(pic)
	tests := []struct {
		name   string
		fields []map[string]any
		reason jobs.Reason
		detail string
	}{
		{"image", []map[string]any{{"bytesBase64Encoded": b64, "mimeType": "image/png"}}, jobs.ReasonImage, ""},
		{"image of unknown type", []map[string]any{{"bytesBase64Encoded": b64}}, jobs.ReasonImage, ""},
		{"without padding", []map[string]any{{"bytesBase64Encoded": strings.TrimRight(b64, "="), "mimeType": "image/png"}}, jobs.ReasonImage, ""},
		{"two images", []map[string]any{{"bytesBase64Encoded": b64}, {"bytesBase64Encoded": "aGk="}}, jobs.ReasonImage, ""},
		{"filtered", []map[string]any{{"raiFilteredReason": "unsafe: A red bicycle leaning against a white wall"}}, jobs.ReasonOutputFilter, "unsafe: [prompt]"},
		{"filtered in spite of an image", []map[string]any{{"raiFilteredReason": "unsafe", "bytesBase64Encoded": b64}}, jobs.ReasonOutputFilter, "unsafe"},
		{"nothing", nil, jobs.ReasonNoImage, "the endpoint returned no prediction"},
		{"something else", []map[string]any{{"label": "cat"}}, jobs.ReasonBadAnswer, "the prediction has no bytesBase64Encoded"},
		{"no base64", []map[string]any{{"bytesBase64Encoded": "***"}}, jobs.ReasonBadAnswer, "the image is not base64"},
		{"no image", []map[string]any{{"bytesBase64Encoded": "aGVsbG8=", "mimeType": "image/png"}}, jobs.ReasonBadAnswer, `the 5 bytes that came as "image/png" are no image`},
		{"too large an image", []map[string]any{{"bytesBase64Encoded": base64.StdEncoding.EncodeToString(append(pic, make([]byte, 200_000)...))}}, jobs.ReasonBadAnswer, "image is larger than the limit of 100000 bytes"},
		{"too large an answer", []map[string]any{{"bytesBase64Encoded": strings.Repeat("A", maxPredictBytes)}}, jobs.ReasonBadAnswer, fmt.Sprintf("the answer is larger than %d bytes", maxPredictBytes)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := &endpoint{predict: func(context.Context, *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
				return predictions(t, test.fields...), nil
			}}
			_, address := e.start(t)
			o := newOnline(t, "", at(address))
			o.maxImage = 100_000
			a, err := o.Generate(t.Context(), endpointCall(newJob(t, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if a.Reason != test.reason || a.Detail != test.detail {
				t.Errorf("%+v", a)
			}
			if a.Image != nil {
				if a.Image.Blob.Len() != int64(len(pic)) || a.Image.MimeType != "image/png" || a.Image.Width != 64 || a.Image.Height != 36 {
					t.Errorf("image %+v", a.Image)
				}
				a.Image.Blob.Release()
			}
		})
	}
}

func TestPredictErrors(t *testing.T) {
	t.Parallel()
	retry, err := status.New(codes.ResourceExhausted, "slower").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		err    error
		kind   worker.Kind
		reason jobs.Reason
		status int
		after  time.Duration
	}{
		{status.Error(codes.ResourceExhausted, "quota"), worker.Throttled, "", 429, 0},
		{retry.Err(), worker.Throttled, "", 429, 3 * time.Second},
		{status.Error(codes.Unavailable, "no replica"), worker.Throttled, "", 503, 0},
		{status.Error(codes.Internal, "oops"), worker.Failing, "", 500, 0},
		{status.Error(codes.Unknown, "oops"), worker.Failing, "", 500, 0},
		{status.Error(codes.DeadlineExceeded, "slow"), worker.Failing, "", 504, 0},
		{status.Error(codes.Aborted, "aborted"), worker.Failing, "", 409, 0},
		{status.Error(codes.Canceled, "gone"), worker.Unanswered, "", 499, 0},
		{status.Error(codes.InvalidArgument, "bad: A red bicycle leaning against a white wall"), worker.Rejected, jobs.ReasonRejected, 400, 0},
		{status.Error(codes.FailedPrecondition, "no model is deployed"), worker.Denied, "", 400, 0},
		{status.Error(codes.PermissionDenied, "no"), worker.Denied, "", 403, 0},
		{status.Error(codes.Unauthenticated, "who"), worker.Denied, "", 401, 0},
		{status.Error(codes.NotFound, "nothing"), worker.Denied, "", 404, 0},
		{status.Error(codes.Unimplemented, "what"), worker.Denied, "", 404, 0},
	}
	for _, test := range tests {
		e := &endpoint{predict: func(context.Context, *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
			return nil, test.err
		}}
		_, address := e.start(t)
		call := endpointCall(newJob(t, nil))
		_, err := newOnline(t, "", at(address)).Generate(t.Context(), call)
		var ce *worker.CallError
		if !errors.As(err, &ce) || ce.Kind != test.kind || ce.Reason != test.reason || ce.Status != test.status || ce.RetryAfter != test.after || ce.Lane != call.Lane {
			t.Errorf("%v: %+v", test.err, ce)
		}
		if strings.Contains(err.Error(), "red bicycle") {
			t.Errorf("the error repeats the prompt: %v", err)
		}
		if n := e.calls.Load(); n != 1 {
			t.Errorf("%v: %d calls", test.err, n)
		}
	}
}

func TestPredictWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancelled, cancelBefore := context.WithCancel(t.Context())
	cancelBefore()
	arrived := make(chan string, 3)
	e := &endpoint{predict: func(ctx context.Context, req *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
		arrived <- req.GetInstances()[0].GetStructValue().GetFields()["prompt"].GetStringValue()
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}}
	server, address := e.start(t)
	go func() {
		for prompt := range arrived {
			switch prompt {
			case "cancel":
				cancel()
			case "cut":
				server.Stop()
			}
		}
	}()
	t.Cleanup(func() { close(arrived) })
	tests := []struct {
		name, address string
		ctx           context.Context
		timeout       time.Duration
		kind          worker.Kind
		is            error
	}{
		{"nobody there", nobody, t.Context(), 0, worker.Unreached, nil},
		{"cancelled before", address, cancelled, 0, worker.Interrupted, context.Canceled},
		{"cancel", address, ctx, 0, worker.Unanswered, context.Canceled},
		{"timeout", address, t.Context(), 300 * time.Millisecond, worker.Unanswered, errCallTimeout},
		{"cut", address, t.Context(), 0, worker.Unanswered, nil}, // last: it ends the server
	}
	for _, test := range tests {
		o := newOnline(t, "", func(c *Config) { c.BaseURL, c.EndpointAddr, c.CallTimeout = "", test.address, test.timeout })
		_, err := o.Generate(test.ctx, endpointCall(newJob(t, func(m *schemas.Job) { m.Prompt = test.name })))
		var ce *worker.CallError
		if !errors.As(err, &ce) || ce.Kind != test.kind || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestPredictWaitsForTheBudget(t *testing.T) {
	t.Parallel()
	e := &endpoint{predict: func(context.Context, *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
		return predictions(t, map[string]any{"bytesBase64Encoded": base64.StdEncoding.EncodeToString(pngImage(t, 8, 8))}), nil
	}}
	_, address := e.start(t)
	o := newOnline(t, "", at(address))
	hold, err := o.cfg.Budget.Reserve(t.Context(), capacity, capacity)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("stopping")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
	defer cancel()
	var ce *worker.CallError
	if _, err := o.Generate(ctx, endpointCall(newJob(t, nil))); !errors.As(err, &ce) || ce.Kind != worker.Unanswered || !errors.Is(err, why) {
		t.Errorf("while the budget is taken: %v", err)
	}
	hold.Release()
	a, err := o.Generate(t.Context(), endpointCall(newJob(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	a.Image.Blob.Release()
}

// TestPredictCredentials checks that credentials go over TLS only, and that a missing token is told from a network that fails.
func TestPredictCredentials(t *testing.T) {
	t.Parallel()
	headers := make(chan metadata.MD, 1)
	e := &endpoint{predict: func(ctx context.Context, _ *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		headers <- md
		return predictions(t), nil
	}}
	lender := httptest.NewTLSServer(nil) // of its certificate
	lender.Close()
	_, address := e.start(t, grpc.Creds(credentials.NewServerTLSFromCert(&lender.TLS.Certificates[0])))
	trusted := x509.NewCertPool()
	trusted.AddCert(lender.Certificate())
	expired := &auth.Error{Response: &http.Response{StatusCode: 400}, Body: []byte(`{"error":"invalid_grant"}`)}
	tests := []struct {
		name string
		err  error
		want worker.Kind
	}{{"good", nil, 0}, {"expired", expired, worker.Denied}, {"metadata server unreachable", errors.New("dial"), worker.Unreached}}
	for _, test := range tests {
		o := newOnline(t, "", func(c *Config) {
			c.NoAuth, c.BaseURL = false, ""
			c.Credentials = auth.NewCredentials(&auth.CredentialsOptions{
				TokenProvider: tokens{test.err}, QuotaProjectIDProvider: property("q-1"), UniverseDomainProvider: property("googleapis.com"),
			})
			c.endpointOptions = []option.ClientOption{
				option.WithEndpoint(address), option.WithGRPCDialOption(grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(trusted, "example.com"))),
			}
		})
		call := endpointCall(newJob(t, nil))
		_, err := o.Generate(t.Context(), call)
		check := o.Check(t.Context(), call.Lane)
		if test.want == 0 {
			if err != nil || check != nil {
				t.Fatal(err, check)
			}
			if h := <-headers; len(h.Get("authorization")) != 1 || h.Get("authorization")[0] != "Bearer secret" || len(h.Get("x-goog-user-project")) != 1 {
				t.Errorf("headers %v", h)
			}
			continue
		}
		for _, err := range []error{err, check} {
			var ce *worker.CallError
			if !errors.As(err, &ce) || ce.Kind != test.want {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
		}
	}
	if n := e.calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// Without an emulator for endpoints, an emulator's worker must not reach the real ones.
func TestEndpointsUnderAnEmulator(t *testing.T) {
	t.Parallel()
	o := newOnline(t, "http://127.0.0.1:1", nil)
	call := endpointCall(newJob(t, nil))
	_, err := o.Generate(t.Context(), call)
	for _, err := range []error{err, o.Check(t.Context(), call.Lane)} {
		var ce *worker.CallError
		if !errors.As(err, &ce) || ce.Kind != worker.Denied {
			t.Errorf("%v", err)
		}
	}
	for host, want := range map[string]string{"a.b": "a.b:443", "a.b:80": "a.b:80", "10.0.0.1": "10.0.0.1:443"} {
		if got := withPort(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
