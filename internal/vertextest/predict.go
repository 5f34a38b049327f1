package vertextest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

var endpointName = regexp.MustCompile(`^projects/([^/]+)/locations/([^/]+)/endpoints/([^/:]+)$`)

// maxInstances bounds one Predict call; each instance is an image.
const maxInstances = 8

// Predict serves an endpoint with a self-deployed image model: each instance
// {"prompt": ..., "seed": ...} becomes a prediction {"bytesBase64Encoded": ...,
// "mimeType": ...}, or {"raiFilteredReason": ...} when refused. parameters may
// have aspectRatio, sampleImageSize and seed.
func (p *predictionService) Predict(ctx context.Context, req *aiplatformpb.PredictRequest) (*aiplatformpb.PredictResponse, error) {
	out := &aiplatformpb.PredictResponse{}
	err := p.call(ctx, func(ctx context.Context) error {
		calls, err := p.s.predictCalls(req, headerOf(ctx))
		if err != nil {
			return err
		}
		for _, c := range calls {
			r, err := p.ask(ctx, c)
			if err != nil {
				return err
			}
			out.Predictions = append(out.Predictions, prediction(r.answer))
		}
		out.Model, out.ModelDisplayName = calls[0].Model, calls[0].Model
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) predictCalls(req *aiplatformpb.PredictRequest, header http.Header) ([]*Call, *apiError) {
	m := endpointName.FindStringSubmatch(req.GetEndpoint())
	if m == nil {
		return nil, invalid("Invalid resource field value in the request: %q", req.GetEndpoint())
	}
	if known := s.cfg.Endpoints; len(known) > 0 && !slices.Contains(known, m[3]) {
		e := statusError(http.StatusNotFound)
		e.Message = fmt.Sprintf("Endpoint `%s` not found.", req.GetEndpoint())
		return nil, e
	}
	if s.cfg.Dedicated && header.Get("x-vertex-ai-endpoint-id") != m[3] {
		return nil, invalid("Dedicated endpoint %s needs the request metadata x-vertex-ai-endpoint-id.", m[3])
	}
	if n := len(req.GetInstances()); n == 0 || n > maxInstances {
		return nil, invalid("The request must have 1 to %d instances but has %d.", maxInstances, n)
	}
	var calls []*Call
	for _, instance := range req.GetInstances() {
		c := &Call{
			Method: "predict", Project: m[1], Location: m[2], Model: m[3], Tier: TierStandard, Labels: req.GetLabels(),
			Header: header, Size: size1K, AspectRatio: "1:1", MIMEType: "image/png", timeout: maxTimeout,
		}
		if err := c.setInstance(instance.GetStructValue(), req.GetParameters().GetStructValue()); err != nil {
			return nil, err
		}
		calls = append(calls, c)
	}
	return calls, nil
}

func (c *Call) setInstance(instance, parameters *structpb.Struct) *apiError {
	c.Prompt = instance.GetFields()["prompt"].GetStringValue()
	if c.Prompt == "" {
		return invalid("Each instance must have a prompt.")
	}
	if v := parameters.GetFields()["aspectRatio"].GetStringValue(); v != "" {
		c.AspectRatio = v
	}
	if v := parameters.GetFields()["sampleImageSize"].GetStringValue(); v != "" {
		c.Size = v
	}
	if _, _, ok := PixelSize(c.AspectRatio, c.Size); !ok {
		return invalid("Aspect ratio %q or size %q is not supported.", c.AspectRatio, c.Size)
	}
	for _, fields := range []*structpb.Struct{parameters, instance} { // an instance's own seed wins
		if v, ok := fields.GetFields()["seed"].GetKind().(*structpb.Value_NumberValue); ok {
			seed := int32(int64(v.NumberValue))
			c.Seed = &seed
		}
	}
	c.inTokens = tokens(len(c.Prompt))
	c.seal(tree{"instance": instance.AsMap(), "parameters": parameters.AsMap(), "labels": fmt.Sprint(c.Labels)})
	return nil
}

func prediction(a *answer) *structpb.Value {
	fields := map[string]*structpb.Value{}
	if img := a.image(); img != nil {
		fields["bytesBase64Encoded"] = structpb.NewStringValue(base64.StdEncoding.EncodeToString(img.bytes()))
		fields["mimeType"] = structpb.NewStringValue(img.mime)
	} else {
		fields["raiFilteredReason"] = structpb.NewStringValue(strings.TrimSpace(a.finishReason + " " + a.blockReason))
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}

// predictREST serves POST .../endpoints/E:predict with the same rules. The
// answer is one JSON value; no endpoint of this kind streams.
func (s *Server) predictREST(w http.ResponseWriter, r *http.Request, endpoint string) {
	s.counters.begin()
	out, err := s.predictAll(w, r, endpoint)
	var e *apiError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_, _ = w.Write(out) // a failed write means that the client has gone
		s.counters.end(http.StatusOK)
	case errors.As(err, &e):
		writeError(w, e)
		s.counters.end(e.Code)
	default:
		s.counters.end(s.noAnswer(w, r, err))
	}
}

func (s *Server) predictAll(w http.ResponseWriter, r *http.Request, endpoint string) ([]byte, error) {
	body, e := readBody(w, r)
	if e != nil {
		return nil, e
	}
	req := &aiplatformpb.PredictRequest{}
	if err := protojson.Unmarshal(body, req); err != nil {
		return nil, invalid("Invalid JSON payload received. %v", err)
	}
	req.Endpoint = endpoint
	calls, e := s.predictCalls(req, r.Header)
	if e != nil {
		return nil, e
	}
	resp := &aiplatformpb.PredictResponse{Model: calls[0].Model, ModelDisplayName: calls[0].Model}
	for _, c := range calls {
		reply, err := s.ask(r.Context(), c)
		if err != nil {
			return nil, err
		}
		s.record(c, reply, r.Context().Err() == nil)
		resp.Predictions = append(resp.Predictions, prediction(reply.answer))
	}
	return protojson.Marshal(resp)
}
