package check

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// recorded returns the labels of each metric on a page that a worker really served: testdata/worker-metrics.txt, taken from /metrics of
// the worker that is deleted in internal/torture's TestDeletedByKubernetes.
func recorded(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("testdata/worker-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(page)) {
		text, _, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if strings.Contains(text, "{") {
			text += "}"
		} else {
			text, _, _ = strings.Cut(text, " ")
		}
		series, err := newParser().ParseMetric(text)
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all[series.Get(model.MetricNameLabel)] = ownLabels(series)
	}
	return all
}

// ownLabels are the labels that a worker gives a series, without those of its pod.
func ownLabels(series labels.Labels) (names []string) {
	series.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel && !slices.Contains(targetLabels, l.Name) {
			names = append(names, l.Name)
		}
	})
	return names
}

// Queries are tried on metrics that these tests make up. These have the names and labels of real ones.
func TestMadeUpMetricsHaveTheShapeOfRecordedOnes(t *testing.T) {
	t.Parallel()
	shown := recorded(t)
	h := &history{t: t}
	healthy(h)
	fleet{workers: 1, inFlight: 1, waiting: 1, calls: 1, throttled: 1}.add(h)
	for _, s := range h.series {
		name := s.Labels().Get(model.MetricNameLabel)
		if _, google := googles[name]; google {
			continue
		}
		want, ok := shown[name]
		if !ok {
			t.Errorf("no worker has shown %s", name)
		}
		if got := ownLabels(s.Labels()); !slices.Equal(got, want) {
			t.Errorf("%s has the labels %q here, and %q of a worker", name, got, want)
		}
	}
}

// What the documentation promises of a metric, a worker keeps.
func TestRecordedMetricsAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	metrics := documented(t)
	for name, got := range recorded(t) {
		m, ok := metrics[name]
		if !ok {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			m, ok = metrics[base]
		}
		if !ok {
			t.Errorf("%s is not documented", name)
		}
		for _, label := range got {
			if label != "le" && !slices.Contains(m.labels, label) {
				t.Errorf("%s has a label %s that is not documented", name, label)
			}
		}
	}
}
