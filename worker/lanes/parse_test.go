package lanes

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

func TestExample(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("example.yaml", data, catalogue)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.SetProject("own"); err != nil {
		t.Fatal(err)
	}
	price := jobs.USD(21_000_000)
	lane := func(name, project, location, model, tier string) worker.Lane {
		return worker.Lane{Name: name, Project: project, Location: location, Model: model, Tier: tier}
	}
	endpoint := lane("own-endpoint", "own", "us-central1", nano, tierDedicated)
	endpoint.Endpoint, endpoint.Host = "4611686018427387904", "4611686018427387904.us-central1-123456789012.prediction.vertexai.goog"
	endpoint.ImagePrice = &price
	want := &Config{
		SpillAfter: 2 * time.Minute, Prefer: jobs.GlobalRegion, Buckets: map[string]string{west4: "example-assets-europe-west4"},
		Lanes: []LaneConfig{
			{Lane: lane(pro+"/global/provisioned", "own", "global", pro, tierProvisioned), MaxInFlight: 400},
			{Lane: lane(pro+"/global/flex", "own", "global", pro, tierFlex), MaxInFlight: 1500},
			{Lane: lane(pro+"/global/standard", "own", "global", pro, tierStandard)},
			{Lane: lane("pro/second-project", "example-second", "global", pro, tierStandard), MaxPerMinute: 600},
			{Lane: lane(nano+"/europe-west4/standard", "own", west4, nano, tierStandard)},
			{Lane: endpoint, Sizes: []string{"1K"}, MaxInFlight: 16},
		},
		Batch: []LaneConfig{{Lane: lane(pro+"/global/batch", "own", "global", pro, tierBatch)}},
	}
	cfg.Catalogue = nil
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

func TestParseTakesJSON(t *testing.T) {
	t.Parallel()
	cfg, err := Parse("lanes.json", []byte(`{"spill_after": "30s", "lanes": [
		{"model": "gemini-3-pro-image", "location": "global", "tier": "standard", "project": "12345", "spill_after": "0s"}]}`), catalogue)
	if err != nil {
		t.Fatal(err)
	}
	zero := time.Duration(0)
	want := []LaneConfig{{Lane: worker.Lane{Name: "12345/" + pro + "/global/standard", Project: "12345", Location: "global", Model: pro, Tier: tierStandard}, SpillAfter: &zero}}
	if diff := cmp.Diff(want, cfg.Lanes); diff != "" || cfg.SpillAfter != 30*time.Second {
		t.Errorf("spill_after %s; %s", cfg.SpillAfter, diff)
	}
}

func TestDefault(t *testing.T) {
	t.Parallel()
	cfg := Default("own", "", catalogue)
	if cfg.Prefer != jobs.GlobalRegion {
		t.Errorf("prefers %q", cfg.Prefer)
	}
	got := map[string]int{}
	for _, l := range cfg.Lanes {
		got[l.Model]++
		if f := l.faults(catalogue); f != nil || l.Project != "own" || l.Tier != tierStandard {
			t.Errorf("lane %+v: %v", l, f)
		}
	}
	if diff := cmp.Diff(map[string]int{pro: 1, flash: 1, lite: 1, nano: 14}, got); diff != "" {
		t.Error(diff)
	}
	if got := Default("own", west4, catalogue).Prefer; got != west4 {
		t.Errorf("prefers %q", got)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const first = "lanes:\n- "
	okay := "{model: gemini-3-pro-image, location: global, tier: standard}"
	for _, tt := range []struct {
		name, file string
		want       string // parts of the error, one a line
	}{
		{"nothing", "", "f: is empty"},
		{"only a comment", "# lanes", "f: is empty"},
		{"no lanes", "spill_after: 1m", "f: has no lane that takes online calls"},
		{"an empty list", "lanes: []", "f: has no lane that takes online calls"},
		{"lanes is null", "lanes:", "f:1:8: lanes must be a list"},
		{"lanes is a mapping", "lanes: {a: b}", "lanes must be a list"},
		{"a list at the top", "- a", "f:1:1: the file must be a mapping"},
		{"a text at the top", "lanes", "the file must be a mapping"},
		{"two documents", "lanes: []\n---\nlanes: []", "f:3:6: a second document begins"},
		{"broken YAML", "lanes: [", "f:1:8: "},
		{"a tab", "lanes:\n\t- a", "f:2:1: "},
		{"the same key twice", "spill_after: 1m\nspill_after: 2m\n" + first + okay, "f:2:1: "},
		{"an unknown field at the top", "lane: []\n" + first + okay, `f:1:1: unknown field "lane"; allowed: lanes, buckets, prefer, spill_after`},
		{"an unknown field", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_inflight: 3}", `f:2:65: unknown field "max_inflight"; allowed: endpoint,`},
		{"a lane that is a text", first + "standard", "f:2:3: a lane must be a mapping"},
		{"an empty lane", first + "{}", "f:2:3: model is missing; the catalogue has: gemini-2.5-flash-image,\nf:2:3: tier is missing; allowed: provisioned,\nf:2:3: location is missing"},
		{"a field without a value", "lanes:\n- model: gemini-3-pro-image\n  tier: standard\n  location:\n", "f:4:13: location needs a value"},
		{"a field that is a list", first + "{model: [a], location: global, tier: standard}", "f:2:11: model needs a value"},
		{"an unknown model", "lanes:\n- model: imagen-4\n  location: global\n  tier: standard", `f:2:10: model "imagen-4" is not in the catalogue, which has: gemini-2.5-flash-image,`},
		{"an unknown tier", first + "{model: gemini-3-pro-image, location: global, tier: priority}", `tier "priority" is unknown; allowed: provisioned, standard, flex, dedicated, batch`},
		{"a tier that the model lacks", first + "{model: gemini-2.5-flash-image, location: global, tier: flex}", "tier flex is not offered for gemini-2.5-flash-image, which has: provisioned, standard, batch"},
		{"a location that the model lacks", first + "{model: gemini-3-pro-image, location: europe-west4, tier: standard}", `f:2:41: location "europe-west4" does not serve gemini-3-pro-image; allowed: global`},
		{"dedicated without endpoint and host", first + "{model: gemini-3-pro-image, location: us-east1, tier: dedicated}", "endpoint is missing\nhost is missing"},
		{"dedicated at global", first + "{model: gemini-3-pro-image, location: global, tier: dedicated, endpoint: 1, host: e.example.com}", `location "global" is no region`},
		{"an endpoint that is a resource", first + "{model: gemini-3-pro-image, location: us-east1, tier: dedicated, endpoint: projects/p/endpoints/1, host: 1.us-east1-1.prediction.vertexai.goog}", "is no endpoint id"},
		{"an endpoint without dedicated", first + "{model: gemini-3-pro-image, location: global, tier: standard, endpoint: 1}", "endpoint is only for lanes of tier dedicated"},
		{"a host that is an address", first + "{model: gemini-3-pro-image, location: global, tier: standard, host: 'https://a.example.com'}", "is no host or host:port"},
		{"a host with a path", first + "{model: gemini-3-pro-image, location: global, tier: standard, host: a.example.com/v1}", "is no host or host:port"},
		{"a host in another region", first + "{model: gemini-2.5-flash-image, location: europe-west4, tier: standard, host: us-east1-aiplatform.googleapis.com}", `host "us-east1-aiplatform.googleapis.com" is in us-east1, and the lane's location is "europe-west4"`},
		{"the global host for a region", first + "{model: gemini-2.5-flash-image, location: europe-west4, tier: standard, host: aiplatform.googleapis.com}", `is in global, and the lane's location is "europe-west4"`},
		{"an endpoint's host in another region", first + "{model: gemini-3-pro-image, location: europe-west4, tier: dedicated, endpoint: 1, host: 1.us-east1-22.prediction.vertexai.goog}", "is in us-east1"},
		{"a host that does not tell", first + "{model: gemini-2.5-flash-image, location: europe-west4, tier: standard, host: vertex.internal:8443}", `does not tell where it is; if it is in europe-west4, say so: host_region: europe-west4`},
		{"a host said to be elsewhere", first + "{model: gemini-2.5-flash-image, location: europe-west4, tier: standard, host: vertex.internal, host_region: us-east1}", `host_region "us-east1" must be the lane's location`},
		{"a host's region without a host", first + "{model: gemini-2.5-flash-image, location: europe-west4, tier: standard, host_region: europe-west4}", "there is no host"},
		{"a size that the model lacks", first + "{model: gemini-2.5-flash-image, location: global, tier: standard, sizes: [1K, 4K]}", `sizes "4K" is not served by gemini-2.5-flash-image in tier standard; allowed: 1K`},
		{"a size that batch lacks", okayAnd(first, okay, "{model: gemini-3-pro-image, location: global, tier: batch, sizes: [2K]}"), `sizes "2K" is not served by gemini-3-pro-image in tier batch; allowed: 1K`},
		{"no calls in flight", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_in_flight: 0}", "max_in_flight must be above 0"},
		{"half a call in flight", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_in_flight: 1.5}", `max_in_flight: "1.5" is no whole number`},
		{"too many in flight", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_in_flight: 20000}", "20000 is not from 1 to 10000"},
		{"a negative rate", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_per_minute: -1}", "max_per_minute -1 is not above 0"},
		{"a rate that is no number", first + "{model: gemini-3-pro-image, location: global, tier: standard, max_per_minute: .nan}", "max_per_minute"},
		{"a price in words", first + "{model: gemini-3-pro-image, location: global, tier: standard, image_price_usd: cheap}", `"cheap" is no amount`},
		{"a price with too many decimals", first + "{model: gemini-3-pro-image, location: global, tier: standard, image_price_usd: 0.0000000001}", "more than nine decimals"},
		{"a negative price", first + "{model: gemini-3-pro-image, location: global, tier: standard, image_price_usd: -0.1}", "image_price_usd -0.10 is not from 0 to 100.00"},
		{"a wait without a unit", "spill_after: 120\n" + first + okay, `f:1:14: spill_after: "120" is no duration such as 90s or 2m`},
		{"a wait that is too long", "spill_after: 25h\n" + first + okay, "spill_after 25h0m0s is not from 0s to 1h0m0s"},
		{"a lane's wait that is too long", first + "{model: gemini-3-pro-image, location: global, tier: standard, spill_after: 25h}", "spill_after 25h0m0s is not from 0s to 1h0m0s"},
		{"a name with spaces", first + "{name: my lane, model: gemini-3-pro-image, location: global, tier: standard}", `name "my lane" may hold only`},
		{"a project with a slash", first + "{project: projects/p, model: gemini-3-pro-image, location: global, tier: standard}", `project "projects/p" is no project id`},
		{"the same name twice", "lanes:\n- {name: a, model: gemini-3-pro-image, location: global, tier: standard}\n- {name: a, model: gemini-3-pro-image, location: global, tier: flex}", "f:3:10: name a is taken by the lane in line 2"},
		{"the same lane twice", "lanes:\n- {name: a, model: gemini-3-pro-image, location: global, tier: standard}\n- {name: b, model: gemini-3-pro-image, location: global, tier: standard}", "lane b is the same way to be served as lane a in line 2"},
		{"only batch", first + "{model: gemini-3-pro-image, location: global, tier: batch}", "has no lane that takes online calls"},
		{"a bucket for global", "buckets: {global: assets}\n" + first + okay, "f:1:11: global is no data region"},
		{"a bucket for nowhere", "buckets: {europe-west9: assets}\n" + first + okay, "no lane has the location europe-west9"},
		{"a bucket with its scheme", "buckets: {europe-west4: 'gs://assets'}\n" + first + okay, `"gs://assets" is no name of a bucket`},
		{"a location to prefer that no lane has", "prefer: us-east1\n" + first + okay, "prefer: no lane has the location us-east1"},
		{"an alias", "x: &a 1\n" + first + "{model: *a, location: global, tier: standard}", "model needs a value"},
		{"several faults at once", "spil: 1\nlanes:\n- {model: a, location: global, tier: standard}\n- {model: gemini-3-pro-image, location: global, tier: b}", "f:1:1: unknown field\nf:3:11: model \"a\"\nf:4:55: tier \"b\""},
		{"too large", "#" + strings.Repeat("x", maxFileBytes), "f: is larger than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Parse("f", []byte(tt.file), catalogue)
			if err == nil {
				t.Fatalf("accepted: %+v", cfg)
			}
			if tt.name == "a field without a value" && strings.Contains(err.Error(), "missing") {
				t.Errorf("the fault is reported twice: %v", err)
			}
			for _, part := range strings.Split(tt.want, "\n") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q:\n%v", part, err)
				}
			}
		})
	}
}

func okayAnd(first, okay, second string) string { return first + okay + "\n- " + second }

func TestParseBoundsItsReport(t *testing.T) {
	t.Parallel()
	_, err := Parse("f", []byte("lanes:\n"+strings.Repeat("- {}\n", 300)), catalogue)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxFaults+1 || !strings.Contains(lines[maxFaults], "more") {
		t.Errorf("%d lines, the last: %s", len(lines), lines[len(lines)-1])
	}
}

func TestSetProjectFindsTheSameLaneTwice(t *testing.T) {
	t.Parallel()
	cfg, err := Parse("f", []byte("lanes:\n- {model: gemini-3-pro-image, location: global, tier: standard}\n- {project: own, model: gemini-3-pro-image, location: global, tier: standard}"), catalogue)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.SetProject("own"); err == nil || !strings.Contains(err.Error(), "the same way to be served") {
		t.Errorf("error %v", err)
	}
}

func TestHostRegion(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"aiplatform.googleapis.com":                        "global",
		"AIPLATFORM.googleapis.com.:443":                   "global",
		"aiplatform.mtls.googleapis.com":                   "global",
		"europe-west4-aiplatform.googleapis.com":           west4,
		"europe-west4-aiplatform.mtls.googleapis.com":      west4,
		"europe-west4-aiplatform.googleapis.com:8443":      west4,
		"aiplatform.eu.rep.googleapis.com":                 "eu",
		"aiplatform.us-east1.rep.googleapis.com":           east1,
		"77.us-east1-12.prediction.vertexai.goog":          east1,
		"us-east1-aiplatform.googleapis.com.evil.com":      "",
		"x.us-east1-aiplatform.googleapis.com":             "",
		"us-east1-aiplatform-googleapis.com":               "",
		"127.0.0.1:80":                                     "",
		"[::1]:80":                                         "",
		"europe-west4.example.com":                         "",
		"77.us-east1-12.prediction.vertexai.goog.evil.com": "",
	} {
		if got := hostRegion(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("lanes: [{model: a, <<: *b}]\n? [x]\n: y"))
	f.Add([]byte("buckets: !!set {a, b}\nlanes: |\n  text"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f", data, catalogue)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", cfg, err)
		}
		if err != nil {
			return
		}
		for _, l := range cfg.Lanes {
			if faults := l.faults(catalogue); len(faults) > 0 {
				t.Errorf("lane %s was accepted: %v", l.Name, faults)
			}
		}
	})
}
