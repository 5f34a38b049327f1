package main

import (
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/localcloud"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		checked localcloud.Checked
		line    string
		wrong   string // in the error; empty: none
	}{
		{"nothing", localcloud.Checked{}, "no pictures to read back", ""},
		{"all", localcloud.Checked{Jobs: 1632, Right: 1632}, "1632 pictures read back, each shows its own prompt", ""},
		{"one mixed up", localcloud.Checked{Jobs: 3, Right: 2, Wrong: []string{"job j-1: gs://b/o shows another prompt"}},
			"3 pictures read back, 1 are NOT as their jobs say", "1 of 3 pictures are not as their jobs say:\n  job j-1: gs://b/o shows another prompt"},
		{"without rows", localcloud.Checked{Jobs: 2, Right: 2, Unknown: 4}, "2 pictures read back, each shows its own prompt; 4 more that no row names", ""},
	} {
		line, err := verdict(tt.checked)
		if line != tt.line {
			t.Errorf("%s: %q, want %q", tt.name, line, tt.line)
		}
		if (err != nil) != (tt.wrong != "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.wrong)
		}
	}
}
