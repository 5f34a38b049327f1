package vertextest_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/genai"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func prediction(t *testing.T, s *vertextest.Server) aiplatformpb.PredictionServiceClient {
	t.Helper()
	creds := insecure.NewCredentials()
	if s.CACert() != nil {
		creds = credentials.NewTLS(tlsConfig(s))
	}
	conn, err := grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return aiplatformpb.NewPredictionServiceClient(conn)
}

func protoRequest(prompt string) *aiplatformpb.GenerateContentRequest {
	return &aiplatformpb.GenerateContentRequest{
		Model:    "projects/p/locations/global/publishers/google/models/gemini-3-pro-image",
		Contents: []*aiplatformpb.Content{{Role: "user", Parts: []*aiplatformpb.Part{{Data: &aiplatformpb.Part_Text{Text: prompt}}}}},
		Labels:   map[string]string{"campaign": "spring"},
		GenerationConfig: &aiplatformpb.GenerationConfig{
			Seed: proto.Int32(5), ResponseModalities: []aiplatformpb.GenerationConfig_Modality{aiplatformpb.GenerationConfig_IMAGE},
			ImageConfig: &aiplatformpb.ImageConfig{ImageSize: proto.String("2K"), AspectRatio: proto.String("4:5")},
		},
	}
}

func TestGRPCGenerateContent(t *testing.T) {
	t.Parallel()
	for _, tls := range []bool{false, true} {
		var log safeBuffer
		s := start(t, vertextest.Config{TLS: tls, CallLog: &log})
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-vertex-ai-llm-request-type", "dedicated")
		resp, err := prediction(t, s).GenerateContent(ctx, protoRequest("A lighthouse"), grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			t.Fatal(err)
		}
		blob := resp.Candidates[0].Content.Parts[0].GetInlineData()
		checkPicture(t, blob.GetData(), "image/png", 1856, 2304)
		if hash, _ := vertextest.PromptHash(blob.GetData()); hash != sum([]byte("A lighthouse")) {
			t.Error("wrong picture")
		}
		u := resp.UsageMetadata
		if u.CandidatesTokenCount != 1120 || u.TrafficType != aiplatformpb.GenerateContentResponse_UsageMetadata_PROVISIONED_THROUGHPUT ||
			u.CandidatesTokensDetails[0].Modality != aiplatformpb.Modality_IMAGE || resp.Candidates[0].FinishReason != aiplatformpb.Candidate_STOP {
			t.Errorf("usage %v, finish %v", u, resp.Candidates[0].FinishReason)
		}
		if recs := log.records(t); len(recs) != 1 || recs[0].Image != sum(blob.GetData()) || *recs[0].Seed != 5 || recs[0].Tier != "provisioned" || !recs[0].Delivered {
			t.Errorf("call log %+v", recs)
		}
	}
}

func TestSameFateOverBothTransports(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	resp, err := prediction(t, s).GenerateContent(t.Context(), protoRequest("x"), grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	rest := generate(t, s, `{"contents":[{"role":"user","parts":[{"text":"x"}]}],"labels":{"campaign":"spring"},
		"generationConfig":{"seed":5,"responseModalities":["IMAGE"],"imageConfig":{"imageSize":"2K","aspectRatio":"4:5"}}}`)
	if sum(resp.Candidates[0].Content.Parts[0].GetInlineData().GetData()) != sum(rest.images()[0]) {
		t.Error("the same request has another image over REST")
	}
}

func TestGRPCErrors(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log})
	c := prediction(t, s)
	broken := func(change func(*aiplatformpb.GenerateContentRequest)) *aiplatformpb.GenerateContentRequest {
		r := protoRequest("x")
		change(r)
		return r
	}
	for _, tc := range []struct {
		name   string
		req    *aiplatformpb.GenerateContentRequest
		code   codes.Code
		billed int
	}{
		{"model", broken(func(r *aiplatformpb.GenerateContentRequest) {
			r.Model = strings.Replace(r.Model, "global", "europe-west4", 1)
		}), codes.NotFound, 0},
		{"name", broken(func(r *aiplatformpb.GenerateContentRequest) { r.Model = "gemini-3-pro-image" }), codes.InvalidArgument, 0},
		{"size", broken(func(r *aiplatformpb.GenerateContentRequest) {
			r.GenerationConfig.ImageConfig.ImageSize = proto.String("8K")
		}), codes.InvalidArgument, 0},
		{"labels", broken(func(r *aiplatformpb.GenerateContentRequest) { r.Labels["A"] = "b" }), codes.InvalidArgument, 0},
		{"429", protoRequest("[[fault:429]]"), codes.ResourceExhausted, 0},
		{"500", protoRequest("[[fault:500]]"), codes.Internal, 0},
		{"cut is billed", protoRequest("[[fault:cut]]"), codes.Unavailable, 1},
		{"garbage is billed", protoRequest("[[fault:garbage]]"), codes.Internal, 1},
	} {
		before := len(log.records(t))
		_, err := c.GenerateContent(t.Context(), tc.req)
		if status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.code)
		}
		recs := log.records(t)
		if len(recs)-before != tc.billed {
			t.Errorf("%s: %d lines in the call log, want %d", tc.name, len(recs)-before, tc.billed)
		} else if tc.billed > 0 && recs[len(recs)-1].Delivered {
			t.Errorf("%s: delivered", tc.name)
		}
	}
}

func TestGRPCRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	c := prediction(t, s)
	for directive, want := range map[string]aiplatformpb.Candidate_FinishReason{
		"refuse:output": 11, "refuse:none": 16, "refuse:SAFETY": aiplatformpb.Candidate_SAFETY, "refuse:IMAGE_FUTURE_REASON": 99,
	} {
		resp, err := c.GenerateContent(t.Context(), protoRequest("[["+directive+"]]"))
		if err != nil || resp.Candidates[0].FinishReason != want || resp.Candidates[0].Content != nil {
			t.Errorf("%s: %v %v, want finish reason %d", directive, resp, err, want)
		}
	}
	resp, err := c.GenerateContent(t.Context(), protoRequest("[[refuse:prompt]]"))
	if err != nil || resp.PromptFeedback.GetBlockReason() != aiplatformpb.GenerateContentResponse_PromptFeedback_PROHIBITED_CONTENT || len(resp.Candidates) != 0 {
		t.Errorf("blocked prompt: %v %v", resp, err)
	}
}

func TestGRPCHangEndsWithTheClient(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	s := start(t, vertextest.Config{Hook: func(_ *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		arrived <- struct{}{}
		return f
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := prediction(t, s).GenerateContent(ctx, protoRequest("[[fault:hang]]")); status.Code(err) != codes.Canceled {
		t.Errorf("%v, want Canceled", err)
	}
}

func TestPredict(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log, Dedicated: true, Endpoints: []string{"77"}})
	c := prediction(t, s)
	instance := func(fields map[string]any) *structpb.Value {
		v, err := structpb.NewValue(fields)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	dedicated := metadata.AppendToOutgoingContext(t.Context(), "x-vertex-ai-endpoint-id", "77")
	request := func(endpoint string, instances ...*structpb.Value) *aiplatformpb.PredictRequest {
		return &aiplatformpb.PredictRequest{
			Endpoint: "projects/p/locations/us-central1/endpoints/" + endpoint, Instances: instances,
			Parameters: instance(map[string]any{"aspectRatio": "16:9", "seed": 3}), Labels: map[string]string{"row": "1"},
		}
	}
	resp, err := c.Predict(dedicated, request("77", instance(map[string]any{"prompt": "A mug"}), instance(map[string]any{"prompt": "[[refuse:output]]"})))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Predictions) != 2 {
		t.Fatalf("%d predictions, want 2", len(resp.Predictions))
	}
	first := resp.Predictions[0].GetStructValue().AsMap()
	file, err := base64.StdEncoding.DecodeString(first["bytesBase64Encoded"].(string))
	if err != nil {
		t.Fatal(err)
	}
	checkPicture(t, file, first["mimeType"].(string), 1376, 768)
	if hash, _ := vertextest.PromptHash(file); hash != sum([]byte("A mug")) {
		t.Error("wrong picture")
	}
	if second := resp.Predictions[1].GetStructValue().AsMap(); second["raiFilteredReason"] != "IMAGE_SAFETY" || second["bytesBase64Encoded"] != nil {
		t.Errorf("refused prediction %v", second)
	}
	recs := log.records(t)
	if len(recs) != 2 || recs[0].Method != "predict" || recs[0].Model != "77" || *recs[0].Seed != 3 || recs[0].Labels["row"] != "1" || recs[1].Result != "refused" {
		t.Errorf("call log %+v", recs)
	}
	for name, tc := range map[string]struct {
		ctx  context.Context
		req  *aiplatformpb.PredictRequest
		code codes.Code
	}{
		"no endpoint id":   {t.Context(), request("77", instance(map[string]any{"prompt": "x"})), codes.InvalidArgument},
		"unknown endpoint": {dedicated, request("78", instance(map[string]any{"prompt": "x"})), codes.NotFound},
		"no instance":      {dedicated, request("77"), codes.InvalidArgument},
		"no prompt":        {dedicated, request("77", instance(map[string]any{"text": "x"})), codes.InvalidArgument},
		"a model":          {dedicated, &aiplatformpb.PredictRequest{Endpoint: "projects/p/locations/global/publishers/google/models/m"}, codes.InvalidArgument},
	} {
		if _, err := c.Predict(tc.ctx, tc.req); status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %v", name, err, tc.code)
		}
	}
}

func genaiClient(t *testing.T, s *vertextest.Server, protocol string) *genai.Client {
	t.Helper()
	c, err := genai.NewClient(t.Context(), &genai.ClientConfig{
		Backend: genai.BackendVertexAI, Project: "p", Location: "global", HTTPClient: client(t, s, protocol),
		HTTPOptions: genai.HTTPOptions{BaseURL: s.URL(), APIVersion: "v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGenAIClient(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{TLS: true, CallLog: &log, ReferenceExists: func(context.Context, string, string) (bool, error) { return true, nil }})
	c := genaiClient(t, s, "h2")
	config := &genai.GenerateContentConfig{
		HTTPOptions:        &genai.HTTPOptions{Headers: http.Header{"X-Vertex-Ai-Llm-Request-Type": {"shared"}, "X-Vertex-Ai-Llm-Shared-Request-Type": {"flex"}}},
		ResponseModalities: []string{"TEXT", "IMAGE"},
		Seed:               genai.Ptr[int32](9),
		CandidateCount:     1,
		Labels:             map[string]string{"campaign": "spring"},
		SystemInstruction:  genai.NewContentFromText("Muted colours.", genai.RoleUser),
		SafetySettings:     []*genai.SafetySetting{{Category: genai.HarmCategoryHateSpeech, Threshold: genai.HarmBlockThresholdBlockOnlyHigh}},
		ImageConfig:        &genai.ImageConfig{AspectRatio: "16:9", ImageSize: "2K", OutputMIMEType: "image/png"},
	}
	contents := []*genai.Content{{Role: genai.RoleUser, Parts: []*genai.Part{
		genai.NewPartFromText("A hand-made mug [[escape]] [[thought]] [[text]]"), genai.NewPartFromURI("gs://b/logo.png", "image/png"),
	}}}
	resp, err := c.Models.GenerateContent(t.Context(), "gemini-3-pro-image", contents, config)
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	for _, p := range resp.Candidates[0].Content.Parts {
		if p.InlineData != nil && !p.Thought {
			file = p.InlineData.Data
		}
	}
	checkPicture(t, file, "image/png", 2752, 1536)
	if hash, _ := vertextest.PromptHash(file); hash != sum([]byte("A hand-made mug [[escape]] [[thought]] [[text]]")) {
		t.Error("wrong picture")
	}
	u := resp.UsageMetadata
	if u.TrafficType != "ON_DEMAND_FLEX" || u.PromptTokenCount < 560 || resp.ModelVersion != "gemini-3-pro-image" {
		t.Errorf("usage %+v", u)
	}
	if recs := log.records(t); len(recs) != 1 || recs[0].Tier != "flex" || recs[0].Labels["campaign"] != "spring" || *recs[0].Seed != 9 || recs[0].Image != sum(file) {
		t.Errorf("call log %+v", recs)
	}
	count, err := c.Models.CountTokens(t.Context(), "gemini-3-pro-image", contents, nil)
	if err != nil || count.TotalTokens < 560 {
		t.Errorf("count tokens: %+v, %v", count, err)
	}
}

func TestGenAIErrors(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	c := genaiClient(t, s, "h1")
	for model, want := range map[string]genai.APIError{
		"gemini-9":           {Code: 404, Status: "NOT_FOUND"},
		"gemini-3-pro-image": {Code: 429, Status: "RESOURCE_EXHAUSTED", Message: "Resource exhausted, please try again later."},
	} {
		_, err := c.Models.GenerateContent(t.Context(), model, genai.Text("[[fault:429]]"), nil)
		got, ok := err.(genai.APIError)
		if !ok || got.Code != want.Code || got.Status != want.Status || !strings.Contains(got.Message, want.Message) || len(got.Details) != 0 {
			t.Errorf("%s: %#v, want %+v", model, err, want)
		}
	}
}

func TestGenAIReadsFutureReasons(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	resp, err := genaiClient(t, s, "h1").Models.GenerateContent(t.Context(), "gemini-3-pro-image", genai.Text("[[refuse:IMAGE_FUTURE_REASON]]"), nil)
	if err != nil || resp.Candidates[0].FinishReason != "IMAGE_FUTURE_REASON" {
		t.Errorf("%+v, %v", resp, err)
	}
}
