package vertex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/genai"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// statusCanceled is what Google answers when it believes that the caller has gone.
const statusCanceled = 499

// agentDelay is how long to wait for the service agent that reads references. Vertex makes it at the first use and asks for
// a few minutes.
const agentDelay = time.Minute

// failure turns the error of a call into what it means for the job. ctx is the caller's.
func (c *call) failure(ctx context.Context, err error) *worker.CallError {
	e := &worker.CallError{Status: c.status, Lane: c.Lane}
	var sending *url.Error
	var denied *auth.Error
	switch {
	case c.status != 0 && (c.status < 200 || c.status > 299):
		c.refused(e, err)
	case c.sent.Load() || c.status != 0:
		e.Kind, e.Err = worker.Unanswered, safe(err)
	case ctx.Err() != nil:
		e.Kind, e.Err = worker.Interrupted, context.Cause(ctx)
	case !errors.As(err, &sending):
		// The SDK would not build the request. Its error may hold all of it.
		e.Kind, e.Reason, e.Detail = worker.Rejected, jobs.ReasonRejected, "the request could not be built"
	case errors.As(err, &denied) && !denied.Temporary():
		e.Kind, e.Detail = worker.Denied, detail(c.Job, "no access token: "+denied.Error())
	default:
		e.Kind, e.Err = worker.Unreached, safe(err)
	}
	return e
}

// safe returns an error of the transport as it is, and one of the SDK without the answer that it quotes.
func safe(err error) error {
	var sending *url.Error
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &sending):
		return sending
	case errors.As(err, &syntax):
		return fmt.Errorf("decode the answer: %w", syntax)
	case errors.As(err, &mismatch):
		return fmt.Errorf("decode the answer: %w", mismatch)
	default:
		return errors.New("the SDK can't decode the answer")
	}
}

// refused fills in an error that the service answered with.
func (c *call) refused(e *worker.CallError, err error) {
	var api genai.APIError
	message := ""
	if errors.As(err, &api) {
		message = api.Message
	}
	e.Kind, e.Reason = kindOf(c.status, message, hasImages(c.Job))
	c.aboutOutput = isAboutOutput(c.status, message, c.Prefix, hasImages(c.Job))
	c.agentMissing = isAgentMissing(message)
	if message == "" {
		message = http.StatusText(c.status)
	}
	e.Detail = detail(c.Job, message)
	e.RetryAfter = max(c.retryAfter, retryInfo(api.Details))
	if c.agentMissing {
		e.RetryAfter = max(e.RetryAfter, agentDelay)
	}
}

// kindOf is the one table of HTTP statuses.
func kindOf(status int, message string, references bool) (worker.Kind, jobs.Reason) {
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return worker.Throttled, ""
	case status == statusCanceled:
		// The service had begun, and may have finished.
		return worker.Unanswered, ""
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusConflict, status < 400:
		// 408: the request did not arrive whole. 409: aborted. Below 400: a redirect, from something in between.
		return worker.Failing, ""
	case isAgentMissing(message):
		return worker.Failing, ""
	case references && isAboutReference(message):
		return worker.Rejected, jobs.ReasonReferenceUnavailable
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusNotFound:
		return worker.Denied, ""
	default:
		return worker.Rejected, jobs.ReasonRejected
	}
}

// isAgentMissing recognises Vertex's answer while it makes the project's service agent.
func isAgentMissing(message string) bool {
	return strings.Contains(strings.ToLower(message), "service agents are being provisioned")
}

// isAboutReference recognises that a message speaks of a reference image: that it is missing, unreadable or no image.
func isAboutReference(message string) bool {
	message = strings.ToLower(message)
	for _, words := range []string{
		"gs://", "cloud storage", "storage.objects", "storage.buckets", "storage.googleapis.com", "gcs", "no such object",
		"input file", "file uri", "file_uri", "fileuri", "input image", "provided image", "image_bytes",
	} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// retryInfo returns the pause that a google.rpc.RetryInfo among an error's details asks for.
func retryInfo(details []map[string]any) time.Duration {
	for _, d := range details {
		name, _ := d["@type"].(string)
		delay, _ := d["retryDelay"].(string)
		if !strings.HasSuffix(name, "google.rpc.RetryInfo") {
			continue
		}
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(delay, "s"), 64); err == nil {
			return boundRetryAfter(seconds)
		}
	}
	return 0
}
