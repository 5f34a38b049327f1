package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// repository is the folder of the whole.
const repository = "../../.."

func source(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// functions are those that Cloud Monitoring can be relied upon to have: it is at the level of Prometheus 2.44, which had all of these.
var functions = []string{
	"absent", "avg_over_time", "clamp_max", "clamp_min", "histogram_quantile", "increase", "label_replace", "last_over_time", "max_over_time",
	"min_over_time", "rate", "scalar", "vector",
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

// now is when queries are asked. Samples are at times before.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// history is metrics as a query finds them.
type history struct {
	t      *testing.T
	series []storage.Series
}

// span is when a series has samples.
type span struct {
	from, to time.Duration // before now; from is the earlier
	every    time.Duration
}

var (
	// scraped is how workers' metrics come: twice a minute, and seconds later they can be asked for.
	scraped = span{from: time.Hour, to: 15 * time.Second, every: 30 * time.Second}
	// sampled is how Pub/Sub's own metrics come: once a minute, and up to two minutes later they can be asked for.
	sampled = span{from: time.Hour, to: 3 * time.Minute, every: time.Minute}
)

// add adds a series that begins with a value and grows by some value a second. Its metric is written as in a query.
func (h *history) add(metric string, s span, value, perSecond float64) {
	h.t.Helper()
	h.addFunc(metric, s, func(ago time.Duration) float64 { return value + perSecond*(s.from-ago).Seconds() })
}

// addFunc adds a series with the values that f returns for times before now.
func (h *history) addFunc(metric string, s span, f func(ago time.Duration) float64) {
	h.t.Helper()
	selector, err := newParser().ParseMetric(metric)
	if err != nil {
		h.t.Fatalf("%v in %s", err, metric)
	}
	var all []chunks.Sample
	for ago := s.from; ago >= s.to; ago -= s.every {
		all = append(all, sample{now.Add(-ago).UnixMilli(), f(ago)})
	}
	h.series = append(h.series, storage.NewListSeries(selector, all))
}

// ask returns the answer to a query, one element for each set of labels.
func (h *history) ask(query string) promql.Vector {
	h.t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableNegativeOffset: true, EnableAtModifier: true, Parser: newParser(),
	})
	defer engine.Close()
	q, err := engine.NewInstantQuery(h.t.Context(), h, nil, query, now)
	if err != nil {
		h.t.Fatalf("%v in %s", err, query)
	}
	defer q.Close()
	result := q.Exec(h.t.Context())
	v, err := result.Vector()
	if err != nil {
		h.t.Fatalf("%v in %s", err, query)
	}
	return slices.Clone(v)
}

// Querier implements storage.Queryable.
func (h *history) Querier(_, _ int64) (storage.Querier, error) { return querier{h}, nil }

type querier struct{ *history }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var found []storage.Series
	for _, s := range q.series {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
			found = append(found, s)
		}
	}
	sort.Slice(found, func(i, j int) bool { return labels.Compare(found[i].Labels(), found[j].Labels()) < 0 })
	return &set{all: found}
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, fmt.Errorf("no query asks for label values")
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, fmt.Errorf("no query asks for label names")
}

func (querier) Close() error { return nil }

type set struct {
	all  []storage.Series
	next int
}

func (s *set) Next() bool                        { s.next++; return s.next <= len(s.all) }
func (s *set) At() storage.Series                { return s.all[s.next-1] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
