package vertex

import (
	"context"
	"errors"
	"fmt"

	aiplatform "cloud.google.com/go/aiplatform/apiv1"
	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/imagehead"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// maxPredictBytes bounds the answer of a dedicated endpoint, in bytes. The service's own bound is 10 MB. gRPC reads an answer whole
	// before anybody sees it, so the byte budget can't gate it: the calls in flight to endpoints may hold as much as this each, besides
	// the budget.
	maxPredictBytes = 16 << 20
	// endpointConns is the number of connections to an endpoint. Each carries about a hundred calls at a time, more than a self-deployed
	// model serves.
	endpointConns = 4
	// endpointHeader tells a dedicated endpoint's front which endpoint is meant.
	endpointHeader = "x-vertex-ai-endpoint-id"
)

// predict makes one call to an endpoint of the project's own, as image models from the Model Garden take them.
func (o *Online) predict(ctx context.Context, call worker.Call) (*worker.Answer, error) {
	if ctx.Err() != nil {
		return nil, &worker.CallError{Kind: worker.Interrupted, Lane: call.Lane, Err: context.Cause(ctx)}
	}
	client, err := o.endpointAt(ctx, call.Lane)
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Denied, Lane: call.Lane, Err: err}
	}
	req, err := predictRequest(call)
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Rejected, Reason: jobs.ReasonRejected, Lane: call.Lane, Detail: err.Error()}
	}
	p := &rpc{Call: call}
	rpcCtx, cancel := context.WithTimeoutCause(ctx, o.timeout(call.Job, call.Lane), errCallTimeout)
	defer cancel()
	if err := o.token(rpcCtx); err != nil {
		return nil, p.unsent(ctx, err)
	}
	rpcCtx = metadata.AppendToOutgoingContext(p.watch(rpcCtx), endpointHeader, call.Lane.Endpoint)
	resp, err := client.Predict(rpcCtx, req)
	switch {
	case p.tooLarge(err):
		return p.useless(fmt.Sprintf("the answer is larger than %d bytes", maxPredictBytes)), nil
	case err != nil:
		return nil, p.failure(ctx, rpcCtx, err)
	}
	return o.prediction(ctx, p, resp)
}

// endpointAt returns the client for a lane's host.
func (o *Online) endpointAt(ctx context.Context, lane worker.Lane) (*aiplatform.PredictionClient, error) {
	if err := checkLane(lane); err != nil {
		return nil, err
	}
	address := o.cfg.EndpointAddr
	if address == "" {
		address = withPort(siteOf(lane).host)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.endpoints[address]; c != nil {
		return c, nil
	}
	options, err := o.endpointOptions(address)
	if err != nil {
		return nil, err
	}
	c, err := aiplatform.NewPredictionClient(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("make a client for lane %s: %w", lane.Name, err)
	}
	o.endpoints[address] = c
	return c, nil
}

func (o *Online) endpointOptions(address string) ([]option.ClientOption, error) {
	options := []option.ClientOption{
		option.WithEndpoint(address), option.WithGRPCConnectionPool(endpointConns), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPredictBytes))),
		option.WithGRPCDialOption(grpc.WithStatsHandler(rpcWatcher{})),
		option.WithGRPCDialOption(grpc.WithDisableRetry()),
	}
	if o.cfg.UserAgent != "" {
		options = append(options, option.WithUserAgent(o.cfg.UserAgent))
	}
	switch {
	case o.cfg.NoAuth && o.cfg.EndpointAddr == "":
		return nil, errors.New("no address of an emulator stands for dedicated endpoints")
	case o.cfg.NoAuth:
		options = append(options, option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	default:
		options = append(options, option.WithAuthCredentials(o.creds))
	}
	if o.quotaProject != "" {
		options = append(options, option.WithQuotaProject(o.quotaProject))
	}
	return append(options, o.cfg.endpointOptions...), nil
}

// token makes sure that there is a token before a call is made: gRPC says of a missing one only that there is none.
func (o *Online) token(ctx context.Context) error {
	if o.creds == nil {
		return nil
	}
	_, err := o.creds.Token(ctx)
	return err
}

// predictRequest returns the request for a job. Endpoints of one's own take a prompt and little else; a job that has more is refused, since
// the image would not be what was asked for.
func predictRequest(call worker.Call) (*aiplatformpb.PredictRequest, error) {
	j, l := call.Job, call.Lane
	if j.System != "" || hasImages(j) || len(j.Safety) > 0 {
		return nil, errors.New("a dedicated endpoint takes no system instruction, no reference images, no turns and no safety settings")
	}
	parameters := map[string]any{"sampleCount": 1}
	if j.AspectRatio != "" {
		parameters["aspectRatio"] = j.AspectRatio
	}
	if len(j.Model.Sizes) > 1 {
		parameters["sampleImageSize"] = j.Size
	}
	if j.Seed != nil {
		parameters["seed"] = *j.Seed
	}
	instance, err := structpb.NewValue(map[string]any{"prompt": j.Prompt})
	if err != nil {
		return nil, errors.New("the prompt is not UTF-8") // the library's words may hold it
	}
	values, err := structpb.NewValue(parameters)
	if err != nil {
		return nil, err
	}
	return &aiplatformpb.PredictRequest{
		Endpoint:  fmt.Sprintf("projects/%s/locations/%s/endpoints/%s", l.Project, l.Location, l.Endpoint),
		Instances: []*structpb.Value{instance}, Parameters: values, Labels: labels(j),
	}, nil
}

// prediction turns a response into an answer.
func (o *Online) prediction(ctx context.Context, p *rpc, resp *aiplatformpb.PredictResponse) (*worker.Answer, error) {
	a := p.answer()
	a.ModelVersion = shorten(resp.GetModel())
	if v := resp.GetModelVersionId(); v != "" {
		a.ModelVersion += "@" + shorten(v)
	}
	if len(resp.GetPredictions()) == 0 {
		a.Reason, a.Detail = jobs.ReasonNoImage, "the endpoint returned no prediction" // what was filtered is missing
		return a, nil
	}
	fields := resp.GetPredictions()[0].GetStructValue().GetFields()
	text := fields["bytesBase64Encoded"].GetStringValue()
	if why := fields["raiFilteredReason"].GetStringValue(); why != "" || text == "" {
		a.Reason, a.Detail = jobs.ReasonOutputFilter, detail(p.Job, why)
		if why == "" {
			a.Reason, a.Detail = jobs.ReasonBadAnswer, "the prediction has no bytesBase64Encoded"
		}
		return a, nil
	}
	// The budget is waited for outside the call's time, as in online calls.
	b, err := o.cfg.Budget.Reserve(ctx, int64(len(text)/4*3), o.maxImage)
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Unanswered, Lane: p.Lane, Err: err}
	}
	if problem := decodeInto(b, text); problem != "" {
		b.Release()
		return p.useless(problem), nil
	}
	declared := fields["mimeType"].GetStringValue()
	mime, width, height, ok := imagehead.Identify(b.NewReader, declared)
	if !ok {
		problem := fmt.Sprintf("the %d bytes that came as %q are no image", b.Len(), shorten(declared))
		b.Release()
		return p.useless(problem), nil
	}
	b.Settle()
	a.Reason, a.Image = jobs.ReasonImage, &worker.Image{Blob: b, MimeType: mime, Width: width, Height: height}
	return a, nil
}

// decodeInto writes an image, given as base64, to a blob. It returns what is wrong with it.
func decodeInto(b *blob.Blob, text string) (problem string) {
	buf := bufferPool.Get().(*buffers)
	defer bufferPool.Put(buf)
	d := &buf.decoder
	d.reset(b)
	var err error
	for len(text) > 0 && err == nil {
		n := copy(buf.read[:], text)
		text = text[n:]
		_, err = d.Write(buf.read[:n])
	}
	if err == nil {
		err = d.Close()
	}
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		return err.Error()
	case err != nil:
		return "the image is not base64"
	default:
		return ""
	}
}
