package telemetry

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/metric"

	"github.com/assetmill/assetmill/worker/workertest"
)

// documented is a row of the table in docs/metrics.md.
type documented struct {
	name, page, unit string
	labels           string // sorted, separated by commas
	kind             string
	meaning          string
}

const docs = "../../docs/metrics.md"

// readDocs returns the rows of the table, by OpenTelemetry name.
func readDocs(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]documented{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 7 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`assetmill.") {
			continue
		}
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "`", "")
		}
		d := documented{name: cells[0], page: cells[1], kind: cells[2], unit: cells[3], labels: cells[4], meaning: cells[5]}
		if d.meaning == "" {
			t.Errorf("%s lacks its meaning", d.name)
		}
		if _, twice := rows[d.name]; twice {
			t.Errorf("%s is documented twice", d.name)
		}
		rows[d.name] = d
	}
	if len(rows) == 0 {
		t.Fatal("no table in " + docs)
	}
	return rows
}

// recorder notes the instruments that are made through it.
type recorder struct {
	metric.Meter
	made map[string]documented
}

func (r recorder) note(name, kind, unit string) {
	r.made[name] = documented{name: name, kind: kind, unit: unit}
}

func (r recorder) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	r.note(name, "counter", metric.NewInt64CounterConfig(o...).Unit())
	return r.Meter.Int64Counter(name, o...)
}

func (r recorder) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	r.note(name, "histogram", metric.NewFloat64HistogramConfig(o...).Unit())
	return r.Meter.Float64Histogram(name, o...)
}

func (r recorder) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	r.note(name, "gauge", metric.NewInt64ObservableGaugeConfig(o...).Unit())
	return r.Meter.Int64ObservableGauge(name, o...)
}

func (r recorder) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	r.note(name, "gauge", metric.NewFloat64ObservableGaugeConfig(o...).Unit())
	return r.Meter.Float64ObservableGauge(name, o...)
}

func (r recorder) Int64ObservableCounter(name string, o ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	r.note(name, "counter", metric.NewInt64ObservableCounterConfig(o...).Unit())
	return r.Meter.Int64ObservableCounter(name, o...)
}

func (r recorder) Float64ObservableCounter(name string, o ...metric.Float64ObservableCounterOption) (metric.Float64ObservableCounter, error) {
	r.note(name, "counter", metric.NewFloat64ObservableCounterConfig(o...).Unit())
	return r.Meter.Float64ObservableCounter(name, o...)
}

// busyMinute runs a worker through everything that moves a metric, and returns the instruments that were made and what /metrics says at the end.
func busyMinute(t *testing.T) (made map[string]documented, page map[string]*dto.MetricFamily) {
	t.Helper()
	tel, err := Open(t.Context(), Config{Service: "assetmill", Version: "test", Instance: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close(t.Context())
	meter := recorder{tel.Meter(), map[string]documented{}}
	err = Show(meter, Sources{
		Lanes: func() []Lane {
			return []Lane{
				{Name: "pro/global/standard", State: "open", InFlight: 30, Capacity: 40, Waiting: 7, Rate: 412, Throttled: 0.01},
				{Name: "pro/eu/standard", State: "shut"},
				{Name: "flash/global/standard", State: "open", Rate: 60},
			}
		},
		Capacity:  64,
		Memory:    func() (int64, int64, int) { return 100, 400, 2 },
		Heartbeat: func() time.Time { return time.Now().Add(-3 * time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	resent, err := Resent(meter)
	if err != nil {
		t.Fatal(err)
	}
	resent("generations_raw", 12)
	q := workertest.NewQueue()
	w := &world{t: t, queue: q, meter: meter, callFor: 12 * time.Second}
	w.start()
	defer w.halt()
	for _, id := range []string{"img-1", "img-2", "refused-1", "throttled-1", "lost-1", "failing-1", "flaky-1", "stumble-1"} {
		q.Publish([]byte(message(id)), nil)
	}
	q.Publish([]byte("no json "+secret), nil)
	time.Sleep(5 * time.Minute)
	q.Publish([]byte(message("img-3")), nil)
	time.Sleep(5 * time.Second) // held as we look
	synctest.Wait()
	return meter.made, gather(t, tel)
}

func gather(t *testing.T, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := tel.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	page := map[string]*dto.MetricFamily{}
	for _, f := range families {
		page[f.GetName()] = f
	}
	return page
}

// labels returns the names of a family's labels. All of its series must have the same.
func labels(t *testing.T, f *dto.MetricFamily) string {
	t.Helper()
	all := map[string]bool{}
	for _, m := range f.GetMetric() {
		var names []string
		for _, l := range m.GetLabel() {
			names = append(names, l.GetName())
			if strings.Contains(l.GetValue(), secret) {
				t.Errorf("%s shows a prompt or an error's text", f.GetName())
			}
		}
		all[strings.Join(slices.Sorted(slices.Values(names)), ", ")] = true
	}
	if len(all) != 1 {
		t.Errorf("%s has series with different labels: %v", f.GetName(), slices.Collect(maps.Keys(all)))
	}
	for names := range all {
		return names
	}
	return ""
}

func TestEveryMetricIsDocumentedAndMoves(t *testing.T) {
	t.Parallel()
	want := readDocs(t)
	synctest.Test(t, func(t *testing.T) {
		made, page := busyMinute(t)
		for name, m := range made {
			d, ok := want[name]
			if !ok {
				t.Errorf("%s (%s, unit %q) is not in %s", name, m.kind, m.unit, docs)
				continue
			}
			if d.kind != m.kind || d.unit != m.unit {
				t.Errorf("%s is a %s in %q; %s says %s in %q", name, m.kind, m.unit, docs, d.kind, d.unit)
			}
			f := page[d.page]
			if f == nil {
				t.Errorf("%s: /metrics has no %s", name, d.page)
				continue
			}
			if got := labels(t, f); got != d.labels {
				t.Errorf("%s has the labels %q; %s says %q", name, got, docs, d.labels)
			}
			delete(page, d.page)
			if kind := strings.ToLower(f.GetType().String()); kind != d.kind {
				t.Errorf("%s is a %s in the format of Prometheus", name, kind)
			}
		}
		for name := range want {
			if _, ok := made[name]; !ok {
				t.Errorf("%s documents %s, which nobody makes", docs, name)
			}
		}
		for name := range page {
			if strings.HasPrefix(name, "assetmill") {
				t.Errorf("/metrics has %s, which %s does not", name, docs)
			}
		}
	})
}

// value returns the value of the only series of a family whose labels are as given.
func value(t *testing.T, page map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range page[name].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		if slices.Equal(got, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("%s%v is not on the page", name, labels)
	return -1
}

func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, page := busyMinute(t)
		for _, tt := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"assetmill_jobs_ended_total", []string{"outcome=succeeded", "reason=image"}, 7},
			{"assetmill_jobs_ended_total", []string{"outcome=refused", "reason=prompt_filter"}, 1},
			{"assetmill_jobs_ended_total", []string{"outcome=failed", "reason=invalid_message"}, 1},
			{"assetmill_calls_made_total", []string{"lane=pro/global/standard", "result=image"}, 7},
			{"assetmill_calls_made_total", []string{"lane=pro/global/standard", "result=throttled"}, 1},
			{"assetmill_calls_made_total", []string{"lane=pro/global/standard", "result=unknown"}, 1},
			{"assetmill_calls_made_total", []string{"lane=pro/global/standard", "result=error"}, 1},
			{"assetmill_call_duration_seconds", []string{"lane=pro/global/standard"}, 8},
			{"assetmill_deliveries_total", []string{"result=given_back"}, 1},
			{"assetmill_deliveries_total", []string{"result=repeated"}, 1}, // the message whose result could not be announced
			{"assetmill_pay_once_events_total", []string{"event=unknown"}, 1},
			{"assetmill_pay_once_events_total", []string{"event=discarded"}, 0},
			{"assetmill_operation_retries_total", []string{"op=claim"}, 2},
			{"assetmill_operation_failures_total", []string{"error_type=other", "op=publish_result"}, 1},
			{"assetmill_operation_duration_seconds", []string{"op=store"}, 7},
			{"assetmill_lineage_lag_seconds", nil, 8}, // not the row of the invalid message, nor the one that was told twice
			{"assetmill_queue_duration_seconds", nil, 8},
			{"assetmill_job_duration_seconds", []string{"outcome=succeeded"}, 7},
			{"assetmill_messages_held", nil, 1},
			{"assetmill_messages_oldest_age_seconds", nil, 5},
			{"assetmill_lane_state", []string{"lane=pro/eu/standard", "state=shut"}, 1},
			{"assetmill_calls_utilization_ratio", []string{"lane=pro/global/standard"}, 0.75},
			{"assetmill_heartbeat_age_seconds", nil, 3},
			{"assetmill_lineage_rows_resent_total", []string{"table=generations_raw"}, 12},
		} {
			if got := value(t, page, tt.name, tt.labels...); got != tt.want {
				t.Errorf("%s%v is %v, want %v", tt.name, tt.labels, got, tt.want)
			}
		}
		// Eight answers of which seven are images at list price, and one answer that was lost.
		if usd := value(t, page, "assetmill_cost_usd_total", "campaign=spring"); usd < 8*0.1 || usd > 8*0.2 {
			t.Errorf("the campaign cost $%v", usd)
		}
		if stored := value(t, page, "assetmill_assets_stored_bytes_total"); stored != float64(7*len("the picture of ")+len("img-1img-2throttled-1lost-1failing-1flaky-1stumble-1")) {
			t.Errorf("%v bytes are stored", stored)
		}
	})
}

// Names in queries elsewhere in the documents must exist.
func TestQueriesNameRealMetrics(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, d := range readDocs(t) {
		known[d.page] = true
		if d.kind == "histogram" {
			known[d.page+"_bucket"], known[d.page+"_count"], known[d.page+"_sum"] = true, true, true
		}
	}
	for _, name := range []string{docs, "../../docs/observability.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, metric := range regexp.MustCompile(`\bassetmill_[a-z_]+`).FindAllString(string(text), -1) {
			if !known[metric] {
				t.Errorf("%s speaks of %s, which does not exist", name, metric)
			}
		}
	}
}
