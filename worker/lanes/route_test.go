package lanes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// The order in which a job's lanes are used, each with the wait that comes before it. Lanes of one step are joined by "=".
func TestOrder(t *testing.T) {
	t.Parallel()
	prov, flex, std := at(pro, "global", tierProvisioned), at(pro, "global", tierFlex), at(pro, "global", tierStandard)
	nanoAt := func(location string, change ...func(*LaneConfig)) LaneConfig {
		return at(nano, location, tierStandard, change...)
	}
	for _, tt := range []struct {
		name  string
		lanes []LaneConfig
		job   *jobs.Job
		want  string // empty: no lane
	}{
		{"provisioned, then by price", []LaneConfig{std, flex, prov}, newJob("j", pro), "global/provisioned global/flex global/standard+120s"},
		{"no flex within half an hour", []LaneConfig{std, flex, prov}, newJob("j", pro, due(29*time.Minute)), "global/provisioned global/standard"},
		{"flex with half an hour and a bit", []LaneConfig{std, flex, prov}, newJob("j", pro, due(31*time.Minute)), "global/provisioned global/flex global/standard+120s"},
		{"no flex for a deadline that has passed", []LaneConfig{std, flex}, newJob("j", pro, due(-time.Hour)), "global/standard"},
		{"flex alone is not enough", []LaneConfig{flex}, newJob("j", pro, due(time.Minute)), ""},
		{"several provisioned lanes are one step", []LaneConfig{std, prov, at(pro, "global", tierProvisioned, named("second"))}, newJob("j", pro), "global/provisioned=second global/standard"},
		{"the order of the file decides among equals", []LaneConfig{at(pro, "global", tierStandard, named("z")), at(pro, "global", tierStandard, named("a"))}, newJob("j", pro), "z=a"},
		{"a lane's own price", []LaneConfig{std, at(pro, "global", tierStandard, named("cheap"), priced(100_000_000))}, newJob("j", pro), "cheap global/standard+120s"},
		{"a lane's own price depends on the size", []LaneConfig{std, at(pro, "global", tierStandard, named("flat"), priced(200_000_000))}, newJob("j", pro, sized("4K")), "flat global/standard+120s"},
		{"the same for small images", []LaneConfig{std, at(pro, "global", tierStandard, named("flat"), priced(200_000_000))}, newJob("j", pro, sized("1K")), "global/standard flat+120s"},
		{"a dedicated endpoint by its price", []LaneConfig{nanoAt(east1), dedicated(east1, priced(10_000_000))}, newJob("j", nano), "us-east1/dedicated us-east1/standard+120s"},
		{"a dedicated endpoint without one costs the list price", []LaneConfig{nanoAt("global"), dedicated(east1)}, newJob("j", nano), "global/standard us-east1/dedicated"},
		{"a lane's own wait", []LaneConfig{std, at(pro, "global", tierFlex, spilling(30*time.Second))}, newJob("j", pro), "global/flex global/standard+30s"},
		{"waited for provisioned", []LaneConfig{std, at(pro, "global", tierProvisioned, spilling(10*time.Second))}, newJob("j", pro), "global/provisioned global/standard+10s"},
		{"no waiting when the deadline presses", []LaneConfig{std, at(pro, "global", tierStandard, named("cheap"), priced(1))}, newJob("j", pro, due(4*time.Minute)), "cheap global/standard"},
		{"only the model's lanes", []LaneConfig{std, at(flash, "global", tierStandard)}, newJob("j", flash), "global/standard"},
		{"only lanes of the size", []LaneConfig{at(pro, "global", tierStandard, func(l *LaneConfig) { l.Sizes = []string{"1K", "2K"} })}, newJob("j", pro, sized("4K")), ""},
		{"a job that may run anywhere prefers global", []LaneConfig{nanoAt(east1), nanoAt("global"), nanoAt(west4)}, newJob("j", nano), "global/standard us-east1/standard=europe-west4/standard"},
		{"price comes before location", []LaneConfig{nanoAt("global"), nanoAt(east1, priced(1))}, newJob("j", nano), "us-east1/standard global/standard+120s"},
		{"a strict job stays", []LaneConfig{nanoAt(east1), nanoAt("global"), nanoAt(west4)}, newJob("j", nano, in(west4)), "europe-west4/standard"},
		{"a strict job needs a bucket", []LaneConfig{nanoAt("europe-west1")}, newJob("j", nano, in("europe-west1")), ""},
		{"a strict job keeps away from a host that does not tell", []LaneConfig{nanoAt(west4, func(l *LaneConfig) { l.Host = "vertex.internal" })}, newJob("j", nano, in(west4)), ""},
		{"a job that may run anywhere does not", []LaneConfig{nanoAt(west4, func(l *LaneConfig) { l.Host = "vertex.internal" })}, newJob("j", nano), "europe-west4/standard"},
		{"a strict job takes a host that is said to be there", []LaneConfig{nanoAt(west4, func(l *LaneConfig) { l.Host, l.HostRegion = "vertex.internal", west4 })}, newJob("j", nano, in(west4)), "europe-west4/standard"},
		{"a strict job does not believe what a name denies", []LaneConfig{nanoAt(west4, func(l *LaneConfig) { l.Host, l.HostRegion = "us-east1-aiplatform.googleapis.com", west4 })}, newJob("j", nano, in(west4)), ""},
		{"a strict job on its region's dedicated endpoint", []LaneConfig{nanoAt(west4), dedicated(west4, priced(1)), dedicated(east1, priced(1))}, newJob("j", nano, in(west4)), "europe-west4/dedicated europe-west4/standard+120s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(configOf(tt.lanes...), Options{Seed: 1})
			h, _ := hasteOf(tt.job.Deadline, time.Now())
			k := class{tt.job.Model, tt.job.Size, tt.job.Region, h}
			var got strings.Builder
			for i, o := range s.group(k).options {
				if i > 0 && s.group(k).options[i-1].step == o.step {
					got.WriteByte('=')
				} else if i > 0 {
					got.WriteByte(' ')
				}
				got.WriteString(o.lane.cfg.Name)
				if o.after > 0 {
					fmt.Fprintf(&got, "+%gs", o.after.Seconds())
				}
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPreferredLocation(t *testing.T) {
	t.Parallel()
	cfg := Default("p", east1, catalogue)
	opts, _ := paced(nil)
	s := New(cfg, opts)
	for model, want := range map[string]string{nano: east1, pro: "global"} {
		if got := take(t, s, newJob("j", model)).Lane(); got.Location != want || got.Tier != tierStandard {
			t.Errorf("%s went by %+v", model, got)
		}
	}
}

func TestHaste(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]haste{
		-time.Hour: pressed, 0: pressed, pressing - 1: pressed, pressing: steady, flexBound - 1: steady, flexBound: relaxed, 48 * time.Hour: relaxed,
	} {
		got, next := hasteOf(now.Add(left), now)
		if got != want {
			t.Errorf("%s left: %v, want %v", left, got, want)
		}
		if got == pressed {
			if !next.IsZero() {
				t.Errorf("%s left: haste grows beyond its end at %s", left, next)
			}
			continue
		}
		if before, _ := hasteOf(now.Add(left), next.Add(-1)); before != got {
			t.Errorf("%s left: haste has grown before %s", left, next)
		}
		if after, _ := hasteOf(now.Add(left), next); after != got+1 {
			t.Errorf("%s left: haste at %s is %v", left, next, after)
		}
	}
	if got, next := hasteOf(time.Time{}, now); got != relaxed || !next.IsZero() {
		t.Errorf("no deadline: %v until %s", got, next)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	lanes := []LaneConfig{
		at(pro, "global", tierFlex), at(nano, "global", tierStandard, named("nano-global")), at(nano, west4, tierStandard),
		at(nano, "europe-west1", tierStandard), at(nano, east1, tierStandard),
		at(nano, "us-west1", tierStandard, func(l *LaneConfig) { l.Host = "vertex.internal" }), at(lite, "global", tierStandard, named("lite")),
	}
	for _, tt := range []struct {
		name string
		job  *jobs.Job
		want []string
	}{
		{"the deadline", newJob("j", pro, due(time.Minute)), []string{"model gemini-3-pro-image, size 1K, any region, a deadline in less than 30 minutes", "lane global/flex is flex, whose calls may take 30 minutes"}},
		{"the model", newJob("j", flash), []string{"it asks for model gemini-3.1-flash-image", "lane global/flex serves gemini-3-pro-image; lane nano-global serves gemini-2.5-flash-image"}},
		{"the bucket", newJob("j", nano, in("europe-west1")), []string{"data region europe-west1; lane europe-west1/standard could serve it, but no bucket for assets in europe-west1 is configured", "lane nano-global is at global"}},
		{"the host", newJob("j", nano, in("us-west1")), []string{"lane us-west1/standard goes to vertex.internal, which may be elsewhere", "; and 2 more"}},
		{"the size", newJob("j", nano, sized("2K")), []string{"lane nano-global does not serve that size"}},
		{"a shut lane", newJob("j", nano, in(east1)), []string{"lane us-east1/standard is shut: said so"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(configOf(lanes...), Options{Seed: 1})
			s.Shut("us-east1/standard", errors.New("said so"))
			_, err := s.Next(t.Context(), tt.job)
			if !errors.Is(err, worker.ErrNoLane) || errors.Is(err, worker.ErrLanesShut) {
				t.Fatalf("error %v", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
			balance(t, s)
		})
	}
}

func TestAllLanesShut(t *testing.T) {
	t.Parallel()
	s := New(configOf(at(pro, "global", tierFlex), at(pro, "global", tierStandard)), Options{Seed: 1})
	for _, l := range s.Lanes() {
		s.Shut(l.Name, errors.New("no "+l.Tier))
	}
	for _, model := range []string{pro, lite} { // a model without lanes is no longer the point
		_, err := s.Next(t.Context(), newJob("j", model))
		if !errors.Is(err, worker.ErrLanesShut) || errors.Is(err, worker.ErrNoLane) || !strings.Contains(err.Error(), "global/flex: no flex; global/standard: no standard") {
			t.Errorf("error %v", err)
		}
	}
}
