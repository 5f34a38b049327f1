package check

import (
	"encoding/json"
	"strings"
	"testing"

	monitoring "google.golang.org/api/monitoring/v1"
)

func TestDashboardIsOne(t *testing.T) {
	t.Parallel()
	decoder := json.NewDecoder(strings.NewReader(withLimits(source(t, "deploy/monitoring/dashboard.json"))))
	decoder.DisallowUnknownFields()
	var d monitoring.Dashboard
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.DisplayName == "" || d.MosaicLayout == nil || len(d.MosaicLayout.Tiles) < 20 {
		t.Fatalf("the dashboard is %s with %v", d.DisplayName, d.MosaicLayout)
	}
	type place struct{ x, y int64 }
	taken := map[place]string{}
	for _, tile := range d.MosaicLayout.Tiles {
		title := tile.Widget.Title
		if title == "" || tile.XPos+tile.Width > d.MosaicLayout.Columns || tile.Width < 1 || tile.Height < 1 {
			t.Errorf("tile %q at %d, %d of %d by %d", title, tile.XPos, tile.YPos, tile.Width, tile.Height)
		}
		for x := tile.XPos; x < tile.XPos+tile.Width; x++ {
			for y := tile.YPos; y < tile.YPos+tile.Height; y++ {
				if other := taken[place{x, y}]; other != "" {
					t.Fatalf("%q lies over %q", title, other)
				}
				taken[place{x, y}] = title
			}
		}
	}
}

// What has to be seen, by a metric that shows it.
func TestDashboardShowsWhatMatters(t *testing.T) {
	t.Parallel()
	text := source(t, "deploy/monitoring/dashboard.json")
	for what, shown := range map[string]string{
		"outcomes":                  "sum by (outcome) (rate(assetmill_jobs_ended_total",
		"failures by reason":        "sum by (reason) (rate(assetmill_jobs_ended_total",
		"learned rates":             "assetmill_lane_rate_per_min",
		"throttling":                "assetmill_lane_throttled_ratio",
		"share of the capacity":     "sum(assetmill_calls_in_flight) / sum(assetmill_messages_capacity)",
		"the backlog":               "subscription_num_undelivered_messages",
		"the oldest job":            "subscription_oldest_unacked_message_age",
		"cost an hour":              "sum(rate(assetmill_cost_usd_total[15m])) * 3600",
		"the budget":                "vector(USD_PER_HOUR)",
		"cost by campaign":          "sum by (campaign)",
		"take-overs and the like":   "sum by (event) (increase(assetmill_pay_once_events_total",
		"calls that are paid twice": `event=\"discarded\"`,
		"dead letters":              `subscription_id=\"jobs-dead-review\"`,
		"how late rows are":         "assetmill_lineage_lag_seconds_bucket",
		"signs of life":             "assetmill_heartbeat_age_seconds",
	} {
		if !strings.Contains(text, shown) {
			t.Errorf("the dashboard does not show %s", what)
		}
	}
	var d monitoring.Dashboard
	if err := json.Unmarshal([]byte(withLimits(text)), &d); err != nil {
		t.Fatal(err)
	}
	for _, tile := range d.MosaicLayout.Tiles {
		if c := tile.Widget.XyChart; c != nil && tile.Widget.Title == "Calls in flight, of the places" {
			if len(c.Thresholds) != 1 || c.Thresholds[0].Value != 0.85 {
				t.Error("there is no line at 85 %")
			}
			return
		}
	}
	t.Error("no chart shows the share of the capacity")
}
