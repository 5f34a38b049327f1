package telemetry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLanesShowFromTheirFirstUseOn(t *testing.T) {
	t.Parallel()
	used := usedLanes{names: map[string]bool{}}
	busy := Lane{Name: "pro", State: "open", InFlight: 1}
	for _, step := range []struct {
		now, want []Lane
	}{
		{[]Lane{{Name: "pro", State: "open"}, {Name: "flash", State: "open"}}, nil},
		{[]Lane{busy, {Name: "flash", State: "open"}}, []Lane{busy}},
		{[]Lane{{Name: "pro", State: "open"}, {Name: "flash", State: "shut"}}, []Lane{{Name: "pro", State: "open"}, {Name: "flash", State: "shut"}}},
	} {
		if diff := cmp.Diff(step.want, used.of(step.now)); diff != "" {
			t.Error(diff)
		}
	}
}
