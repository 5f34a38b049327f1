package vertextest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func TestStatusFaults(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log})
	for _, tc := range []struct {
		status          int
		canonical, text string
	}{
		{500, "INTERNAL", "Internal error encountered."},
		{503, "UNAVAILABLE", "The service is currently unavailable."},
		{504, "DEADLINE_EXCEEDED", "Deadline"},
		{429, "RESOURCE_EXHAUSTED", "Resource exhausted, please try again later."},
		{403, "PERMISSION_DENIED", "denied"},
	} {
		status, body := post(t, client(t, s, "h2c"), s.URL()+proPath, request(fmt.Sprintf("[[fault:%d]]", tc.status)))
		message, canonical := errorOf(t, status, body)
		if status != tc.status || canonical != tc.canonical || !strings.Contains(message, tc.text) {
			t.Errorf("%d %s %q, want %+v", status, canonical, message, tc)
		}
		if got := s.Stats().ByStatus[tc.status]; got != 1 {
			t.Errorf("%d calls counted with %d, want 1", got, tc.status)
		}
	}
	if recs := log.records(t); len(recs) != 0 {
		t.Errorf("errors were billed: %+v", recs)
	}
}

func TestFirstNCalls(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	c := client(t, s, "h1")
	var got []int
	for range 4 {
		status, _ := post(t, c, s.URL()+proPath, request("x [[fault:429x2]]"))
		got = append(got, status)
	}
	if want := []int{429, 429, 200, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	if status, _ := post(t, c, s.URL()+proPath, request("another [[fault:429x2]]")); status != 429 {
		t.Errorf("another prompt has status %d: prompts share a count", status)
	}
}

func TestHang(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h1", "h2c"} {
		var log safeBuffer
		arrived := make(chan struct{}, 1)
		s := start(t, vertextest.Config{CallLog: &log, BillAbandoned: true, Hook: func(_ *vertextest.Call, f vertextest.Fate) vertextest.Fate {
			arrived <- struct{}{}
			return f
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		if _, _, err := tryPost(ctx, client(t, s, protocol), s.URL()+proPath, request("[[fault:hang]]")); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the client to give up", protocol, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if len(log.records(t)) != 0 || s.Stats().ByStatus[200] != 0 {
			t.Errorf("%s: a hang was billed", protocol)
		}
	}
}

func TestCutBody(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h1", "h2c"} {
		var log safeBuffer
		s := start(t, vertextest.Config{CallLog: &log})
		status, body, err := tryPost(t.Context(), client(t, s, protocol), s.URL()+proPath, request("[[fault:cut]] [[bytes:900000]]"))
		if err == nil || status != http.StatusOK || len(body) < 300_000 || len(body) > 900_000 {
			t.Errorf("%s: status %d, %d bytes, error %v; want a 200 that breaks in the middle", protocol, status, len(body), err)
		}
		checkUndelivered(t, s, &log)
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log})
	status, body := post(t, client(t, s, "h1"), s.URL()+proPath, request("[[fault:garbage]]"))
	if status != http.StatusOK || json.Valid(body) || len(body) == 0 {
		t.Errorf("status %d, valid JSON %v, %d bytes", status, json.Valid(body), len(body))
	}
	checkUndelivered(t, s, &log)
}

// checkUndelivered wants one billed image that did not arrive.
func checkUndelivered(t *testing.T, s *vertextest.Server, log *safeBuffer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	recs := log.records(t)
	if len(recs) != 1 || recs[0].Delivered || recs[0].Result != "image" || recs[0].Image == "" {
		t.Errorf("call log %+v, want one undelivered image", recs)
	}
	if st := s.Stats(); st.Images != 1 || st.Undelivered != 1 || st.ByStatus[200] != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	const slow = 200 * time.Millisecond
	s := start(t, vertextest.Config{SlowBody: slow})
	begin := time.Now()
	r := generate(t, s, request("[[fault:slow]]"))
	if took := time.Since(begin); took < slow {
		t.Errorf("took %v, want at least %v", took, slow)
	}
	checkPicture(t, r.images()[0], "image/png", 1024, 1024)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log})
	generate(t, s, request("[[latency:120ms]]"))
	if rec := log.records(t)[0]; rec.LatencyMS < 120 {
		t.Errorf("latency %v ms, want 120", rec.LatencyMS)
	}
	status, body := post(t, client(t, s, "h1"), s.URL()+proPath, request("[[latency:10m]]"), "X-Server-Timeout", "0.05")
	if _, canonical := errorOf(t, status, body); status != http.StatusGatewayTimeout || canonical != "DEADLINE_EXCEEDED" {
		t.Errorf("%d %s, want the server's deadline", status, canonical)
	}
	if status, _ := post(t, client(t, s, "h1"), s.URL()+proPath, request("x"), "X-Server-Timeout", "soon"); status != http.StatusBadRequest {
		t.Errorf("bad timeout: status %d", status)
	}
	if n := len(log.records(t)); n != 1 {
		t.Errorf("%d calls billed, want 1", n)
	}
}

func TestClientLeavesDuringLatency(t *testing.T) {
	t.Parallel()
	for _, billed := range []bool{false, true} {
		logged := make(chan struct{}, 1)
		var log safeBuffer
		arrived := make(chan struct{}, 1)
		s := start(t, vertextest.Config{
			BillAbandoned: billed,
			CallLog:       writerFunc(func(p []byte) (int, error) { logged <- struct{}{}; return log.Write(p) }),
			Hook: func(_ *vertextest.Call, f vertextest.Fate) vertextest.Fate {
				arrived <- struct{}{}
				return f
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		latency := "10m"
		if billed {
			latency = "100ms"
		}
		if _, _, err := tryPost(ctx, client(t, s, "h1"), s.URL()+proPath, request("[[latency:"+latency+"]]")); err == nil {
			t.Error("the call was answered")
		}
		if billed {
			<-logged
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		recs := log.records(t)
		if billed && (len(recs) != 1 || recs[0].Delivered) || !billed && len(recs) != 0 {
			t.Errorf("BillAbandoned %v: call log %+v", billed, recs)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	s := start(t, vertextest.Config{MaxInFlight: 1, PlainPictures: true, Hook: func(c *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		if c.Prompt == "wait" {
			f.Fault = vertextest.FaultHang
			arrived <- struct{}{}
		}
		return f
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _, _ = tryPost(ctx, client(t, s, "h1"), s.URL()+proPath, request("wait")) })
	<-arrived
	if status, _ := post(t, client(t, s, "h1"), s.URL()+proPath, request("x")); status != http.StatusTooManyRequests {
		t.Errorf("second call: status %d, want 429", status)
	}
	cancel()
	wg.Wait()
}

func TestHookDecides(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true, Hook: func(c *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		if c.Labels["attempt"] == "1" && c.Header.Get("X-Test") == "yes" {
			f.Fault, f.Status = vertextest.FaultStatus, 503
		}
		if c.Labels["attempt"] == "2" {
			f.Fault = vertextest.FaultStatus // without a status
		}
		return f
	}})
	for label, want := range map[string]int{"1": 503, "2": 500, "3": 200} {
		if status, _ := post(t, client(t, s, "h1"), s.URL()+proPath, with(`"labels":{"attempt":"`+label+`"}`), "X-Test", "yes"); status != want {
			t.Errorf("attempt %s: status %d, want %d", label, status, want)
		}
	}
}

// fates collects what a server decides for n prompts, sent in the given order.
func fates(t *testing.T, cfg vertextest.Config, order []int) map[string]vertextest.Fate {
	t.Helper()
	out := map[string]vertextest.Fate{}
	cfg.PlainPictures = true
	cfg.Hook = func(c *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		out[fmt.Sprintf("%s#%d", c.Prompt, c.Number)] = f
		return vertextest.Fate{Fault: vertextest.FaultStatus, Status: 503} // the fate is known; skip the work
	}
	s := start(t, cfg)
	c := client(t, s, "h1")
	for _, i := range order {
		post(t, c, s.URL()+proPath, request(fmt.Sprintf("prompt %d", i)))
	}
	return out
}

func TestRatesAreRepeatable(t *testing.T) {
	t.Parallel()
	cfg := vertextest.Config{
		Seed: 7, MinLatency: time.Second, MaxLatency: 3 * time.Second,
		Refusals:     vertextest.Refusals{Prompt: 0.1, Output: 0.1, Text: 0.1, NoImage: 0.1},
		Faults:       vertextest.Faults{Internal: 0.05, Unavailable: 0.05, Hang: 0.05, Cut: 0.05, Garbage: 0.05, Slow: 0.05},
		ThoughtImage: 0.3, MissingUsage: 0.2, TextPart: 0.5,
	}
	const n = 600
	var forward, backward []int
	for i := range n {
		forward = append(forward, i%(n-100)) // the first hundred come twice
		backward = append(backward, (n-1-i)%(n-100))
	}
	a, b := fates(t, cfg, forward), fates(t, cfg, backward)
	cfg.Seed = 8
	other := fates(t, cfg, forward)
	differ, repeatsDiffer := 0, 0
	refusals, faults, thoughts, missing := 0.0, 0.0, 0.0, 0.0
	for key, f := range a {
		if f != b[key] {
			t.Fatalf("%s: %+v, in another order %+v", key, f, b[key])
		}
		if f != other[key] {
			differ++
		}
		if prompt, ok := strings.CutSuffix(key, "#1"); ok && f != a[prompt+"#0"] {
			repeatsDiffer++
		}
		if f.Latency < cfg.MinLatency || f.Latency > cfg.MaxLatency {
			t.Errorf("%s: latency %v", key, f.Latency)
		}
		count := func(sum *float64, hit bool) {
			if hit {
				*sum += 1.0 / n
			}
		}
		count(&refusals, f.Refusal != vertextest.RefusalNone)
		count(&faults, f.Fault != vertextest.FaultNone)
		count(&thoughts, f.ThoughtImage)
		count(&missing, f.NoUsage)
	}
	if len(a) != n || differ < n/2 || repeatsDiffer == 0 {
		t.Errorf("%d fates, %d differ with another seed, %d differ when repeated", len(a), differ, repeatsDiffer)
	}
	for name, share := range map[string][2]float64{"refusals": {refusals, 0.4}, "faults": {faults, 0.3}, "thoughts": {thoughts, 0.3}, "missing usage": {missing, 0.2}} {
		// Four standard deviations of a share among n; the seed is fixed, so this cannot flake.
		if math.Abs(share[0]-share[1]) > 4*math.Sqrt(share[1]*(1-share[1])/n) {
			t.Errorf("share of %s is %.3f, want about %.1f", name, share[0], share[1])
		}
	}
}

func TestFateIgnoresForm(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	s := start(t, vertextest.Config{PlainPictures: true, Hook: func(c *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		seen[c.Number]++
		return f
	}})
	c := client(t, s, "h1")
	for _, body := range []string{
		`{"contents":[{"role":"user","parts":[{"text":"x"}]}],"generationConfig":{"seed":1,"imageConfig":{"imageSize":"1K"}}}`,
		`{"generation_config":{"imageConfig":{"image_size":"1K"},"seed":"1"}, "contents":[{"parts":[{"text":"x"}]}]}`,
	} {
		if status, got := post(t, c, s.URL()+proPath, body); status != http.StatusOK {
			t.Fatalf("%d %s", status, got)
		}
	}
	if seen[0] != 1 || seen[1] != 1 {
		t.Errorf("counts by number %v: the same request in another spelling is another request", seen)
	}
}
