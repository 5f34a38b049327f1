package vertextest

import (
	"context"
	"errors"
	"net/http"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
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
	return e.grpcError()
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
		switch {
		case p.uri != "":
			part.Data = &aiplatformpb.Part_FileData{FileData: &aiplatformpb.FileData{MimeType: p.image.mime, FileUri: p.uri}}
		case p.image != nil:
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
