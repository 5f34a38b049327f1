package vertex

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const capacity = 8 << 20

// newJob returns a valid job, changed by edit.
func newJob(t testing.TB, edit func(*schemas.Job)) *jobs.Job {
	t.Helper()
	m := &schemas.Job{Prompt: "A red bicycle leaning against a white wall", Campaign: "spring-2026", Client: "acme"}
	if edit != nil {
		edit(m)
	}
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// laneOf returns the lane that a job takes without a lane file.
func laneOf(j *jobs.Job) worker.Lane {
	return worker.Lane{Name: "standard/" + j.Region, Project: "p-1", Location: j.Region, Model: j.Model.ID, Tier: "standard"}
}

// callOf returns the call for a job by its lane.
func callOf(j *jobs.Job) worker.Call { return worker.Call{Job: j, Lane: laneOf(j)} }

// newOnline returns an Online against a server, and its budget. At the end of the test the whole budget must be free.
func newOnline(t testing.TB, url string, edit func(*Config)) *Online {
	t.Helper()
	cfg := Config{BaseURL: url, NoAuth: true, Budget: blob.NewBudget(capacity), UserAgent: "assetmill/test"}
	if edit != nil {
		edit(&cfg)
	}
	o, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	t.Cleanup(func() { checkFree(t, cfg.Budget) })
	return o
}

// checkFree fails the test unless the whole budget is free.
func checkFree(t testing.TB, budget *blob.Budget) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b, err := budget.Reserve(ctx, capacity, capacity)
	if err != nil {
		t.Error("bytes of the budget are still held")
	}
	b.Release()
}

// serve answers every request with the handler.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func pngImage(t testing.TB, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func inline(mime string, data []byte) string {
	return fmt.Sprintf(`{"inlineData":{"mimeType":%q,"data":%q}}`, mime, base64.StdEncoding.EncodeToString(data))
}

func thought(part string) string { return strings.TrimSuffix(part, "}") + `,"thought":true}` }

// usageJSON is what an image of 1120 tokens and 9 tokens of text cost.
const usageJSON = `{"promptTokenCount":20,"candidatesTokenCount":1129,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1120}],"thoughtsTokenCount":30,"totalTokenCount":1179,"trafficType":"ON_DEMAND"}`

func candidate(finish, extra string, parts ...string) string {
	content := ""
	if len(parts) > 0 {
		content = `"content":{"role":"model","parts":[` + strings.Join(parts, ",") + `]},`
	}
	return `{"candidates":[{` + content + `"finishReason":"` + finish + `"` + extra + `}],"usageMetadata":` + usageJSON + `,"modelVersion":"gemini-3-pro-image","responseId":"r-1"}`
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	pic, other := pngImage(t, 64, 36), pngImage(t, 8, 8)
	img, text := inline("image/png", pic), `{"text":"I can't draw that."}`
	tests := []struct {
		name, body string
		reason     jobs.Reason
		detail     string
		finish     string
	}{
		{"image", candidate("STOP", "", img), jobs.ReasonImage, "", "STOP"},
		{"image after text", candidate("STOP", "", text, img), jobs.ReasonImage, "", "STOP"},
		{"image after a thought", candidate("STOP", "", thought(inline("image/png", other)), img), jobs.ReasonImage, "", "STOP"},
		{"image before a thought", candidate("STOP", "", img, thought(inline("image/png", other))), jobs.ReasonImage, "", "STOP"},
		{"the first of two images", candidate("STOP", "", img, inline("image/png", other)), jobs.ReasonImage, "", "STOP"},
		{"image with a huge signature", candidate("STOP", "", strings.TrimSuffix(img, "}")+`,"thoughtSignature":"`+strings.Repeat("QUJD", maxRemainder)+`"}`), jobs.ReasonImage, "", "STOP"},
		{"data twice in one part: the last counts", candidate("STOP", "", `{"inlineData":{"data":"`+base64.StdEncoding.EncodeToString(other)+`","mimeType":"image/png","data":"`+base64.StdEncoding.EncodeToString(pic)+`"}}`), jobs.ReasonImage, "", "STOP"},
		{"image with an odd end", candidate("MAX_TOKENS", "", img), jobs.ReasonImage, "", "MAX_TOKENS"},
		{"image with an unknown end", candidate("WORN_OUT", "", img), jobs.ReasonImage, "", "WORN_OUT"},
		{"image that a filter blocked", candidate("IMAGE_SAFETY", `,"finishMessage":"no: 39322892"`, img), jobs.ReasonOutputFilter, "no: 39322892", "IMAGE_SAFETY"},
		{"prompt blocked", `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT","blockReasonMessage":"Not this."},"usageMetadata":` + usageJSON + `}`, jobs.ReasonPromptFilter, "Not this.", "PROHIBITED_CONTENT"},
		{"prompt blocked, unknown reason", `{"promptFeedback":{"blockReason":"BORING"},"usageMetadata":` + usageJSON + `}`, jobs.ReasonPromptFilter, "", "BORING"},
		{"safety", candidate("SAFETY", ""), jobs.ReasonOutputFilter, "", "SAFETY"},
		{"image safety", candidate("IMAGE_SAFETY", `,"finishMessage":"Code 62263041"`), jobs.ReasonOutputFilter, "Code 62263041", "IMAGE_SAFETY"},
		{"image prohibited", candidate("IMAGE_PROHIBITED_CONTENT", ""), jobs.ReasonOutputFilter, "", "IMAGE_PROHIBITED_CONTENT"},
		{"recitation", candidate("IMAGE_RECITATION", ""), jobs.ReasonOutputFilter, "", "IMAGE_RECITATION"},
		{"other", candidate("IMAGE_OTHER", "", text), jobs.ReasonOutputFilter, "I can't draw that.", "IMAGE_OTHER"},
		{"unknown end", candidate("WORN_OUT", ""), jobs.ReasonOutputFilter, "", "WORN_OUT"},
		{"no image", candidate("NO_IMAGE", `,"finishMessage":"None made."`), jobs.ReasonNoImage, "None made.", "NO_IMAGE"},
		{"declined", candidate("STOP", "", text), jobs.ReasonModelDeclined, "I can't draw that.", "STOP"},
		{"only thoughts", candidate("STOP", "", thought(img), thought(text)), jobs.ReasonBadAnswer, "the answer has no image and ended with STOP", "STOP"},
		{"text cut off", candidate("MAX_TOKENS", "", text), jobs.ReasonBadAnswer, "the answer has no image and ended with MAX_TOKENS", "MAX_TOKENS"},
		{"malformed", candidate("MALFORMED_RESPONSE", `,"finishMessage":"Oops."`), jobs.ReasonBadAnswer, "the answer has no image and ended with MALFORMED_RESPONSE: Oops.", "MALFORMED_RESPONSE"},
		{"tool call", candidate("UNEXPECTED_TOOL_CALL", ""), jobs.ReasonBadAnswer, "the answer has no image and ended with UNEXPECTED_TOOL_CALL", "UNEXPECTED_TOOL_CALL"},
		{"unfinished", candidate("CONTINUATION", `,"continuationToken":"QUJD"`), jobs.ReasonBadAnswer, "the answer has no image and ended with CONTINUATION", "CONTINUATION"},
		{"stop with nothing", candidate("STOP", ""), jobs.ReasonBadAnswer, "the answer has no image and ended with STOP", "STOP"},
		{"no candidate", `{"candidates":[],"usageMetadata":` + usageJSON + `}`, jobs.ReasonBadAnswer, "the answer has no candidate", ""},
		{"null candidate", `{"candidates":[null],"usageMetadata":` + usageJSON + `}`, jobs.ReasonBadAnswer, "the answer has no image", ""},
		{"empty image", candidate("STOP", "", `{"inlineData":{"mimeType":"image/png","data":""}}`), jobs.ReasonBadAnswer, `the 0 bytes that came as "image/png" are no image and ended with STOP`, "STOP"},
		{"no image in the image", candidate("STOP", "", inline("image/png", []byte("<html>nope</html>"))), jobs.ReasonBadAnswer, `the 17 bytes that came as "image/png" are no image and ended with STOP`, "STOP"},
		{"sound", candidate("STOP", "", inline("audio/wav", []byte("RIFFxxxxWAVE")), text), jobs.ReasonBadAnswer, `the 12 bytes that came as "audio/wav" are no image and ended with STOP`, "STOP"},
		{"image in an odd place", candidate("STOP", `,"groundingMetadata":`+img, `{"inlineData":{"mimeType":"image/png"}}`), jobs.ReasonBadAnswer, "the image of the answer is not where it is expected and ended with STOP", "STOP"},
		{"prompt repeated", candidate("STOP", "", `{"text":"No: a red... \"A red bicycle leaning against a white wall\" and A red  bicycle leaning\nagainst a white wall."}`), jobs.ReasonModelDeclined, `No: a red... "[prompt]" and [prompt].`, "STOP"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				respond(http.StatusOK, test.body)(w, r)
			}), nil)
			a, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if a.Reason != test.reason || a.Detail != test.detail || a.FinishReason != test.finish {
				t.Errorf("got reason %q, detail %q, finish reason %q; want %q, %q, %q", a.Reason, a.Detail, a.FinishReason, test.reason, test.detail, test.finish)
			}
			if want := (jobs.Usage{Prompt: 20, Text: 9, Image: 1120, Thought: 30, Total: 1179}); a.Usage != want || a.UsageMissing {
				t.Errorf("usage %+v, missing %v; want %+v", a.Usage, a.UsageMissing, want)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if (a.Image != nil) != (test.reason == jobs.ReasonImage) {
				t.Fatalf("image %v with reason %s", a.Image, a.Reason)
			}
			if a.Image != nil {
				got, _ := io.ReadAll(a.Image.Blob.NewReader())
				if !bytes.Equal(got, pic) {
					t.Error("not the image's bytes")
				}
				if a.Image.MimeType != "image/png" || a.Image.Width != 64 || a.Image.Height != 36 {
					t.Errorf("image is %s, %d x %d", a.Image.MimeType, a.Image.Width, a.Image.Height)
				}
				a.Image.Blob.Release()
			}
		})
	}
}

func TestAnswerFields(t *testing.T) {
	t.Parallel()
	const extra = `,"safetyRatings":[{"category":"HARM_CATEGORY_HATE_SPEECH","probability":"LOW","severity":"HARM_SEVERITY_LOW","blocked":true}]`
	o := newOnline(t, serve(t, respond(http.StatusOK, candidate("IMAGE_SAFETY", extra))), nil)
	a, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	want := &worker.Answer{
		Reason: jobs.ReasonOutputFilter, FinishReason: "IMAGE_SAFETY",
		Ratings:      []*schemas.SafetyRating{{Category: "HARM_CATEGORY_HATE_SPEECH", Probability: "LOW", Severity: "HARM_SEVERITY_LOW", Blocked: true}},
		Usage:        jobs.Usage{Prompt: 20, Text: 9, Image: 1120, Thought: 30, Total: 1179},
		ModelVersion: "gemini-3-pro-image", TrafficType: "ON_DEMAND", ResponseID: "r-1",
	}
	if diff := cmp.Diff(want, a, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	job := newJob(t, nil)
	estimate := job.EstimatedUsage()
	img := inline("image/png", pngImage(t, 2, 2))
	tests := []struct {
		name, parts, usage string
		want               jobs.Usage
		missing            bool
	}{
		{"missing with an image", img, ``, estimate, true},
		{"empty with an image", img, `,"usageMetadata":{"trafficType":"ON_DEMAND"}`, estimate, true},
		{"missing without an image", `{"text":"no"}`, ``, jobs.Usage{Prompt: estimate.Prompt, Total: estimate.Prompt}, true},
		{"no details, image", img, `,"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1120}`, jobs.Usage{Prompt: 5, Image: 1120, Total: 1125}, false},
		{"no details, written", file(testPrefix + "1.png"), `,"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1120}`, jobs.Usage{Prompt: 5, Image: 1120, Total: 1125}, false},
		{"missing with a written image", file(testPrefix + "1.png"), ``, estimate, true},
		{"no details, text", `{"text":"no"}`, `,"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7,"totalTokenCount":12}`, jobs.Usage{Prompt: 5, Text: 7, Total: 12}, false},
		{"tools", `{"text":"no"}`, `,"usageMetadata":{"promptTokenCount":5,"toolUsePromptTokenCount":3,"candidatesTokenCount":7,"totalTokenCount":15}`, jobs.Usage{Prompt: 8, Text: 7, Total: 15}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := `{"candidates":[{"content":{"parts":[` + test.parts + `]},"finishReason":"STOP"}]` + test.usage + `}`
			call := callOf(job)
			call.Prefix = testPrefix
			a, err := newOnline(t, serve(t, respond(http.StatusOK, body)), nil).Generate(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			if a.Usage != test.want || a.UsageMissing != test.missing {
				t.Errorf("usage %+v, missing %v; want %+v, %v", a.Usage, a.UsageMissing, test.want, test.missing)
			}
			if a.Image != nil {
				a.Image.Blob.Release()
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	fail := func(code int, message, details string) http.HandlerFunc {
		b, _ := json.Marshal(message)
		return respond(code, fmt.Sprintf(`{"error":{"code":%d,"message":%s,"status":"X","details":[%s]}}`, code, b, details))
	}
	header := func(h http.HandlerFunc, value string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", value)
			h(w, r)
		}
	}
	const retryInfo = `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}`
	const noObject = "Invalid or unsupported file uri: gs://b/o.png. No such object: b/o.png"
	tests := []struct {
		name       string
		handler    http.HandlerFunc
		references bool
		kind       worker.Kind
		reason     jobs.Reason
		retryAfter time.Duration
		detail     string
	}{
		{"429", fail(429, "Resource exhausted, please try again later.", ""), false, worker.Throttled, "", 0, "Resource exhausted, please try again later."},
		{"429 with a header", header(fail(429, "x", ""), "7"), false, worker.Throttled, "", 7 * time.Second, "x"},
		{"429 with a detail", fail(429, "x", retryInfo), false, worker.Throttled, "", 3500 * time.Millisecond, "x"},
		{"429 with a wild header", header(fail(429, "x", ""), "1e300"), false, worker.Throttled, "", maxRetryAfter, "x"},
		{"503", fail(503, "The service is currently unavailable.", ""), false, worker.Throttled, "", 0, "The service is currently unavailable."},
		{"500", fail(500, "Internal error encountered.", ""), false, worker.Failing, "", 0, "Internal error encountered."},
		{"502 in HTML", respond(502, "<html>Bad Gateway</html>"), false, worker.Failing, "", 0, "<html>Bad Gateway</html>"},
		{"504", fail(504, "Deadline expired", ""), false, worker.Failing, "", 0, "Deadline expired"},
		{"501", fail(501, "no", ""), false, worker.Failing, "", 0, "no"},
		{"500 with nothing", respond(500, ""), false, worker.Failing, "", 0, "Internal Server Error"},
		{"500 with a body without end", respond(500, strings.Repeat("x", 10*maxErrorBytes)), false, worker.Failing, "", 0, strings.Repeat("x", maxDetailBytes-3) + "…"},
		{"408", fail(408, "slow", ""), false, worker.Failing, "", 0, "slow"},
		{"409", fail(409, "aborted", ""), false, worker.Failing, "", 0, "aborted"},
		{"499", fail(499, "The operation was cancelled.", ""), false, worker.Unanswered, "", 0, "The operation was cancelled."},
		{"302", header(respond(302, ""), ""), false, worker.Failing, "", 0, "Found"},
		{"307 to itself", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, false, worker.Failing, "", 0, "Temporary Redirect"},
		{"400", fail(400, "Request contains an invalid argument.", ""), false, worker.Rejected, jobs.ReasonRejected, 0, "Request contains an invalid argument."},
		{"400 about a reference that the job lacks", fail(400, noObject, ""), false, worker.Rejected, jobs.ReasonRejected, 0, noObject},
		{"400 about a reference", fail(400, noObject, ""), true, worker.Rejected, jobs.ReasonReferenceUnavailable, 0, noObject},
		{"400 about something else, with references", fail(400, "Request contains an invalid argument.", ""), true, worker.Rejected, jobs.ReasonRejected, 0, "Request contains an invalid argument."},
		{"400 while the service agent is made", fail(400, "Service agents are being provisioned (https://...). Service agents are needed to read the Cloud Storage file provided.", ""), true, worker.Failing, "", agentDelay, "Service agents are being provisioned (https://...). Service agents are needed to read the Cloud Storage file provided."},
		{"413", fail(413, "too large", ""), false, worker.Rejected, jobs.ReasonRejected, 0, "too large"},
		{"400 that repeats the prompt", fail(400, "Invalid text: 'A red bicycle leaning against a white...'", ""), false, worker.Rejected, jobs.ReasonRejected, 0, "Invalid text: '[prompt]...'"},
		{"401", fail(401, "no token", ""), false, worker.Denied, "", 0, "no token"},
		{"403", fail(403, "Permission 'aiplatform.endpoints.predict' denied", ""), false, worker.Denied, "", 0, "Permission 'aiplatform.endpoints.predict' denied"},
		{"404", fail(404, "Publisher Model `x` was not found", ""), false, worker.Denied, "", 0, "Publisher Model `x` was not found"},
		{"403 about a reference", fail(403, "service-1@gcp-sa does not have storage.objects.get access to gs://b/o.png", ""), true, worker.Rejected, jobs.ReasonReferenceUnavailable, 0, "service-1@gcp-sa does not have storage.objects.get access to gs://b/o.png"},
		{"403 about an input file", fail(403, "Permission denied while accessing input file.", ""), true, worker.Rejected, jobs.ReasonReferenceUnavailable, 0, "Permission denied while accessing input file."},
		{"403 about who knows what, and the model can't be called", fail(403, "The caller does not have permission", ""), true, worker.Denied, "", 0, "The caller does not have permission"},
		{"403 about who knows what, and the model can be called", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ":countTokens") {
				respond(200, `{"totalTokens":1}`)(w, r)
				return
			}
			fail(403, "The caller does not have permission", "")(w, r)
		}, true, worker.Rejected, jobs.ReasonReferenceUnavailable, 0, "The caller does not have permission"},

		{"no JSON", respond(200, "<html>"), false, worker.Unanswered, "", 0, ""},
		{"nothing", respond(200, ""), false, worker.Unanswered, "", 0, ""},
		{"half an answer", respond(200, candidate("STOP", "", inline("image/png", pngImage(t, 64, 64)))[:200]), false, worker.Unanswered, "", 0, ""},
		{"bad base64", respond(200, candidate("STOP", "", `{"inlineData":{"data":"aGk*"}}`)), false, worker.Unanswered, "", 0, ""},
		{"wrong types", respond(200, `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"aGk="}}]},"finishReason":7}]}`), false, worker.Unanswered, "", 0, ""},
		{"too much text", respond(200, candidate("STOP", "", `{"text":"`+strings.Repeat("A red bicycle", maxRemainder/10)+`"}`)), false, worker.Unanswered, "", 0, ""},
		{"connection closed without an answer", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, false, worker.Unanswered, "", 0, ""},
		{"connection closed within the image", func(w http.ResponseWriter, r *http.Request) {
			body := candidate("STOP", "", inline("image/png", make([]byte, 1<<20)))
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = io.WriteString(w, body[:len(body)/2])
			panic(http.ErrAbortHandler)
		}, false, worker.Unanswered, "", 0, ""},
		{"error cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(429)
			_, _ = io.WriteString(w, `{"error":`)
		}, false, worker.Throttled, "", 0, "Too Many Requests"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ":generateContent") {
					calls.Add(1)
				}
				test.handler(w, r)
			}), nil)
			j := newJob(t, func(m *schemas.Job) {
				if test.references {
					m.References = []string{"gs://bucket/object.png"}
				}
			})
			a, err := o.Generate(t.Context(), callOf(j))
			var e *worker.CallError
			if !errors.As(err, &e) {
				t.Fatalf("answer %+v, error %v; want a CallError", a, err)
			}
			if e.Kind != test.kind || e.Reason != test.reason || e.RetryAfter != test.retryAfter || e.Detail != test.detail {
				t.Errorf("got %v, %q, retry after %v, detail %q\nwant %v, %q, %v, %q", e.Kind, e.Reason, e.RetryAfter, e.Detail, test.kind, test.reason, test.retryAfter, test.detail)
			}
			if e.Lane.Location != "global" {
				t.Errorf("lane %+v", e.Lane)
			}
			if text := fmt.Sprintf("%v %+v %v", err, e, e.Err); strings.Contains(text, "red bicycle") {
				t.Errorf("the error repeats the prompt: %.300s", text)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

func TestNothingSent(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + listener.Addr().String()
	listener.Close()
	plain := serve(t, respond(200, "{}"))
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("shutting down"))
	tests := []struct {
		name, url string
		ctx       context.Context
		edit      func(*Config)
		want      worker.Kind
	}{
		{"connection refused", refused, t.Context(), nil, worker.Unreached},
		{"TLS to a server without", strings.Replace(plain, "http:", "https:", 1), t.Context(), nil, worker.Unreached},
		{"cancelled before", plain, cancelled, nil, worker.Interrupted},
		{"dial takes too long", plain, t.Context(), func(c *Config) {
			c.CallTimeout = 10 * time.Millisecond
			c.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}}
		}, worker.Unreached},
		{"cancelled while dialling", plain, t.Context(), nil, worker.Interrupted},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx := test.ctx
			edit := test.edit
			if test.name == "cancelled while dialling" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				edit = func(c *Config) {
					c.Transport = &http.Transport{DialContext: func(dial context.Context, _, _ string) (net.Conn, error) {
						cancel()
						<-ctx.Done()
						return nil, context.Cause(ctx)
					}}
				}
			}
			_, err := newOnline(t, test.url, edit).Generate(ctx, callOf(newJob(t, nil)))
			var e *worker.CallError
			if !errors.As(err, &e) || e.Kind != test.want || e.Status != 0 {
				t.Errorf("error %v, want kind %v", err, test.want)
			}
		})
	}
}

// TestTrace follows net/http when a used connection turns out to be dead before anything was written to it: the request
// is not sent until a new connection takes it.
func TestTrace(t *testing.T) {
	t.Parallel()
	c := &call{}
	trace := httptrace.ContextClientTrace(c.trace(t.Context()))
	for i, step := range []struct {
		do   func()
		want bool
	}{{func() { trace.GetConn("") }, false}, {trace.WroteHeaders, true}, {func() { trace.GetConn("") }, false}, {trace.WroteHeaders, true}} {
		step.do()
		if got := c.sent.Load(); got != step.want {
			t.Errorf("step %d: sent is %v", i, got)
		}
	}
}

// TestCancelled ends a call's context at each of its stages after it was sent.
func TestCancelled(t *testing.T) {
	t.Parallel()
	body := candidate("STOP", "", inline("image/png", make([]byte, 1<<20)))
	stages := []struct {
		name  string
		write int // bytes of the answer before it stalls; -1: not even the head
	}{{"before the head", -1}, {"after the head", 0}, {"within the image", len(body) / 2}}
	for _, stage := range stages {
		for _, how := range []string{"cancel", "timeout"} {
			t.Run(stage.name+", "+how, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if stage.write >= 0 {
						w.WriteHeader(200)
						_, _ = io.WriteString(w, body[:stage.write])
						_ = http.NewResponseController(w).Flush()
					}
					if how == "cancel" {
						cancel()
					}
					<-r.Context().Done()
				}), func(c *Config) { c.CallTimeout = time.Minute })
				if how == "timeout" {
					if stage.write > 0 {
						t.Skip("the call's clock has stopped by then")
					}
					o.cfg.CallTimeout = 50 * time.Millisecond
				}
				_, err := o.Generate(ctx, callOf(newJob(t, nil)))
				var e *worker.CallError
				if !errors.As(err, &e) || e.Kind != worker.Unanswered {
					t.Fatalf("error %v, want unanswered", err)
				}
				if how == "timeout" && !errors.Is(err, errCallTimeout) {
					t.Errorf("error %v does not say that the time was up", err)
				}
			})
		}
	}
}

// memory is a transport that answers from memory, so that tests may run on a clock of their own.
type memory string

func (m memory) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, ContentLength: int64(len(m)), Body: io.NopCloser(strings.NewReader(string(m))), Request: req}, nil
}

// TestBudget has more answers arrive than the budget holds, after each has waited for longer than a call may take.
func TestBudget(t *testing.T) {
	t.Parallel()
	pic := append(pngImage(t, 4, 4), make([]byte, 3<<20)...)
	body := candidate("STOP", "", inline("image/png", pic))
	job := newJob(t, nil)
	synctest.Test(t, func(t *testing.T) {
		o := newOnline(t, "http://localhost", func(c *Config) { c.Transport = memory(body) })
		hold, err := o.cfg.Budget.Reserve(t.Context(), capacity, capacity)
		if err != nil {
			t.Fatal(err)
		}
		const calls = 8
		errs := make(chan error, calls)
		for range calls {
			go func() {
				a, err := o.Generate(t.Context(), callOf(job))
				if err == nil {
					if a.Image == nil || a.Image.Blob.Len() != int64(len(pic)) {
						err = fmt.Errorf("answer %+v", a)
					} else {
						a.Image.Blob.Release()
					}
				}
				errs <- err
			}()
		}
		select {
		case err := <-errs:
			t.Fatalf("a call ended while the budget was taken: %v", err)
		case <-time.After(10 * CallTimeout):
		}
		hold.Release()
		for range calls {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// stalled is a body that ends its data and then never says so, until its request's context ends.
type stalled struct {
	io.Reader
	ctx context.Context
}

func (s stalled) Read(p []byte) (int, error) {
	if n, err := s.Reader.Read(p); err == nil {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

func (stalled) Close() error { return nil }

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestTimeouts measures how long a call may stall at each stage.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	body := candidate("STOP", "", inline("image/png", make([]byte, 1<<20)))
	tests := []struct {
		name, size string
		arrives    int
		timeout    time.Duration
		want       time.Duration
	}{
		{"before the image", "1K", 20, 0, CallTimeout},
		{"before the image, 4K", "4K", 20, 0, CallTimeout4K},
		{"before the image, own bound", "4K", 20, time.Minute, time.Minute},
		{"within the image", "4K", len(body) / 2, 0, transferTimeout},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			job := newJob(t, func(m *schemas.Job) { m.Size = test.size })
			synctest.Test(t, func(t *testing.T) {
				o := newOnline(t, "http://localhost", func(c *Config) {
					c.CallTimeout = test.timeout
					c.Transport = transportFunc(func(req *http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: 200, ContentLength: -1, Body: stalled{strings.NewReader(body[:test.arrives]), req.Context()}}, nil
					})
				})
				start := time.Now()
				_, err := o.Generate(t.Context(), callOf(job))
				var e *worker.CallError
				if !errors.As(err, &e) || e.Kind != worker.Unanswered || !errors.Is(err, errCallTimeout) {
					t.Errorf("error %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("gave up after %v, want %v", took, test.want)
				}
			})
		})
	}
}

// TestConnectionReuse checks that a connection serves one call after another, and that a request which fails on a used
// connection is not sent again behind our back.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	addresses := make(chan string, 10)
	o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		addresses <- r.RemoteAddr
		if calls.Add(1) == 3 {
			panic(http.ErrAbortHandler)
		}
		respond(200, candidate("STOP", "", `{"text":"no"}`))(w, r)
	}), nil)
	for range 2 {
		if _, err := o.Generate(t.Context(), callOf(newJob(t, nil))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
	var e *worker.CallError
	if !errors.As(err, &e) || e.Kind != worker.Unanswered {
		t.Errorf("error %v, want unanswered", err)
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("%d requests for 3 calls", n)
	}
	if a, b, c := <-addresses, <-addresses, <-addresses; a != b || b != c {
		t.Errorf("connections %s, %s, %s; want one", a, b, c)
	}
}

func TestRefusalsDoNotWaitForTheBudget(t *testing.T) {
	t.Parallel()
	o := newOnline(t, serve(t, respond(200, candidate("STOP", "", `{"text":"no"}`))), nil)
	hold, err := o.cfg.Budget.Reserve(t.Context(), capacity, capacity)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	if a, err := o.Generate(t.Context(), callOf(newJob(t, nil))); err != nil || a.Reason != jobs.ReasonModelDeclined {
		t.Errorf("answer %+v, error %v", a, err)
	}
}

func TestCancelledWhileWaitingForTheBudget(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		respond(200, candidate("STOP", "", inline("image/png", make([]byte, 1<<20))))(w, r)
		cancel()
	}), nil)
	hold, err := o.cfg.Budget.Reserve(t.Context(), capacity, capacity)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	_, err = o.Generate(ctx, callOf(newJob(t, nil)))
	var e *worker.CallError
	if !errors.As(err, &e) || e.Kind != worker.Unanswered {
		t.Errorf("error %v, want unanswered", err)
	}
}

func TestTooLargeImage(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	small := pngImage(t, 4, 4)
	large := append(pngImage(t, 4, 4), make([]byte, limit)...)
	for name, test := range map[string]struct {
		parts  []string
		reason jobs.Reason
	}{
		"the image":          {[]string{inline("image/png", large)}, jobs.ReasonBadAnswer},
		"a thought before":   {[]string{thought(inline("image/png", large)), inline("image/png", small)}, jobs.ReasonImage},
		"another image":      {[]string{inline("image/png", small), inline("image/png", large)}, jobs.ReasonImage},
		"the first, not all": {[]string{inline("image/png", large), inline("image/png", small)}, jobs.ReasonBadAnswer},
	} {
		o := newOnline(t, serve(t, respond(200, candidate("STOP", "", test.parts...))), nil)
		o.maxImage = limit
		a, err := o.Generate(t.Context(), callOf(newJob(t, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if a.Reason != test.reason || a.Usage.Image != 1120 {
			t.Errorf("%s: answer %+v", name, a)
		}
		if a.Image != nil {
			a.Image.Blob.Release()
		} else if !strings.Contains(a.Detail, "larger than 100000 bytes") {
			t.Errorf("%s: detail %q", name, a.Detail)
		}
	}
}
