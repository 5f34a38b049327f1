package vertex

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"image/png"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

func startEmulator(t *testing.T, cfg vertextest.Config) *vertextest.Server {
	t.Helper()
	s, err := vertextest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// hashOf returns the hash of a prompt as the emulator's pictures carry it.
func hashOf(prompt string) string {
	sum := sha256.Sum256([]byte(prompt))
	return hex.EncodeToString(sum[:])
}

// checkImage checks that the answer's image is that of the prompt, whole, and what it is said to be; then it releases it.
func checkImage(t *testing.T, a *worker.Answer, prompt string) {
	t.Helper()
	if a.Image == nil {
		t.Fatalf("no image: %+v", a)
	}
	defer a.Image.Blob.Release()
	file, err := io.ReadAll(a.Image.Blob.NewReader())
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := vertextest.PromptHash(file); !ok || got != hashOf(prompt) {
		t.Errorf("the image carries the prompt hash %q", got)
	}
	config, err := png.DecodeConfig(bytes.NewReader(file))
	if err != nil || a.Image.MimeType != "image/png" || a.Image.Width != config.Width || a.Image.Height != config.Height {
		t.Errorf("%s of %d x %d, but the file is %+v, %v", a.Image.MimeType, a.Image.Width, a.Image.Height, config, err)
	}
}

func TestEmulatorAnswers(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, vertextest.Config{PlainPictures: true})
	tests := []struct {
		prompt  string
		reason  jobs.Reason
		finish  string
		missing bool
	}{
		{"a cup", jobs.ReasonImage, "STOP", false},
		{"a cup [[text]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[thought]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[two]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[nousage]]", jobs.ReasonImage, "STOP", true},
		{"a cup [[escape]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[escape]] [[thought]] [[two]] [[text]] [[bytes:400001]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[bytes:5000000]]", jobs.ReasonImage, "STOP", false},
		{"a cup [[refuse:prompt]]", jobs.ReasonPromptFilter, "PROHIBITED_CONTENT", false},
		{"a cup [[refuse:prompt:JAILBREAK]]", jobs.ReasonPromptFilter, "JAILBREAK", false},
		{"a cup [[refuse:output]]", jobs.ReasonOutputFilter, "IMAGE_SAFETY", false},
		{"a cup [[refuse:SPII]]", jobs.ReasonOutputFilter, "SPII", false},
		{"a cup [[refuse:NEVER_SEEN]]", jobs.ReasonOutputFilter, "NEVER_SEEN", false},
		{"a cup [[refuse:text]]", jobs.ReasonModelDeclined, "STOP", false},
		{"a cup [[refuse:none]]", jobs.ReasonNoImage, "NO_IMAGE", false},
		{"a cup [[refuse:MAX_TOKENS]]", jobs.ReasonBadAnswer, "MAX_TOKENS", false},
	}
	for _, test := range tests {
		t.Run(test.prompt, func(t *testing.T) {
			t.Parallel()
			o := newOnline(t, s.URL(), nil)
			a, err := o.Generate(t.Context(), callOf(newJob(t, func(m *schemas.Job) { m.Prompt = test.prompt })))
			if err != nil {
				t.Fatal(err)
			}
			if a.Reason != test.reason || a.FinishReason != test.finish || a.UsageMissing != test.missing || a.Usage.Total == 0 {
				t.Errorf("answer %+v", a)
			}
			if test.reason == jobs.ReasonImage {
				checkImage(t, a, test.prompt)
			}
		})
	}
}

func TestEmulatorErrors(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, vertextest.Config{
		PlainPictures: true, SlowBody: 100 * time.Millisecond,
		ReferenceExists: func(context.Context, string, string) (bool, error) { return false, nil },
	})
	tests := []struct {
		prompt string
		edit   func(*schemas.Job)
		kind   worker.Kind
		reason jobs.Reason
	}{
		{"a cup [[fault:429]]", nil, worker.Throttled, ""},
		{"a cup [[fault:503]]", nil, worker.Throttled, ""},
		{"a cup [[fault:500]]", nil, worker.Failing, ""},
		{"a cup [[fault:504]]", nil, worker.Failing, ""},
		{"a cup [[fault:400]]", nil, worker.Rejected, jobs.ReasonRejected},
		{"a cup [[fault:403]]", nil, worker.Denied, ""},
		{"a cup [[fault:404]]", nil, worker.Denied, ""},
		{"a cup [[fault:hang]]", nil, worker.Unanswered, ""},
		{"a cup [[fault:cut]]", nil, worker.Unanswered, ""},
		{"a cup [[fault:cut]] [[escape]] [[bytes:3000000]]", nil, worker.Unanswered, ""},
		{"a cup [[fault:garbage]]", nil, worker.Unanswered, ""},
		{"a cup", func(m *schemas.Job) { m.References = []string{"gs://bucket/gone.png"} }, worker.Rejected, jobs.ReasonReferenceUnavailable},
	}
	for _, test := range tests {
		t.Run(test.prompt, func(t *testing.T) {
			t.Parallel()
			o := newOnline(t, s.URL(), func(c *Config) {
				if strings.Contains(test.prompt, "hang") {
					c.CallTimeout = 300 * time.Millisecond
				}
			})
			_, err := o.Generate(t.Context(), callOf(newJob(t, func(m *schemas.Job) {
				if m.Prompt = test.prompt; test.edit != nil {
					test.edit(m)
				}
			})))
			var e *worker.CallError
			if !errors.As(err, &e) || e.Kind != test.kind || e.Reason != test.reason {
				t.Errorf("error %v (reason %q), want %v (%q)", err, e.Reason, test.kind, test.reason)
			}
		})
	}
}

func TestEmulatorTurns(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, vertextest.Config{PlainPictures: true})
	o := newOnline(t, s.URL(), nil)
	a, err := o.Generate(t.Context(), callOf(newJob(t, func(m *schemas.Job) {
		m.Prompt, m.System, m.References = "a cup", "Be brief.", []string{"gs://bkt/o.png"}
		m.Turns = []*schemas.Job_Turn{{Prompt: "a plate", Image: "gs://bkt/plate.png"}}
	})))
	if err != nil || a.Image == nil {
		t.Fatalf("%+v, %v", a, err)
	}
	defer a.Image.Blob.Release()
	file, err := io.ReadAll(a.Image.Blob.NewReader())
	if err != nil {
		t.Fatal(err)
	}
	want := vertextest.HashContext("Be brief.", []vertextest.Turn{
		{Role: "user", Parts: []vertextest.TurnPart{{Text: "a plate"}, {Image: "gs://bkt/plate.png"}, {Image: "gs://bkt/o.png"}, {Text: "a cup"}}},
	})
	if got, ok := vertextest.ContextHash(file); !ok || got != want {
		t.Errorf("context hash %s, want %s", got, want)
	}
}

func TestEmulatorCheck(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, vertextest.Config{})
	o := newOnline(t, s.URL(), nil)
	lane := laneOf(newJob(t, nil))
	if err := o.Check(t.Context(), lane); err != nil {
		t.Error(err)
	}
	lane.Model = "gemini-9"
	var e *worker.CallError
	if err := o.Check(t.Context(), lane); !errors.As(err, &e) || e.Kind != worker.Denied || e.Status != 404 {
		t.Errorf("error %v", err)
	}
	if n := s.Stats().Images; n != 0 {
		t.Errorf("checks were billed %d images", n)
	}
}

// TestEmulatorLoad makes many calls at once, through a budget that holds few of their images, over each protocol. Each must
// get the image of its own prompt.
func TestEmulatorLoad(t *testing.T) {
	t.Parallel()
	const calls = 120 // more than the streams of one HTTP/2 connection
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%v", http2), func(t *testing.T) {
			t.Parallel()
			s := startEmulator(t, vertextest.Config{TLS: true, PlainPictures: true, ImageBytes: 300_000, MinLatency: 50 * time.Millisecond})
			tr := newTransport(calls, http2)
			tr.TLSClientConfig = &tls.Config{RootCAs: s.CertPool()}
			t.Cleanup(tr.CloseIdleConnections)
			o := newOnline(t, s.URL(), func(c *Config) { c.Transport = tr })
			var all sync.WaitGroup
			for i := range calls {
				all.Go(func() {
					prompt := fmt.Sprintf("cup %d [[fault:429x1]]", i)
					job := newJob(t, func(m *schemas.Job) { m.Prompt = prompt })
					_, err := o.Generate(t.Context(), callOf(job))
					var e *worker.CallError
					if !errors.As(err, &e) || e.Kind != worker.Throttled {
						t.Errorf("first call: %v", err)
					}
					a, err := o.Generate(t.Context(), callOf(job))
					if err != nil {
						t.Errorf("second call: %v", err)
						return
					}
					checkImage(t, a, prompt)
				})
			}
			all.Wait()
			if st := s.Stats(); st.Images != calls || st.Undelivered != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}
