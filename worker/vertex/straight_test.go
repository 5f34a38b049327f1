package vertex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const testPrefix = "gs://assets/straight/job-1/"

func file(uri string) string {
	return fmt.Sprintf(`{"fileData":{"mimeType":"image/png","fileUri":%q}}`, uri)
}

func apiError(code int, message string) string {
	return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":"X"}}`, code, message)
}

// reply is what a server answers.
type reply struct {
	status int
	body   string
}

// TestStraight has a model react to the wish in each way, several calls after each other. Each call's requests are written as `s` for one
// with the wish and `i` for one without.
func TestStraight(t *testing.T) {
	t.Parallel()
	image := reply{200, candidate("STOP", "", inline("image/png", pngImage(t, 4, 4)))}
	written := reply{200, candidate("STOP", "", file(testPrefix+"1/a.png"))}
	const generic = "Request contains an invalid argument."
	const agent = "service-42@gcp-sa-aiplatform.iam.gserviceaccount.com does not have storage.objects.create access to gs://assets/straight/job-1/x."
	tests := []struct {
		name       string
		asked      []reply // to requests with the wish, one after the other; the last stands for all that follow
		plain      []reply // to those without
		references bool
		want       []string // of each call: its requests, and what came of it
		log        string   // what the log has, if anything
	}{
		{"honoured", []reply{written}, nil, false, []string{"s written", "s written", "s written"}, "info: the model writes its images"},
		{"ignored", []reply{image}, []reply{image}, false, []string{"s image", "i image", "i image"}, "info: the model ignores the wish"},
		{"refused by name", []reply{{400, apiError(400, "output_config.output_uri_prefix is not supported by this model.")}}, []reply{image}, false,
			[]string{"si image", "i image"}, "info: the model refuses"},
		{"refused in JSON's words", []reply{{400, apiError(400, `Invalid JSON payload received. Unknown name "outputConfig": Cannot find field.`)}}, []reply{image}, false,
			[]string{"si image", "i image"}, "info: the model refuses"},
		{"refused without a word", []reply{{400, apiError(400, generic)}}, []reply{image}, false, []string{"si image", "i image"}, "info: the model refuses"},
		{"denied", []reply{{403, apiError(403, agent)}}, []reply{image}, false, []string{"si image", "i image"}, "warn: service-42@gcp-sa-aiplatform.iam.gserviceaccount.com"},
		{"denied without a word", []reply{{403, apiError(403, "The caller does not have permission")}}, []reply{image}, false,
			[]string{"si image", "i image"}, "warn: service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"},
		{"no such bucket", []reply{{404, apiError(404, "The specified bucket does not exist.")}}, []reply{image}, false, []string{"si image", "i image"}, "warn: Vertex AI may not write"},
		{"the job is at fault", []reply{{400, apiError(400, generic)}}, []reply{{400, apiError(400, generic)}, image}, false,
			[]string{"si rejected", "si image", "i image"}, "info: the model refuses"},
		{"the lane is denied", []reply{{403, apiError(403, "The caller does not have permission")}}, []reply{{403, apiError(403, "The caller does not have permission")}}, false,
			[]string{"si denied", "si denied"}, ""},
		{"a reference is at fault", []reply{{403, apiError(403, "service-42 does not have storage.objects.get access to gs://bkt/o.png")}}, []reply{{403, apiError(403, "service-42 does not have storage.objects.get access to gs://bkt/o.png")}}, true,
			[]string{"si rejected", "si rejected"}, ""},
		{"throttled, then honoured", []reply{{429, apiError(429, "Resource exhausted")}, written}, nil, false, []string{"s throttled", "s written", "s written"}, "info: the model writes"},
		{"failing, then ignored", []reply{{500, apiError(500, "Internal")}, image}, []reply{image}, false, []string{"s failing", "s image", "i image"}, "info: the model ignores"},
		{"broken off, then honoured", []reply{{200, `{"candidates":[`}, written}, nil, false, []string{"s unanswered", "s written"}, "info: the model writes"},
		{"a refusal of the model teaches nothing", []reply{{200, candidate("IMAGE_SAFETY", "")}, written}, nil, false, []string{"s output_filter", "s written"}, "info: the model writes"},
		{"no service agent yet", []reply{{400, apiError(400, "Service agents are being provisioned.")}, written}, []reply{image}, false,
			[]string{"si image", "s written", "s written"}, "info: the model writes"},
		{"refused, and throttled without", []reply{{400, apiError(400, "outputConfig is unknown")}}, []reply{{429, apiError(429, "x")}, image}, false,
			[]string{"si throttled", "i image"}, "info: the model refuses"},
		{"honoured, then denied", []reply{written, {403, apiError(403, agent)}}, []reply{image}, false, []string{"s written", "si image", "i image"}, "warn: Vertex AI may not write"},
		{"honoured, then a bad job", []reply{written, {400, apiError(400, generic)}, written}, nil, false, []string{"s written", "s rejected", "s written"}, "info: the model writes"},
		{"honoured, then ignored", []reply{written, image}, []reply{image}, false, []string{"s written", "s image", "i image"}, "info: the model ignores"},
		{"written elsewhere", []reply{{200, candidate("STOP", "", file("gs://assets/straight/job-2/a.png"))}}, []reply{image}, false,
			[]string{"s bad_answer", "i image"}, "warn: the model wrote an image elsewhere"},
		{"written to no object", []reply{{200, candidate("STOP", "", file(testPrefix))}}, []reply{image}, false, []string{"s bad_answer", "i image"}, "warn: the model wrote an image elsewhere"},
		{"a thought, then the image", []reply{{200, candidate("STOP", "", thought(file(testPrefix+"0.png")), `{"text":"Here."}`, file(testPrefix+"1/a.png"), file(testPrefix+"1/b.png"))}}, nil, false,
			[]string{"s written"}, "info: the model writes"},
		{"written and blocked", []reply{{200, candidate("IMAGE_SAFETY", "", file(testPrefix+"1/a.png"))}}, nil, false, []string{"s output_filter", "s output_filter"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &scripted{asked: test.asked, plain: test.plain}
			core, logs := observer.New(zapcore.InfoLevel)
			o := newOnline(t, serve(t, s.answer), func(c *Config) { c.Log = zap.New(core) })
			call := callOf(newJob(t, func(m *schemas.Job) {
				if test.references {
					m.References = []string{"gs://bkt/o.png"}
				}
			}))
			call.Prefix = testPrefix
			for i, want := range test.want {
				s.requests = ""
				a, err := o.Generate(t.Context(), call)
				if got := s.requests + " " + outcomeOf(t, a, err); got != want {
					t.Errorf("call %d: %s, want %s (%+v, %v)", i+1, got, want, a, err)
				}
			}
			checkLog(t, logs.All(), test.log)
		})
	}
}

// scripted is a server with prepared answers.
type scripted struct {
	asked, plain []reply
	requests     string
}

func (s *scripted) answer(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, ":countTokens") {
		respond(403, apiError(403, "The caller does not have permission"))(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	list, kind := &s.plain, "i"
	if bytes.Contains(body, []byte(`"outputConfig":{"outputUriPrefix":"`+testPrefix+`"}`)) {
		list, kind = &s.asked, "s"
	}
	s.requests += kind
	if len(*list) == 0 {
		respond(599, "no answer is prepared")(w, r)
		return
	}
	respond((*list)[0].status, (*list)[0].body)(w, r)
	if len(*list) > 1 {
		*list = (*list)[1:]
	}
}

// outcomeOf names what came of a call.
func outcomeOf(t *testing.T, a *worker.Answer, err error) string {
	t.Helper()
	var e *worker.CallError
	switch {
	case errors.As(err, &e):
		return e.Kind.String()
	case err != nil:
		return err.Error()
	case a.Image != nil:
		a.Image.Blob.Release()
		return "image"
	case a.Written != "":
		if a.Written != testPrefix+"1/a.png" || a.Reason != jobs.ReasonImage || a.Usage.Image != 1120 || a.UsageMissing {
			t.Errorf("answer %+v", a)
		}
		return "written"
	default:
		return string(a.Reason)
	}
}

// checkLog checks the last line of a log, given as its level and some of its words.
func checkLog(t *testing.T, lines []observer.LoggedEntry, want string) {
	t.Helper()
	got := ""
	if n := len(lines); n > 0 {
		got = lines[n-1].Level.String() + ": " + lines[n-1].Message
	}
	level, words, _ := strings.Cut(want, ": ")
	if (want == "") != (got == "") || !strings.HasPrefix(got, level) || !strings.Contains(got, words) || len(lines) > 2 {
		t.Errorf("%d lines of log, the last %q; want %q", len(lines), got, want)
	}
}

func TestStraightIsAskedForOnlyWhereItMayBe(t *testing.T) {
	t.Parallel()
	image := reply{200, candidate("STOP", "", inline("image/png", pngImage(t, 4, 4)))}
	s := &scripted{asked: []reply{image}, plain: []reply{image}}
	url := serve(t, s.answer)
	call := callOf(newJob(t, nil))
	generate := func(o *Online, c worker.Call) {
		t.Helper()
		if a, err := o.Generate(t.Context(), c); outcomeOf(t, a, err) != "image" {
			t.Errorf("%+v, %v", a, err)
		}
	}
	generate(newOnline(t, url, nil), call) // no prefix
	call.Prefix = testPrefix
	generate(newOnline(t, url, func(c *Config) { c.Inline = true }), call)
	o := newOnline(t, url, nil)
	generate(o, call)
	generate(o, call)
	// What was found out holds for neither another lane nor another model nor another bucket.
	lane := call
	lane.Lane.Name = "another"
	generate(o, lane)
	model := callOf(newJob(t, func(m *schemas.Job) { m.Model = "gemini-2.5-flash-image" }))
	model.Prefix, model.Lane.Name = testPrefix, call.Lane.Name
	generate(o, model)
	if s.requests != "iisiss" {
		t.Errorf("requests %s", s.requests)
	}
	bucket := call
	bucket.Prefix = "gs://assets-eu/straight/job-1/"
	if how := o.outlets.choose(outletOf(bucket)); how != probing {
		t.Errorf("another bucket: %v", how)
	}
}

// While a call finds out, others don't take the same risk.
func TestStraightIsProbedByOneCallAtATime(t *testing.T) {
	t.Parallel()
	image := candidate("STOP", "", inline("image/png", pngImage(t, 4, 4)))
	arrived, finish := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o := newOnline(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte("outputUriPrefix")) {
			once.Do(func() { close(arrived); <-finish })
			respond(200, candidate("STOP", "", file(testPrefix+"1/a.png")))(w, r)
			return
		}
		respond(200, image)(w, r)
	}), nil)
	call := callOf(newJob(t, nil))
	call.Prefix = testPrefix
	probe := make(chan string)
	go func() {
		a, err := o.Generate(context.WithoutCancel(t.Context()), call)
		probe <- outcomeOf(t, a, err)
	}()
	<-arrived
	for range 3 {
		if a, err := o.Generate(t.Context(), call); outcomeOf(t, a, err) != "image" {
			t.Errorf("during the probe: %+v, %v", a, err)
		}
	}
	close(finish)
	if got := <-probe; got != "written" {
		t.Errorf("the probe: %s", got)
	}
	if a, err := o.Generate(t.Context(), call); outcomeOf(t, a, err) != "written" {
		t.Errorf("after the probe: %+v, %v", a, err)
	}
}

// A call that was under way when the bucket was closed to the model comes back with an image that got through. That opens nothing.
func TestStraightStaysClosed(t *testing.T) {
	t.Parallel()
	o := &outlets{log: zap.NewNop(), known: map[outlet]finding{}}
	at := outlet{"m", "l", "b"}
	for _, how := range []wish{o.choose(at), straight} {
		o.learn(at, how, lesson{finding: honoured})
	}
	late := o.choose(at)
	o.learn(at, straight, lesson{finding: spurned})
	o.learn(at, late, lesson{finding: honoured})
	o.learn(at, late, lesson{})
	if how := o.choose(at); late != straight || how != unasked {
		t.Errorf("%v, then %v", late, how)
	}
}

// bucketInMemory is where an emulator writes images.
type bucketInMemory struct {
	mu      sync.Mutex
	objects map[string][]byte // by URI
}

type objectInMemory struct {
	bytes.Buffer
	close func([]byte)
}

func (o *objectInMemory) Close() error { o.close(o.Bytes()); return nil }

func (b *bucketInMemory) create(_ context.Context, bucket, name, _ string) (io.WriteCloser, error) {
	return &objectInMemory{close: func(content []byte) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.objects["gs://"+bucket+"/"+name] = content
	}}, nil
}

func TestEmulatorStraight(t *testing.T) {
	t.Parallel()
	bucket := &bucketInMemory{objects: map[string][]byte{}}
	s := startEmulator(t, vertextest.Config{PlainPictures: true, CreateObject: bucket.create, DirectOutput: map[string]vertextest.DirectOutput{
		"gemini-3-pro-image": vertextest.DirectHonoured, "gemini-3.1-flash-image": vertextest.DirectRefused, "gemini-3.1-flash-lite-image": vertextest.DirectDenied,
	}})
	o := newOnline(t, s.URL(), nil)
	for model, want := range map[string]string{"gemini-3-pro-image": "written", "gemini-3.1-flash-image": "image", "gemini-3.1-flash-lite-image": "image", "gemini-2.5-flash-image": "image"} {
		for i := range 3 {
			prompt := fmt.Sprintf("cup %d of %s", i, model)
			call := callOf(newJob(t, func(m *schemas.Job) { m.Model, m.Prompt = model, prompt }))
			call.Prefix = fmt.Sprintf("gs://assets/straight/%s-%d/", call.Job.ID, i)
			a, err := o.Generate(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			if want == "image" {
				checkImage(t, a, prompt)
				continue
			}
			content := bucket.objects[a.Written]
			if hash, ok := vertextest.PromptHash(content); !strings.HasPrefix(a.Written, call.Prefix) || !ok || hash != hashOf(prompt) || a.Usage.Image == 0 {
				t.Errorf("answer %+v, object of %d bytes", a, len(content))
			}
		}
	}
	if n := s.Stats().Images; n != 12 {
		t.Errorf("%d images were billed for 12 calls", n)
	}
}
