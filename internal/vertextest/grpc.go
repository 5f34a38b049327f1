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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// predictionService is PredictionService over the same model as REST.
type predictionService struct {
	aiplatformpb.UnimplementedPredictionServiceServer
	s *Server
}

// GenerateContent goes through the JSON form of the request, so that both
// transports are held to one set of rules.
func (p *predictionService) GenerateContent(ctx context.Context, req *aiplatformpb.GenerateContentRequest) (*aiplatformpb.GenerateContentResponse, error) {
	var out *aiplatformpb.GenerateContentResponse
	err := p.call(ctx, func(ctx context.Context) error {
		res, ok := parseResource(req.GetModel())
		if !ok {
			return invalid("Invalid resource field value in the request: %q", req.GetModel())
		}
		body, err := protojson.Marshal(req)
		if err != nil {
			return invalid("Invalid request: %v", err)
		}
		t, e := decodeTree(body, generateContentShape())
		if e != nil {
			return e
		}
		c, e := p.s.newCall(ctx, res, t, headerOf(ctx))
		if e != nil {
			return e
		}
		reply, err := p.ask(ctx, c)
		if err == nil {
			out = protoAnswer(reply.answer)
		}
		return err
	})
	return out, err
}

// call counts one call and turns its error into a status.
func (p *predictionService) call(ctx context.Context, f func(context.Context) error) error {
	if !p.s.enter() {
		return status.Error(codes.Unavailable, errClosed.Error())
	}
	defer p.s.active.Done()
	p.s.counters.begin()
	// Serving ends with the server, not only with the client.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.s.base, func() { cancel(errClosed) })()
	err := f(ctx)
	var e *apiError
	switch {
	case err == nil:
		p.s.counters.end(http.StatusOK)
		return nil
	case errors.As(err, &e):
	case errors.Is(err, errClosed):
		e = statusError(http.StatusServiceUnavailable)
	case ctx.Err() != nil:
		e = statusError(statusClientClosed)
	default:
		e = statusError(http.StatusInternalServerError)
	}
	p.s.counters.end(e.Code)
	_, code, _ := canonical(e.Code)
	return status.Error(code, e.Message)
}

// ask is Server.ask with the delivery faults that a unary call can have.
func (p *predictionService) ask(ctx context.Context, c *Call) (*reply, error) {
	r, err := p.s.ask(ctx, c)
	if err != nil {
		return nil, err
	}
	switch r.fate.Fault {
	case FaultCut:
		err = statusError(http.StatusServiceUnavailable)
	case FaultGarbage:
		err = statusError(http.StatusInternalServerError)
	case FaultSlow:
		err = sleep(ctx, p.s.cfg.SlowBody)
	}
	// gRPC does not tell a handler what became of its answer; a context that
	// has not ended is the best sign there is.
	p.s.record(c, r, err == nil && ctx.Err() == nil)
	return r, err
}

func headerOf(ctx context.Context) http.Header {
	h := http.Header{}
	md, _ := metadata.FromIncomingContext(ctx)
	for key, values := range md {
		for _, v := range values {
			h.Add(key, v)
		}
	}
	return h
}

// finishReasonNumber gives reasons that the public proto lacks a number. These
// are not documented for Vertex AI: they follow the sister API's proto.
func finishReasonNumber(name string) aiplatformpb.Candidate_FinishReason {
	if n, ok := aiplatformpb.Candidate_FinishReason_value[name]; ok {
		return aiplatformpb.Candidate_FinishReason(n)
	}
	switch name {
	case "IMAGE_SAFETY":
		return 11
	case "IMAGE_PROHIBITED_CONTENT":
		return 14
	case "IMAGE_OTHER":
		return 15
	case "NO_IMAGE":
		return 16
	case "IMAGE_RECITATION":
		return 17
	default:
		return 99 // a reason of the future
	}
}

func blockReasonNumber(name string) aiplatformpb.GenerateContentResponse_PromptFeedback_BlockedReason {
	if n, ok := aiplatformpb.GenerateContentResponse_PromptFeedback_BlockedReason_value[name]; ok {
		return aiplatformpb.GenerateContentResponse_PromptFeedback_BlockedReason(n)
	}
	return 99
}

func protoAnswer(a *answer) *aiplatformpb.GenerateContentResponse {
	out := &aiplatformpb.GenerateContentResponse{
		ModelVersion: a.model, ResponseId: a.responseID, CreateTime: timestamppb.New(a.createTime), UsageMetadata: protoUsage(a.usage),
	}
	if a.blockReason != "" {
		out.PromptFeedback = &aiplatformpb.GenerateContentResponse_PromptFeedback{
			BlockReason: blockReasonNumber(a.blockReason), BlockReasonMessage: a.blockMessage,
		}
		return out
	}
	candidate := &aiplatformpb.Candidate{FinishReason: finishReasonNumber(a.finishReason)}
	if a.finishMessage != "" {
		candidate.FinishMessage = &a.finishMessage
	}
	if len(a.parts) > 0 {
		candidate.Content = &aiplatformpb.Content{Role: "model"}
	}
	for _, p := range a.parts {
		part := &aiplatformpb.Part{Thought: p.thought, Data: &aiplatformpb.Part_Text{Text: p.text}}
		if p.image != nil {
			part.Data = &aiplatformpb.Part_InlineData{InlineData: &aiplatformpb.Blob{MimeType: p.image.mime, Data: p.image.bytes()}}
		}
		candidate.Content.Parts = append(candidate.Content.Parts, part)
	}
	out.Candidates = []*aiplatformpb.Candidate{candidate}
	return out
}

func protoUsage(u *usage) *aiplatformpb.GenerateContentResponse_UsageMetadata {
	if u == nil {
		return nil
	}
	details := func(in []modalityTokens) (out []*aiplatformpb.ModalityTokenCount) {
		for _, d := range in {
			out = append(out, &aiplatformpb.ModalityTokenCount{
				Modality: aiplatformpb.Modality(aiplatformpb.Modality_value[d.Modality]), TokenCount: int32(d.TokenCount),
			})
		}
		return out
	}
	traffic := aiplatformpb.GenerateContentResponse_UsageMetadata_TrafficType_value[u.TrafficType]
	return &aiplatformpb.GenerateContentResponse_UsageMetadata{
		PromptTokenCount: int32(u.PromptTokenCount), CandidatesTokenCount: int32(u.CandidatesTokenCount),
		ThoughtsTokenCount: int32(u.ThoughtsTokenCount), TotalTokenCount: int32(u.TotalTokenCount),
		PromptTokensDetails: details(u.PromptTokensDetails), CandidatesTokensDetails: details(u.CandidatesTokensDetails),
		TrafficType: aiplatformpb.GenerateContentResponse_UsageMetadata_TrafficType(traffic),
	}
}

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
		calls, err := p.predictCalls(ctx, req)
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

func (p *predictionService) predictCalls(ctx context.Context, req *aiplatformpb.PredictRequest) ([]*Call, error) {
	m := endpointName.FindStringSubmatch(req.GetEndpoint())
	if m == nil {
		return nil, invalid("Invalid resource field value in the request: %q", req.GetEndpoint())
	}
	if known := p.s.cfg.Endpoints; len(known) > 0 && !slices.Contains(known, m[3]) {
		e := statusError(http.StatusNotFound)
		e.Message = fmt.Sprintf("Endpoint `%s` not found.", req.GetEndpoint())
		return nil, e
	}
	header := headerOf(ctx)
	if p.s.cfg.Dedicated && header.Get("x-vertex-ai-endpoint-id") != m[3] {
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

func (c *Call) setInstance(instance, parameters *structpb.Struct) error {
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
