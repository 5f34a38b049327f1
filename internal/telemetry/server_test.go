package telemetry

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// get returns the status and the body of a page.
func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func serve(t *testing.T, pages Pages) *Server {
	t.Helper()
	if pages.Metrics == nil {
		pages.Metrics = http.NotFoundHandler()
	}
	s, err := Listen("127.0.0.1:0", pages)
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

func TestProbesFollowTheWorkersLife(t *testing.T) {
	t.Parallel()
	h := NewHealth()
	s := serve(t, Pages{Health: h})
	for _, step := range []struct {
		phase       string
		enter       func()
		live, ready int
		text        string // of /readyz
	}{
		{"starting", func() {}, 200, 503, "starting"},
		{"ready", func() { h.Ready(nil) }, 200, 200, "ready"},
		{"stopping", h.Stopping, 200, 503, "stopping"},
		{"over", h.Over, 503, 503, "over"},
	} {
		step.enter()
		if code, _ := get(t, s, "/healthz"); code != step.live {
			t.Errorf("%s: /healthz answers %d, want %d", step.phase, code, step.live)
		}
		if code, text := get(t, s, "/readyz"); code != step.ready || text != step.text {
			t.Errorf("%s: /readyz answers %d %q, want %d %q", step.phase, code, text, step.ready, step.text)
		}
	}
}

func TestALongSilenceOfTheHeartbeatIsFatal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := NewHealth()
		var last time.Time
		time.Sleep(2 * silenceLimit) // checks at the start may wait for somebody to mend something
		h.Ready(func() time.Time { return last })
		check := func(when string, want bool) {
			t.Helper()
			if _, err := h.alive(); (err == nil) != want {
				t.Errorf("%s: %v", when, err)
			}
		}
		check("at the start, before the first beat", true)
		time.Sleep(silenceLimit)
		check("without a beat for just as long as allowed", true)
		time.Sleep(time.Second)
		check("without a beat for longer", false)
		last = time.Now()
		check("after a beat", true)
		time.Sleep(silenceLimit + time.Second)
		check("without a beat since", false)
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "m 1") })
	for _, profiles := range []bool{false, true} {
		s := serve(t, Pages{Metrics: metrics, Health: NewHealth(), Profiles: profiles})
		if code, text := get(t, s, "/metrics"); code != 200 || text != "m 1" {
			t.Errorf("/metrics answers %d %q", code, text)
		}
		want := map[bool]int{false: 404, true: 200}[profiles]
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1"} {
			if code, _ := get(t, s, path); code != want {
				t.Errorf("profiles %v: %s answers %d", profiles, path, code)
			}
		}
		if code, _ := get(t, s, "/"); code != 404 {
			t.Errorf("/ answers %d", code)
		}
	}
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	first := serve(t, Pages{Health: NewHealth()})
	for addr, want := range map[string]string{
		first.Addr():   "another process has the port",
		"9090":         "--metrics-addr is host:port",
		"127.0.0.1:-1": "--metrics-addr is host:port",
	} {
		s, err := Listen(addr, Pages{Metrics: http.NotFoundHandler(), Health: NewHealth()})
		if err == nil {
			s.Close()
			t.Errorf("%s: no error", addr)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestCloseDoesNotWaitForAProfile(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(begun); <-r.Context().Done() })
	s, err := Listen("127.0.0.1:0", Pages{Metrics: slow, Health: NewHealth()})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if resp, err := http.Get("http://" + s.Addr() + "/metrics"); err == nil {
			resp.Body.Close()
		}
	}()
	<-begun
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > farewellTime+3*time.Second {
		t.Errorf("closing took %s", took)
	}
}
