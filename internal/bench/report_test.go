package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testReport() *Report {
	c := benchCase{name: "6 MiB", imageBytes: 6 * mib, inFlight: 64, warm: 10, measured: 20}
	samples := map[contender][]sample{
		theWorker: {
			{CPUPerAsset: 9, Rate: 30, PeakMiB: 200, Calls: 94, StandInCPU: 7, Idle: 0.25},
			{CPUPerAsset: 8, Rate: 10, PeakMiB: 300, Calls: 95, Failures: 2, Redelivered: 1, Idle: 0.5},
			{CPUPerAsset: 12, Rate: 20, PeakMiB: 100, Calls: 94},
		},
		theFloor: {{CPUPerAsset: 4, Rate: 40, PeakMiB: 50}, {CPUPerAsset: 5, Rate: 50, PeakMiB: 60}},
		theNaive: {{Failures: 94}}, // broke down: no figures
	}
	return &Report{Machine: "m", Queue: "q", Runs: 3, Cases: []CaseReport{newCaseReport(c, samples)}}
}

func TestReport(t *testing.T) {
	t.Parallel()
	figure := func(v float64) *float64 { return &v }
	want := CaseReport{
		Name: "6 MiB", CPU: figure(9), FloorCPU: figure(4.5), Rate: figure(20), PeakRSS: figure(300), Failures: 2,
		FloorRate: figure(45), FloorPeakRSS: figure(60), NaiveFailures: 94,
		ImageBytes: 6 * mib, InFlight: 64, Jobs: 94, Calls: 283, Redelivered: 1, CPUSpread: &spread{8, 12}, StandInCPU: figure(7), Idle: figure(0.25),
	}
	r := testReport()
	if diff := cmp.Diff(want, r.Cases[0]); diff != "" {
		t.Error(diff)
	}
	if r.Failures() != 2 {
		t.Errorf("%d failures", r.Failures())
	}
	var text strings.Builder
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	got := strings.Fields(lines[len(lines)-1])
	if diff := cmp.Diff(strings.Fields("6 MiB 9.00 4.50 - - 2.00 - 20 1200 300 25 2"), got); diff != "" {
		t.Error(diff)
	}
}

// Others read these names.
func TestReportKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "bench.json")
	if err := testReport().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Machine *string
		Cases   []map[string]any
	}
	if err := json.Unmarshal(text, &report); err != nil || report.Machine == nil {
		t.Fatalf("%v in %s", err, text)
	}
	c := report.Cases[0]
	for key, want := range map[string]any{
		"name": "6 MiB", "cpu_ms_per_asset": 9.0, "floor_ms_per_asset": 4.5, "naive_ms_per_asset": nil,
		"rate_per_s": 20.0, "peak_rss_mib": 300.0, "failures": 2.0,
	} {
		if got, there := c[key]; !there || got != want {
			t.Errorf("%s is %v, there: %v", key, got, there)
		}
	}
}
