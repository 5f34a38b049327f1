package telemetry

import (
	"strings"
	"testing"
	"time"
)

func TestStatusLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		p    Progress
		want string
	}{
		{"busy", Progress{
			Held: 61, Capacity: 64, Images: 10, Reserved: 64 << 20, Budget: 256 << 20, OldestAge: 83*time.Second + 5*time.Millisecond, Cost: "1.34",
			Lanes: []Lane{
				{Name: "pro/global", State: "open", InFlight: 60, Rate: 412.4, Throttled: 0.0123},
				{Name: "flash/global", State: "open", Rate: 60},
				{Name: "pro/eu", State: "shut", Rate: 0},
			},
		}, "12:00:00  60/64 calls in flight  61 held  0 images/min  [pro/global 412/min, 1.2% throttled]  [pro/eu 0/min, shut]  image memory 25% of 256 MiB  oldest 1m23s  $1.34"},
		{"idle", Progress{Capacity: 64, Cost: "0.00"}, "12:00:00  0/64 calls in flight  0 held  0 images/min  image memory 0%  $0.00"},
	} {
		if got := NewStatusLine(at).Line(at, tt.p); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestImagesAMinuteAreOfTheLastMinute(t *testing.T) {
	t.Parallel()
	at, images := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), 0
	s := NewStatusLine(at)
	rate := func() string {
		_, rest, _ := strings.Cut(s.Line(at, Progress{Images: images}), "held  ")
		text, _, _ := strings.Cut(rest, " images/min")
		return text
	}
	if got := rate(); got != "0" {
		t.Errorf("at the start %s", got)
	}
	for range 60 { // five minutes at 120 a minute
		at, images = at.Add(5*time.Second), images+10
		if got := rate(); got != "120" {
			t.Fatalf("at %s: %s, want 120", at, got)
		}
	}
	for range 6 { // half a minute of nothing
		at = at.Add(5 * time.Second)
		rate()
	}
	if got := rate(); got != "60" {
		t.Errorf("after half a minute of nothing %s, want 60", got)
	}
	for range 6 {
		at = at.Add(5 * time.Second)
		rate()
	}
	if got := rate(); got != "0" || len(s.past) > 15 {
		t.Errorf("after a minute of nothing %s, with %d samples", got, len(s.past))
	}
}
