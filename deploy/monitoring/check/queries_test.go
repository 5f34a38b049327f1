package check

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// metric is what may be asked of one.
type metric struct {
	histogram bool
	labels    []string
}

// targetLabels are what Managed Service for Prometheus adds to every series of a pod.
var targetLabels = []string{"project_id", "location", "cluster", "namespace", "job", "instance", "pod", "container"}

// googles are the metrics of Google Cloud that are asked for.
var googles = map[string]metric{
	"pubsub_googleapis_com:subscription_num_undelivered_messages":   {labels: []string{"project_id", "subscription_id", "monitored_resource"}},
	"pubsub_googleapis_com:subscription_oldest_unacked_message_age": {labels: []string{"project_id", "subscription_id", "monitored_resource"}},
	"kubernetes_io:container_restart_count": {
		labels: []string{"project_id", "location", "cluster_name", "namespace_name", "pod_name", "container_name", "monitored_resource"},
	},
}

// documented returns what can be asked for: the table of docs/metrics.md, what it says of the process, and Google's.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	text := source(t, "docs/metrics.md")
	all := map[string]metric{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.ReplaceAll(strings.Trim(strings.TrimSpace(line), "|"), "`", ""), "|")
		if len(cells) != 7 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "assetmill.") {
			continue
		}
		m := metric{histogram: strings.TrimSpace(cells[2]) == "histogram", labels: slices.Clone(targetLabels)}
		for _, name := range strings.Split(cells[4], ",") {
			if name = strings.TrimSpace(name); name != "" {
				m.labels = append(m.labels, name)
			}
		}
		all[strings.TrimSpace(cells[1])] = m
	}
	for _, m := range regexp.MustCompile("`((?:go|process)_\\w+)`").FindAllStringSubmatch(text, -1) {
		all[m[1]] = metric{labels: targetLabels}
	}
	if len(all) < 30 {
		t.Fatalf("docs/metrics.md has %d metrics: its table has changed", len(all))
	}
	for name, m := range googles {
		all[name] = m
	}
	return all
}

// queries returns every query that there is, by where it is.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, a := range readAlerts(t) {
		all["alert "+name] = withLimits(a.Query)
	}
	for _, tr := range readAutoscaler(t).Spec.Triggers {
		all["trigger "+tr.Name] = tr.Metadata["query"]
	}
	var charts any
	if err := json.Unmarshal([]byte(withLimits(source(t, "deploy/monitoring/dashboard.json"))), &charts); err != nil {
		t.Fatal(err)
	}
	eachQuery(charts, func(query string) { all["dashboard: "+query] = query })
	pages, err := filepath.Glob(filepath.Join(repository, "docs/runbook/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := "docs/runbook/" + filepath.Base(page)
		for _, m := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(source(t, name), -1) {
			all[name+": "+m[1]] = m[1]
		}
	}
	_, examples, _ := strings.Cut(source(t, "docs/metrics.md"), "\n## Queries\n")
	for _, m := range regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(examples, -1) {
		all["docs/metrics.md: "+m[1]] = m[1]
	}
	return all
}

// eachQuery calls f for every prometheusQuery of a dashboard.
func eachQuery(node any, f func(query string)) {
	switch n := node.(type) {
	case map[string]any:
		for key, value := range n {
			if query, ok := value.(string); ok && key == "prometheusQuery" {
				f(query)
				continue
			}
			eachQuery(value, f)
		}
	case []any:
		for _, value := range n {
			eachQuery(value, f)
		}
	}
}

func TestQueriesAskForWhatThereIs(t *testing.T) {
	t.Parallel()
	metrics := documented(t)
	words := source(t, "docs/metrics.md") + source(t, "docs/outcomes.md") + source(t, "schemas/schemas.go")
	for where, query := range queries(t) {
		e, err := newParser().ParseExpr(query)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		var asked []string
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			if s, ok := node.(*parser.VectorSelector); ok {
				has, wrong := checkSelector(s, metrics, words)
				asked = append(asked, has...)
				for _, w := range wrong {
					t.Errorf("%s: %s", where, w)
				}
			}
			return nil
		})
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			for _, w := range checkNode(node, asked) {
				t.Errorf("%s: %s", where, w)
			}
			return nil
		})
	}
}

// checkNode returns what is wrong with an aggregation of series with some labels, or with a function.
func checkNode(node parser.Node, asked []string) (wrong []string) {
	switch n := node.(type) {
	case *parser.AggregateExpr:
		for _, label := range n.Grouping {
			if !slices.Contains(asked, label) {
				wrong = append(wrong, "nothing in it has the label "+label)
			}
		}
	case *parser.Call:
		if !slices.Contains(functions, n.Func.Name) {
			wrong = append(wrong, "Cloud Monitoring may not have the function "+n.Func.Name)
		}
	}
	return wrong
}

// checkSelector returns the labels that a selector's series have, and what is wrong with it.
func checkSelector(s *parser.VectorSelector, metrics map[string]metric, words string) (has, wrong []string) {
	m, ok := metrics[s.Name]
	if m.histogram {
		wrong = append(wrong, s.Name+" is a histogram: ask for its _bucket, _sum or _count")
	}
	has = m.labels
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(s.Name, suffix); cut && metrics[base].histogram {
			ok, has = true, metrics[base].labels
			if suffix == "_bucket" {
				has = append(slices.Clone(has), "le")
			}
		}
	}
	if !ok {
		wrong = append(wrong, fmt.Sprintf("there is no metric %q", s.Name))
	}
	for _, l := range s.LabelMatchers {
		if l.Name == model.MetricNameLabel {
			if l.Type != labels.MatchEqual {
				wrong = append(wrong, "Cloud Monitoring wants the whole name of a metric")
			}
			continue
		}
		if !slices.Contains(has, l.Name) {
			wrong = append(wrong, s.Name+" has no label "+l.Name)
		}
		// Values of closed sets are in the documentation or, as names of subscriptions, in the code.
		if slices.Contains(targetLabels, l.Name) || strings.HasSuffix(l.Name, "_name") || l.Name == "monitored_resource" {
			continue
		}
		for value := range strings.SplitSeq(l.Value, "|") {
			if !strings.Contains(words, "`"+value+"`") && !strings.Contains(words, strconv.Quote(value)) {
				wrong = append(wrong, fmt.Sprintf("%s is never %q", l.Name, value))
			}
		}
	}
	return has, wrong
}

// The test above must be able to fail.
func TestWrongQueriesAreFound(t *testing.T) {
	t.Parallel()
	metrics := documented(t)
	for _, query := range []string{
		"sum(assetmill_call_in_flight)", "sum(assetmill_call_duration_seconds)", "assetmill_cost_usd_total_bucket", `{__name__=~"assetmill_.*"}`,
		`assetmill_lane_state{status="shut"}`, `assetmill_lane_state{state="closed"}`,
		"histogram_avg(assetmill_lane_waiting)", "sum by (campaign) (assetmill_lane_waiting)",
	} {
		e, err := newParser().ParseExpr(query)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
			if s, ok := node.(*parser.VectorSelector); ok {
				_, wrong := checkSelector(s, metrics, "`shut`")
				found += len(wrong)
			}
			found += len(checkNode(node, []string{"lane"}))
			return nil
		})
		if found == 0 {
			t.Errorf("nothing is wrong with %s", query)
		}
	}
	if _, err := newParser().ParseExpr("sum("); err == nil {
		t.Error("half a query was understood")
	}
}
