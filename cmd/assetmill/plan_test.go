package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/plan"
)

// planned runs the command with lanes and a catalogue, and returns its exit code and what it wrote.
func planned(t *testing.T, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), append([]string{"plan"}, args...), streams{strings.NewReader(""), &o, &e}, func(name string) string { return env[name] }, nil)
	return code, o.String(), e.String()
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const planLanes = `lanes:
  - {name: fast, model: gemini-3-pro-image, location: global, tier: standard}
  - {name: cheap, model: gemini-3-pro-image, location: global, tier: flex}
`

func TestPlanCommand(t *testing.T) {
	t.Parallel()
	csv := writeFile(t, "p.csv", "prompt,size\n"+strings.Repeat("a fox,2K\n", 40)+"a hen,9K\n")
	lanesFile := writeFile(t, "lanes.yaml", planLanes)
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("# TYPE assetmill_lane_rate_per_min gauge\nassetmill_lane_rate_per_min{lane=\"fast\"} 777\n"))
	}))
	defer metrics.Close()
	address := strings.TrimPrefix(metrics.URL, "http://")
	page := writeFile(t, "metrics.txt", "# TYPE assetmill_lane_rate_per_min gauge\nassetmill_lane_rate_per_min{lane=\"cheap\"} 100\n")

	for name, tc := range map[string]struct {
		lanes string
		args  []string
		code  int
		out   []string
		errs  []string
	}{
		"jobs":         {"", []string{"--jobs", "6000", "--mode", "online", "--rate", "600", "--call-time", "30s"}, exitOK, []string{"6000 jobs, no deadline.", "$807.00", "1 worker with 300 calls"}, nil},
		"in time":      {"", []string{"--jobs", "6000", "--within", "1h", "--rate", "standard=600"}, exitOK, []string{"deadline in 60 min"}, nil},
		"not in time":  {"", []string{"--jobs", "600000", "--within", "1h", "--rate", "600"}, exitFailure, []string{"Any of these would do", "times as high"}, []string{"the deadline can't be met"}},
		"own lanes":    {lanesFile, []string{"--jobs", "6000", "--rate", "fast=900", "--rate", "flex=70"}, exitOK, []string{"cheap", "70", "$403.50"}, nil},
		"a file":       {lanesFile, []string{csv, "--rate", "10"}, exitOK, []string{"40 jobs", "cheap"}, []string{"p.csv row 42", "1 rows are invalid"}},
		"learned":      {lanesFile, []string{"--jobs", "60000", "--size", "4K", "--metrics", address, "--metrics", page, "--json"}, exitOK, []string{`"rate_source": "learned"`, `"images_per_minute": 777`, `"images_per_minute": 100`}, nil},
		"no jobs":      {"", nil, exitUsage, nil, []string{"--jobs is 0"}},
		"two sources":  {"", []string{csv, "--jobs", "5"}, exitUsage, nil, []string{"either name files or say --jobs"}},
		"no file":      {"", []string{"none.csv"}, exitUsage, nil, []string{"none.csv"}},
		"no rows":      {"", []string{writeFile(t, "e.csv", "prompt\n")}, exitInvalid, nil, []string{"no rows"}},
		"wrong rows":   {"", []string{writeFile(t, "w.csv", "prompt,size\nx,9K\n")}, exitInvalid, nil, []string{"no row is valid"}},
		"size":         {"", []string{"--jobs", "5", "--size", "9K"}, exitUsage, nil, []string{`flag --size "9K" is not offered`}},
		"mode":         {"", []string{"--jobs", "5", "--mode", "never"}, exitUsage, nil, []string{"mode"}},
		"rate":         {"", []string{"--jobs", "5", "--rate", "fast=x"}, exitUsage, nil, []string{"--rate"}},
		"no such lane": {lanesFile, []string{"--jobs", "5", "--rate", "slow=5"}, exitUsage, nil, []string{`"slow" is no lane and no tier; there are the lanes cheap, fast`}},
		"call time":    {"", []string{"--jobs", "5", "--call-time", "25"}, exitUsage, nil, []string{"--call-time"}},
		"two deadlines": {"", []string{"--jobs", "5", "--within", "1h", "--deadline", "2030-01-01T00:00:00Z"}, exitUsage, nil,
			[]string{"either --within or --deadline"}},
		"past":         {"", []string{"--jobs", "5", "--deadline", "2001-01-01T00:00:00Z"}, exitUsage, nil, []string{"has passed"}},
		"no time":      {"", []string{"--jobs", "5", "--deadline", "tomorrow"}, exitUsage, nil, []string{"2026-12-01T06:00:00Z"}},
		"reserve":      {"", []string{"--jobs", "5", "--reserve", "1"}, exitUsage, nil, []string{"--reserve"}},
		"worker price": {"", []string{"--jobs", "5", "--worker-price", "much"}, exitUsage, nil, []string{"--worker-price"}},
		"no worker":    {"", []string{"--jobs", "5", "--metrics", writeFile(t, "m.txt", "")}, exitFailure, nil, []string{"assetmill_lane_rate_per_min"}},
		"lanes file":   {writeFile(t, "l.yaml", "lanes: 3"), []string{"--jobs", "5"}, exitUsage, nil, []string{"ASSETMILL_LANES"}},
	} {
		code, out, errs := planned(t, map[string]string{"ASSETMILL_LANES": tc.lanes}, tc.args...)
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, tc.code, errs)
		}
		for where, parts := range map[string][]string{out: tc.out, errs: tc.errs} {
			for _, part := range parts {
				if !strings.Contains(where, part) {
					t.Errorf("%s: %q is not in %q", name, part, where)
				}
			}
		}
	}
}

// Scripts read the plan as JSON, also when the deadline can't be met.
func TestPlanAsJSON(t *testing.T) {
	t.Parallel()
	for within, meets := range map[string]bool{"10h": true, "20m": false} {
		code, out, _ := planned(t, nil, "--jobs", "60000", "--within", within, "--rate", "600", "--json")
		var p plan.Plan
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		if p.Meets != meets || (code == exitOK) != meets || p.Jobs != 60_000 || len(p.Mixes) == 0 {
			t.Errorf("within %s: exit code %d, %+v", within, code, p)
		}
	}
}

// The page shows what the command prints.
func TestThePagesPlansAreTrue(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	lanesFile := writeFile(t, "lanes.yaml", `lanes:
  - {model: gemini-3-pro-image, location: global, tier: flex}
  - {model: gemini-3-pro-image, location: global, tier: standard}
`)
	examples := strings.Split(string(page), "```\n$ assetmill plan ")[1:]
	if len(examples) != 2 {
		t.Fatalf("the page has %d examples", len(examples))
	}
	for _, example := range examples {
		example, _, _ = strings.Cut(example, "```")
		line, want, _ := strings.Cut(example, "\n")
		_, out, errs := planned(t, map[string]string{"ASSETMILL_LANES": lanesFile}, strings.Fields(line)...)
		if out+errs != want {
			t.Errorf("%s\nprints\n%s\nand the page has\n%s", line, out+errs, want)
		}
	}
}
