package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// alert is one of alerts.json.
type alert struct {
	Title      string `json:"title"`
	Severity   string `json:"severity"`
	Query      string `json:"query"`
	ForSeconds int    `json:"for_seconds"`
	Text       string `json:"text"`
}

func readAlerts(t *testing.T) map[string]alert {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(source(t, "deploy/monitoring/alerts.json")))
	decoder.DisallowUnknownFields()
	all := map[string]alert{}
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// withLimits does what Terraform does: it puts limits where their names are.
func withLimits(text string) string {
	return strings.NewReplacer("USD_PER_CAMPAIGN_DAY", "500", "USD_PER_HOUR", "1000").Replace(text)
}

// on writes a metric of worker i, with labels of its own.
func on(i int, metric, labels string) string {
	if labels != "" {
		labels = ", " + labels
	}
	return fmt.Sprintf(metric+"{"+target+labels+"}", i)
}

// lane is the label of the only lane.
const lane = `lane="gemini-3-pro-image/global/standard"`

// healthy adds two workers on a good day: nearly full, throttled a little, some prompts refused.
func healthy(h *history) {
	for i := range 2 {
		gauge := func(metric, labels string, value float64) { h.add(on(i, metric, labels), scraped, value, 0) }
		counter := func(metric, labels string, perSecond float64) { h.add(on(i, metric, labels), scraped, 0, perSecond) }
		gauge("assetmill_messages_capacity", "", 400)
		gauge("assetmill_calls_in_flight", lane, 380)
		gauge("assetmill_lane_throttled_ratio", lane, 0.015)
		gauge("assetmill_lane_state", lane+`, state="open"`, 1)
		gauge("assetmill_heartbeat_age_seconds", "", 5)
		gauge("assetmill_image_memory_waiting", "", 0)
		gauge("assetmill_lineage_pending_age_seconds", "", 0.4)
		gauge("assetmill_operation_retrying", `op="store"`, 0)
		counter("assetmill_calls_made_total", lane+`, result="image"`, 27)
		counter("assetmill_calls_made_total", lane+`, result="unknown"`, 0.01)
		counter("assetmill_jobs_ended_total", `outcome="succeeded", reason="image"`, 27)
		counter("assetmill_jobs_ended_total", `outcome="refused", reason="prompt_filter"`, 1)
		counter("assetmill_jobs_ended_total", `outcome="failed", reason="attempts_exhausted"`, 0.05)
		counter("assetmill_cost_usd_total", `campaign="spring"`, 0.001)
		for _, event := range []string{"taken_over", "adopted", "fenced", "unknown", "discarded"} {
			counter("assetmill_pay_once_events_total", fmt.Sprintf("event=%q", event), 0)
		}
		for _, result := range []string{"repeated", "given_back", "turned_away"} {
			counter("assetmill_deliveries_total", fmt.Sprintf("result=%q", result), 0)
		}
		h.add(fmt.Sprintf(`kubernetes_io:container_restart_count{monitored_resource="k8s_container", namespace_name="assetmill", container_name="worker", pod_name="worker-%d"}`, i),
			sampled, 3, 0)
		latencies(h, i, time.Hour, 15)
		latencies(h, i, 7*24*time.Hour+time.Hour, 15)
	}
	queue{subscription: "jobs-online", messages: 760}.add(h)
}

// latencies adds an hour of calls of up to so many seconds, in two buckets.
func latencies(h *history, i int, from time.Duration, seconds float64) {
	s := span{from: from, to: from - time.Hour + scraped.to, every: scraped.every}
	for _, bound := range []float64{15, 60} {
		rate := 0.0
		if bound >= seconds {
			rate = 27
		}
		h.add(on(i, "assetmill_call_duration_seconds_bucket", fmt.Sprintf(`%s, le="%g"`, lane, bound)), s, 0, rate)
	}
	h.add(on(i, "assetmill_call_duration_seconds_bucket", lane+`, le="+Inf"`), s, 0, 27)
}

// once adds a counter that went up by one 5 minutes ago.
func once(h *history, metric string, s span) {
	h.t.Helper()
	h.addFunc(metric, s, func(ago time.Duration) float64 {
		if ago > 5*time.Minute {
			return 0
		}
		return 1
	})
}

// troubles make one alert fire each. They come on top of a third worker, which shows nothing else.
var troubles = map[string]func(h *history){
	"campaign-spending": func(h *history) {
		h.add(on(2, "assetmill_cost_usd_total", `campaign="autumn"`), span{from: 24 * time.Hour, to: scraped.to, every: time.Minute}, 0, 0.01)
	},
	"capacity": func(h *history) {
		queue{subscription: "jobs-batch", messages: 1e6}.add(h) // none of its business
		queue{subscription: "jobs-online", messages: 5000}.add(h)
	},
	"failures": func(h *history) {
		h.add(on(2, "assetmill_jobs_ended_total", `outcome="failed", reason="attempts_exhausted"`), scraped, 0, 3)
	},
	"fenced":         func(h *history) { once(h, on(2, "assetmill_pay_once_events_total", `event="fenced"`), scraped) },
	"heartbeat":      func(h *history) { h.add(on(2, "assetmill_heartbeat_age_seconds", ""), scraped, 25, 0) },
	"image-memory":   func(h *history) { h.add(on(2, "assetmill_image_memory_waiting", ""), scraped, 1, 0) },
	"lane-broken":    func(h *history) { h.add(on(2, "assetmill_lane_state", lane+`, state="broken"`), scraped, 1, 0) },
	"lane-shut":      func(h *history) { h.add(on(2, "assetmill_lane_state", lane+`, state="shut"`), scraped, 1, 0) },
	"lineage-behind": func(h *history) { h.add(on(2, "assetmill_lineage_pending_age_seconds", ""), scraped, 61, 0) },
	"paid-twice":     func(h *history) { once(h, on(2, "assetmill_pay_once_events_total", `event="discarded"`), scraped) },
	"refusals": func(h *history) {
		h.add(on(2, "assetmill_jobs_ended_total", `outcome="refused", reason="output_filter"`), scraped, 0, 20)
	},
	"restarts": func(h *history) {
		once(h, `kubernetes_io:container_restart_count{monitored_resource="k8s_container", namespace_name="assetmill", container_name="worker", pod_name="worker-2"}`,
			span{from: sampled.from, to: time.Minute, every: time.Minute})
	},
	"retrying":    func(h *history) { h.add(on(2, "assetmill_operation_retrying", `op="store"`), scraped, 1, 0) },
	"slow-calls":  func(h *history) { latencies(h, 2, time.Hour, 60); latencies(h, 3, time.Hour, 60) },
	"spending":    func(h *history) { h.add(on(2, "assetmill_cost_usd_total", `campaign="spring"`), scraped, 0, 0.3) },
	"taken-over":  func(h *history) { once(h, on(2, "assetmill_pay_once_events_total", `event="taken_over"`), scraped) },
	"throttled":   func(h *history) { h.add(on(2, "assetmill_lane_throttled_ratio", lane), scraped, 0.2, 0) },
	"turned-away": func(h *history) { once(h, on(2, "assetmill_deliveries_total", `result="turned_away"`), scraped) },
	"unknown-calls": func(h *history) {
		h.add(on(2, "assetmill_calls_made_total", lane+`, result="unknown"`), scraped, 0, 1)
	},
}

func TestEachAlertFiresAtItsTroubleAlone(t *testing.T) {
	t.Parallel()
	alerts := readAlerts(t)
	for name, a := range alerts {
		query := withLimits(a.Query)
		quiet := &history{t: t}
		healthy(quiet)
		if got := quiet.ask(query); len(got) != 0 {
			t.Errorf("%s fires on a good day: %v", name, got)
		}
		if name == "no-workers" {
			continue
		}
		if troubles[name] == nil {
			t.Errorf("nothing makes %s fire", name)
			continue
		}
		loud := &history{t: t}
		healthy(loud)
		if name == "capacity" {
			loud.series = loud.series[:len(loud.series)-2] // another backlog
		}
		troubles[name](loud)
		if got := loud.ask(query); len(got) != 1 {
			t.Errorf("%s fires %d times, want once: %v", name, len(got), got)
		}
	}
}

func TestNoWorkersIsNoticed(t *testing.T) {
	t.Parallel()
	query := readAlerts(t)["no-workers"].Query
	for _, tc := range []struct {
		jobs  float64
		fleet fleet
		fires bool
	}{
		{1, fleet{}, true}, {0, fleet{}, false}, {1, fleet{workers: 1, neverCalled: true}, false}, {1, fleet{workers: 1, until: 6 * time.Minute}, true},
	} {
		h := &history{t: t}
		queue{subscription: "jobs-online", messages: tc.jobs}.add(h)
		tc.fleet.add(h)
		if got := h.ask(query); (len(got) > 0) != tc.fires {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

// Throttling alone is no reason to call somebody about capacity: another worker would not help.
func TestThrottledFleetIsNotCalledTooSmall(t *testing.T) {
	t.Parallel()
	h := &history{t: t}
	fleet{workers: 3, inFlight: 200, waiting: 200, calls: 15, throttled: 1}.add(h)
	queue{subscription: "jobs-online", messages: 600_000}.add(h)
	if got := h.ask(readAlerts(t)["capacity"].Query); len(got) != 0 {
		t.Errorf("it fires: %v", got)
	}
}

func TestAlertsAreWhole(t *testing.T) {
	t.Parallel()
	for name, a := range readAlerts(t) {
		switch {
		case !strings.HasPrefix(a.Title, "assetmill: ") || !strings.HasSuffix(a.Text, "."):
			t.Errorf("%s: a title begins with the name of the product, and a text is sentences", name)
		case !slices.Contains([]string{"CRITICAL", "ERROR", "WARNING"}, a.Severity):
			t.Errorf("%s: severity %s", name, a.Severity)
		case a.ForSeconds < 0 || a.ForSeconds%30 != 0:
			t.Errorf("%s: a duration is a multiple of half a minute, not %d s", name, a.ForSeconds)
		}
	}
	if a := readAlerts(t)["paid-twice"]; a.Severity != "CRITICAL" || a.ForSeconds != 0 {
		t.Error("one image that was paid for twice is one too many")
	}
}
