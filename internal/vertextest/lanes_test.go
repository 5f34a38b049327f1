package vertextest_test

import (
	"net/http"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/internal/vertextest"
)

const (
	requestType = "X-Vertex-AI-LLM-Request-Type"
	sharedType  = "X-Vertex-AI-LLM-Shared-Request-Type"
)

// Bought throughput serves first; what exceeds it spills over, unless the caller forbids one or the other.
func TestProvisionedSpillsToShared(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{
		PlainPictures: true, CallLog: &log, TierRequestsPerMinute: map[string]float64{vertextest.TierProvisioned: 1},
	})
	for i, tc := range []struct {
		headers []string
		traffic string // empty: 429
	}{
		{[]string{requestType, "shared"}, "ON_DEMAND"},
		{[]string{requestType, "shared", sharedType, "flex"}, "ON_DEMAND_FLEX"},
		{nil, "PROVISIONED_THROUGHPUT"}, // the one of this minute
		{nil, "ON_DEMAND"},
		{[]string{sharedType, "flex"}, "ON_DEMAND_FLEX"},
		{[]string{requestType, "dedicated"}, ""},
	} {
		code, body := post(t, client(t, s, "h1"), s.URL()+proPath, request("x"), tc.headers...)
		if tc.traffic == "" {
			if message, _ := errorOf(t, code, body); code != http.StatusTooManyRequests || message != "Too many requests. Exceeded the Provisioned Throughput." {
				t.Errorf("%d: %d %s", i, code, message)
			}
			continue
		}
		if got := decode(t, body).UsageMetadata.TrafficType; got != tc.traffic {
			t.Errorf("%d: %s, want %s", i, got, tc.traffic)
		}
	}
	var tiers []string
	for _, rec := range log.records(t) {
		tiers = append(tiers, rec.Tier)
	}
	want := []string{"standard", "flex", "provisioned", "standard", "flex"}
	if len(tiers) != len(want) || tiers[2] != want[2] || tiers[3] != want[3] || tiers[4] != want[4] {
		t.Errorf("call log has tiers %v, want %v", tiers, want)
	}
}

// Without bought throughput there is nothing to spill from.
func TestNoProvisionedThroughput(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	if got := generate(t, s, request("x")).UsageMetadata.TrafficType; got != "ON_DEMAND" {
		t.Error(got)
	}
	s.SetTierRequestsPerMinute(vertextest.TierProvisioned, 600)
	if got := generate(t, s, request("x")).UsageMetadata.TrafficType; got != "PROVISIONED_THROUGHPUT" {
		t.Error(got)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for advice, want := range map[time.Duration]string{0: "", 1500 * time.Millisecond: "2"} {
		s := start(t, vertextest.Config{PlainPictures: true, RequestsPerMinute: 1, RetryAfter: advice})
		generate(t, s, request("x"))
		resp, err := client(t, s, "h1").Post(s.URL()+proPath, "application/json", jsonBody(request("x")))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Retry-After"); got != want || resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%v: %s with Retry-After %q, want %q", advice, resp.Status, got, want)
		}
		_, err = prediction(t, s).GenerateContent(t.Context(), protoRequest("x"))
		st := status.Convert(err)
		if st.Code() != codes.ResourceExhausted {
			t.Fatal(err)
		}
		if details := st.Details(); (len(details) == 1) != (want != "") {
			t.Errorf("%v: details %v", advice, details)
		} else if want != "" && details[0].(*errdetails.RetryInfo).RetryDelay.AsDuration() != 2*time.Second {
			t.Errorf("details %v, want 2 s", details)
		}
	}
}
