package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

func TestDemandsAreToldApartByWhatMatters(t *testing.T) {
	t.Parallel()
	c := NewCounter(jobs.DefaultCatalogue(), day)
	add := func(m *schemas.Job, mode jobs.Mode, n int64) { c.Add(parse(t, m), mode, n) }
	at := func(d time.Duration) string { return day.Add(d).Format(time.RFC3339) }
	add(&schemas.Job{Campaign: "a"}, jobs.Online, 1)
	add(&schemas.Job{Campaign: "b"}, jobs.Online, 2)
	add(&schemas.Job{}, jobs.Auto, 4)
	add(&schemas.Job{Size: "4K"}, jobs.Online, 8)
	add(&schemas.Job{Model: "gemini-2.5-flash-image", Region: "europe-west4"}, jobs.Online, 16)
	add(&schemas.Job{Deadline: at(3*time.Hour + 4*time.Minute)}, jobs.Online, 32)
	add(&schemas.Job{Deadline: at(3*time.Hour + time.Minute)}, jobs.Online, 64)
	add(&schemas.Job{Deadline: at(-time.Hour)}, jobs.Online, 128)
	type row struct {
		Model, Size, Region string
		Mode                jobs.Mode
		Within              time.Duration
		Jobs                int64
	}
	var got []row
	for _, d := range c.Demands() {
		got = append(got, row{d.Model.ID, d.Size, d.Region, d.Mode, d.Within, d.Jobs})
	}
	want := []row{
		{pro, "1K", "global", jobs.Online, time.Second, 128},
		{pro, "1K", "global", jobs.Online, 3 * time.Hour, 96},
		{"gemini-2.5-flash-image", "1K", "europe-west4", jobs.Online, 0, 16},
		{pro, "1K", "global", jobs.Auto, 0, 4},
		{pro, "1K", "global", jobs.Online, 0, 3},
		{pro, "4K", "global", jobs.Online, 0, 8},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Sums of estimates are those that submit makes, job by job.
func TestCostsAreThoseOfTheEstimate(t *testing.T) {
	t.Parallel()
	catalogue := jobs.DefaultCatalogue()
	c := NewCounter(catalogue, day)
	want := map[string]jobs.USD{}
	for i := range 500 {
		j := parse(t, &schemas.Job{})
		j.Prompt = strings.Repeat("x", 1+i*37%900)
		if i%3 == 0 {
			j.References = []string{"gs://b/a.png"}
		}
		c.Add(j, jobs.Online, int64(1+i%4))
		for _, tier := range catalogue.Tiers() {
			want[tier] += jobs.USD(1+i%4) * catalogue.Estimate(j, tier)
		}
	}
	if diff := cmp.Diff(want, c.Demands()[0].Cost); diff != "" {
		t.Error(diff)
	}
}

func TestManyDeadlinesAreMergedToEarlierOnes(t *testing.T) {
	t.Parallel()
	c := NewCounter(jobs.DefaultCatalogue(), day)
	for i := range 2000 {
		j := parse(t, &schemas.Job{Deadline: day.Add(time.Duration(i+1) * 7 * time.Minute).Format(time.RFC3339)})
		c.Add(j, jobs.Online, 1)
	}
	all := c.Demands()
	total := int64(0)
	for i, d := range all {
		total += d.Jobs
		if i > 0 && d.Within <= all[i-1].Within {
			t.Errorf("deadline %d is %s, after %s", i, d.Within, all[i-1].Within)
		}
	}
	if len(all) != maxDeadlines || total != 2000 || all[0].Within > 7*time.Minute {
		t.Errorf("%d deadlines of %d jobs, the first %s", len(all), total, all[0].Within)
	}
	// No job counts as later than it is: by any time, at least as many are due as really are.
	due := int64(0)
	for _, d := range all {
		due += d.Jobs
		if really := int64(d.Within / (7 * time.Minute)); due < really {
			t.Errorf("by %s %d jobs are due, and really %d", d.Within, due, really)
		}
	}
}

func TestFilesAreCounted(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("prompt,size,mode,variants,deadline\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "a fox %d,1K,,2,\n", i)
	}
	b.WriteString("a hen,2K,online,,2026-12-02T00:00:00Z\nan owl,1K,batch,,\na wolf,9K,,,\n")
	c := NewCounter(jobs.DefaultCatalogue(), day)
	var bad []string
	opts := csvfile.Options{Name: "p.csv", Defaults: &schemas.Job{Mode: string(jobs.Auto)}}
	rows, err := c.CountCSV(strings.NewReader(b.String()), opts, func(e *csvfile.RowError) error {
		bad = append(bad, e.Error())
		return nil
	})
	if err != nil || rows != 1002 || len(bad) != 1 || !strings.Contains(bad[0], "9K") {
		t.Errorf("%d rows, wrong ones %q, %v", rows, bad, err)
	}
	got := map[jobs.Mode]int64{}
	for _, d := range c.Demands() {
		got[d.Mode] += d.Jobs
	}
	if diff := cmp.Diff(map[jobs.Mode]int64{jobs.Auto: 2000, jobs.Online: 1, jobs.Batch: 1}, got); diff != "" {
		t.Error(diff)
	}
	stop := errors.New("enough")
	if _, err := c.CountCSV(strings.NewReader("prompt,size\nx,9K\n"), opts, func(*csvfile.RowError) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the reading ends with %v", err)
	}
	if _, err := c.CountCSV(strings.NewReader(""), opts, nil); err == nil {
		t.Error("an empty file is read")
	}
}

func TestWhatWorkersHaveLearned(t *testing.T) {
	t.Parallel()
	const first = `# TYPE assetmill_lane_rate_per_min gauge
assetmill_lane_rate_per_min{lane="a"} 400
assetmill_lane_rate_per_min{lane="b/x"} 100
# TYPE assetmill_lane_throttled_ratio gauge
assetmill_lane_throttled_ratio{lane="a"} 0.02
# TYPE assetmill_call_duration_seconds histogram
assetmill_call_duration_seconds_bucket{lane="a",le="+Inf"} 10
assetmill_call_duration_seconds_sum{lane="a"} 200
assetmill_call_duration_seconds_count{lane="a"} 10
`
	const second = `# TYPE assetmill_lane_rate_per_min gauge
assetmill_lane_rate_per_min{lane="a"} 500
# TYPE assetmill_call_duration_seconds histogram
assetmill_call_duration_seconds_bucket{lane="a",le="+Inf"} 30
assetmill_call_duration_seconds_sum{lane="a"} 1000
assetmill_call_duration_seconds_count{lane="a"} 30
`
	var g Learning
	for _, text := range []string{first, second} {
		if err := g.Read(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]LearnedLane{"a": {PerMinute: 892, CallTime: 30 * time.Second}, "b/x": {PerMinute: 100}}
	if diff := cmp.Diff(want, g.Lanes(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "go_goroutines 3\n", "<html>"} {
		if err := new(Learning).Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q is taken for a worker's metrics", text)
		}
	}
}
