package plan

import (
	"fmt"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What workers show of their lanes; docs/metrics.md.
const (
	rateMetric      = "assetmill_lane_rate_per_min"
	throttledMetric = "assetmill_lane_throttled_ratio"
	durationMetric  = "assetmill_call_duration_seconds"
)

// Learning sums up what several workers have learned. The zero value is ready to use.
type Learning struct {
	lanes map[string]*learning
}

// learning is what is known of one lane so far.
type learning struct {
	perMinute   float64
	callSeconds float64
	calls       uint64
}

// Read adds what one worker shows on /metrics. Workers share a quota, so their rates add up. What is throttled of a rate makes no images.
func (g *Learning) Read(in io.Reader) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(in)
	if err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	if families[rateMetric] == nil {
		return fmt.Errorf("read metrics: there is no %s: this is no worker, or none that has used a lane yet", rateMetric)
	}
	if g.lanes == nil {
		g.lanes = map[string]*learning{}
	}
	throttled := map[string]float64{}
	for _, m := range families[throttledMetric].GetMetric() {
		throttled[laneOf(m)] = m.GetGauge().GetValue()
	}
	for _, m := range families[rateMetric].GetMetric() {
		name := laneOf(m)
		g.lane(name).perMinute += m.GetGauge().GetValue() * (1 - throttled[name])
	}
	for _, m := range families[durationMetric].GetMetric() {
		l := g.lane(laneOf(m))
		l.callSeconds += m.GetHistogram().GetSampleSum()
		l.calls += m.GetHistogram().GetSampleCount()
	}
	return nil
}

func (g *Learning) lane(name string) *learning {
	if g.lanes[name] == nil {
		g.lanes[name] = &learning{}
	}
	return g.lanes[name]
}

func laneOf(m *dto.Metric) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == "lane" {
			return l.GetValue()
		}
	}
	return ""
}

// Lanes returns what was learned.
func (g *Learning) Lanes() map[string]LearnedLane {
	all := map[string]LearnedLane{}
	for name, l := range g.lanes {
		learned := LearnedLane{PerMinute: l.perMinute}
		if l.calls > 0 {
			learned.CallTime = time.Duration(l.callSeconds / float64(l.calls) * float64(time.Second))
		}
		all[name] = learned
	}
	return all
}
