package vertex

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/genai"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// checkTimeout bounds a check. It counts the tokens of one word.
const checkTimeout = 30 * time.Second

// Check asks Vertex, at no cost, whether this worker may make calls by a lane. The error wraps a
// [*worker.CallError] whose kind is Denied when it may not, and another when Vertex could not be asked.
//
// A dedicated endpoint has nothing to ask that is free: its own host takes calls only, and what the location's host knows of it needs
// a permission that calls don't, and a way there that a private endpoint need not have. Only the credentials are checked; the first call
// tells the rest, and shuts the lane if it is denied.
func (o *Online) Check(ctx context.Context, lane worker.Lane) error {
	e := o.probe(ctx, lane)
	if e == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", advice(e), e)
}

// advice is the sentence that says what to do about a failed check.
func advice(e *worker.CallError) string {
	where := fmt.Sprintf("model %s in location %s of project %s", e.Lane.Model, e.Lane.Location, e.Lane.Project)
	switch {
	case e.Kind != worker.Denied:
		return "can't tell whether this worker may call " + where
	case e.Status == http.StatusForbidden:
		return "this worker's identity may not call " + where +
			": it needs the permission aiplatform.endpoints.predict, as in the role roles/aiplatform.user, and the API aiplatform.googleapis.com enabled"
	case e.Status == http.StatusNotFound:
		return "there is no " + where + ", or the project has no access to it: check the project's id, the model's id and whether the location serves it"
	default:
		return "Vertex does not accept this worker's credentials for " + where +
			": check Application Default Credentials, whose identity needs the permission aiplatform.endpoints.predict"
	}
}

func (o *Online) probe(ctx context.Context, lane worker.Lane) *worker.CallError {
	if lane.Endpoint != "" {
		return o.probeEndpoint(ctx, lane)
	}
	client, err := o.at(ctx, lane)
	if err != nil {
		return &worker.CallError{Kind: worker.Denied, Lane: lane, Err: err}
	}
	c, callCtx, done := o.newCall(ctx, worker.Call{Job: &jobs.Job{}, Lane: lane}, checkTimeout)
	defer done()
	if _, err = client.Models.CountTokens(callCtx, lane.Model, genai.Text("check"), nil); err != nil {
		return c.failure(ctx, err)
	}
	return nil
}

func (o *Online) probeEndpoint(ctx context.Context, lane worker.Lane) *worker.CallError {
	if _, err := o.endpointAt(ctx, lane); err != nil {
		return &worker.CallError{Kind: worker.Denied, Lane: lane, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := o.token(ctx); err != nil {
		return (&rpc{Call: worker.Call{Job: &jobs.Job{}, Lane: lane}}).unsent(ctx, err)
	}
	return nil
}

// explain tells a worker that may not call a model from a reference image that the service may not read: both can come as
// a 403 or 404 without a word about which. The first must stop the worker, the second must not.
func (o *Online) explain(ctx context.Context, e *worker.CallError, j *jobs.Job) *worker.CallError {
	if e.Kind != worker.Denied || e.Status == http.StatusUnauthorized || e.Status == 0 || !hasImages(j) {
		return e
	}
	if o.probe(ctx, e.Lane) == nil {
		e.Kind, e.Reason = worker.Rejected, jobs.ReasonReferenceUnavailable
	}
	return e
}
