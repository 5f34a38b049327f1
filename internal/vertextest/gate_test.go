package vertextest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/vertextest"
)

// ask posts n requests at once and counts the statuses; done closes at the end.
func ask(ctx context.Context, t *testing.T, s *vertextest.Server, n int) (done chan struct{}) {
	c := client(t, s, "h2c")
	done = make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { _, _, _ = tryPost(ctx, c, s.URL()+proPath, request("x")) })
	}
	go func() { wg.Wait(); close(done) }()
	return done
}

// poll calls f until it holds. The server has no signal for what it counts.
func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func TestGateSendsGroups(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{PlainPictures: true, GateAt: 20, CallLog: &log})
	first := ask(t.Context(), t, s, 19)
	poll(t, "19 held", func() bool { return s.GateWaiting() == 19 })
	if n := len(log.records(t)); n != 0 {
		t.Errorf("%d answers left a closed gate", n)
	}
	<-ask(t.Context(), t, s, 1)
	<-first
	if st := s.Stats(); st.Images != 20 || s.GateWaiting() != 0 || st.PeakInFlight != 20 {
		t.Errorf("%+v after a full group", st)
	}
	// A client that leaves makes room, and is not billed.
	ctx, cancel := context.WithCancel(t.Context())
	gone := ask(ctx, t, s, 5)
	poll(t, "5 held", func() bool { return s.GateWaiting() == 5 })
	cancel()
	<-gone
	poll(t, "none held", func() bool { return s.GateWaiting() == 0 })
	if st := s.Stats(); st.Images != 20 {
		t.Errorf("%d images: clients that left were billed", st.Images)
	}
	// By hand, and by a smaller group.
	for _, open := range []func(){s.OpenGate, func() { s.SetGate(3) }} {
		done := ask(t.Context(), t, s, 3)
		poll(t, "3 held", func() bool { return s.GateWaiting() == 3 })
		open()
		<-done
	}
}

func TestGateWait(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true, GateAt: 1000, GateWait: 20 * time.Millisecond})
	<-ask(t.Context(), t, s, 3)
	<-ask(t.Context(), t, s, 1)
	if st := s.Stats(); st.Images != 4 {
		t.Errorf("%d images, want 4", st.Images)
	}
}

func TestControlEndpoint(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	c := client(t, s, "h1")
	control := func(path, body string) string {
		status, got := post(t, c, s.URL()+"/_vertextest/"+path, body)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, got)
		}
		return string(bytes.TrimSpace(got))
	}
	if got := control("gate", `{"at":4}`); got != `{"at":4,"waiting":0}` {
		t.Error(got)
	}
	done := ask(t.Context(), t, s, 3)
	poll(t, "3 held", func() bool { return s.GateWaiting() == 3 })
	control("gate/open", "")
	<-done
	control("gate", `{"at":0}`)
	control("quota", `{"RequestsPerMinute":1}`)
	generate(t, s, request("x"))
	if status, _ := post(t, c, s.URL()+proPath, request("x")); status != http.StatusTooManyRequests {
		t.Errorf("status %d with one request a minute", status)
	}
	resp, err := c.Get(s.URL() + "/_vertextest/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var st vertextest.Stats
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil || st.Images != 4 || st.Calls != 5 {
		t.Errorf("%+v, %v: want 4 images of 5 calls", st, err)
	}
	for path, body := range map[string]string{"gate": "x", "nothing": "{}", "gate/": "{}", "quota": "[]" + strings.Repeat(" ", 10)} {
		if status, got := post(t, c, s.URL()+"/_vertextest/"+path, body); status < 400 {
			t.Errorf("%s %q: %d %s", path, body, status, got)
		}
	}
}
