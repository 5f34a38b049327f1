package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
)

func TestThePlanIsShown(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	plans := []*schemas.ModePlan{
		{Model: "gemini-3-pro-image", Region: "global", Jobs: proto.Int64(1632), FittingJobs: proto.Int64(1258), BatchJobs: proto.Int64(1258),
			OnlineCostUsd: "219.373240000", BatchCostUsd: "134.823137000", OnlineMs: proto.Int64(163_200), BatchMs: proto.Int64(345_600_000)},
		{Model: "gemini-2.5-flash-image", Region: "us-central1", Jobs: proto.Int64(20), FittingJobs: proto.Int64(20), BatchJobs: proto.Int64(0),
			OnlineCostUsd: "0.78", BatchCostUsd: "0.39", OnlineMs: proto.Int64(2000), BatchMs: proto.Int64(345_600_000)},
	}
	if err := printPlan(&out, plans, 600); err != nil {
		t.Fatal(err)
	}
	want := `mode auto               region       jobs  fit batch  go to batch  USD online  USD with batch  online takes    a batch takes
gemini-3-pro-image      global       1632  1258       1258         219.37      134.82          about 3 min     up to 96 h
gemini-2.5-flash-image  us-central1  20    20         0            0.78        0.39            about a minute  up to 96 h
`
	if diff := cmp.Diff(want, out.String()[:min(len(want), out.Len())]); diff != "" {
		t.Error(diff)
	}
}

func TestRoughly(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "a minute", 61 * time.Second: "1 min", 119 * time.Minute: "119 min", 3 * time.Hour: "3 h", 30 * 24 * time.Hour: "30 days",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

// A dry run needs no settings: it checks, shows the plan, and estimates with the user's own catalogue.
func TestDryRunWithAPlanAndAnOwnCatalogue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	csv := write("p.csv", "prompt,model\n"+strings.Repeat("a fox,own\n", 3)+strings.Repeat("a hen,\n", 150))
	catalogue := write("catalogue.json", `{"extends": true, "version": "own", "models": [{"id": "own", "locations": ["global"], "tiers": ["dedicated"],
		"usd_per_image": {"1K": "0.01"}, "aspect_ratios": ["1:1"], "max_prompt_bytes": 2000}]}`)
	wrong := write("wrong.json", `{"extends": true, "version": "own", "models": [{"id": "Own"}]}`)
	for _, tc := range []struct {
		catalogue string
		args      []string
		code      int
		out, err  []string
	}{
		{catalogue, []string{"--mode", "auto"}, exitOK, []string{"153 of 153 jobs from 153 rows, 150 of them for batch", "gemini-3-pro-image  global  150", "own", "0.03"}, nil},
		{catalogue, []string{"--mode", "auto", "--json"}, exitOK, []string{`"batch_jobs": "150"`}, []string{"gemini-3-pro-image  global  150"}},
		{catalogue, []string{"--mode", "sometimes"}, exitUsage, nil, []string{`--mode "sometimes" is unknown; allowed: online, batch, auto`}},
		{catalogue, []string{"--online-rate", "0"}, exitUsage, nil, []string{"--online-rate"}},
		{"", nil, exitInvalid, nil, []string{`"own" is unknown`}},
		{wrong, nil, exitUsage, nil, []string{"ASSETMILL_CATALOGUE", "wrong.json", `model "Own"`}},
		{filepath.Join(dir, "none.json"), nil, exitUsage, nil, []string{"ASSETMILL_CATALOGUE", "none.json"}},
	} {
		var out, errs bytes.Buffer
		env := func(name string) string { return map[string]string{catalogueSetting: tc.catalogue}[name] }
		args := append([]string{"submit", csv, "--dry-run"}, tc.args...)
		code := run(t.Context(), args, streams{strings.NewReader(""), &out, &errs}, env, nil)
		if code != tc.code {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, tc.code, errs.String())
		}
		for where, parts := range map[string][]string{out.String(): tc.out, errs.String(): tc.err} {
			for _, part := range parts {
				if !strings.Contains(where, part) {
					t.Errorf("%v: %q is not in %q", args, part, where)
				}
			}
		}
	}
}
