package jobs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// own is a catalogue of a project with two endpoints of its own and prices of its own for a model of Google's.
const own = `{
	"extends": true, "version": "acme-3", "source": "our contract",
	"tiers": {"flex": {"price_factor": "0.4"}},
	"models": [
		{"id": "acme-diffusion-xl", "name": "Diffusion XL on our own machines", "locations": ["europe-west4"], "tiers": ["dedicated"],
		 "usd_per_image": {"1K": "0.0125", "2K": "0.03"}, "aspect_ratios": ["1:1", "16:9"], "max_prompt_bytes": 4096},
		{"id": "acme-tuned", "name": "Tuned", "locations": ["us-central1", "europe-west4"], "tiers": ["dedicated", "standard", "batch"],
		 "sizes": {"1K": 1000}, "batch_sizes": ["1K"], "usd_per_image": {"4K": "0.5"}, "aspect_ratios": ["1:1"], "max_references": 2,
		 "max_prompt_bytes": 98304, "reference_tokens": 500, "usd_per_million_tokens": {"input": "1.00", "text_output": "3.00", "image_output": "20.00"}},
		{"id": "gemini-3-pro-image", "name": "Nano Banana Pro at our price", "locations": ["global"], "tiers": ["standard"],
		 "sizes": {"1K": 1120}, "aspect_ratios": ["1:1"], "max_references": 14, "max_prompt_bytes": 98304,
		 "usd_per_million_tokens": {"input": "1.00", "image_output": "100.00"}}
	]
}`

func ownCatalogue(t *testing.T) *jobs.Catalogue {
	t.Helper()
	c, err := jobs.ParseCatalogue([]byte(own))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACatalogueMayExtendTheBuiltIn(t *testing.T) {
	built, c := jobs.DefaultCatalogue(), ownCatalogue(t)
	if want := slices.Sorted(slices.Values(append(built.ModelIDs(), "acme-diffusion-xl", "acme-tuned"))); !slices.Equal(c.ModelIDs(), want) {
		t.Errorf("models are %v, want %v", c.ModelIDs(), want)
	}
	if got := c.DefaultModel(); got.ID != "gemini-3-pro-image" || len(got.Sizes) != 1 {
		t.Errorf("the default model is %+v, not the file's own", got)
	}
	if want := "acme-3+" + built.Version(); c.Version() != want {
		t.Errorf("version %s, want %s", c.Version(), want)
	}
	if got := c.PriceFactor("flex").RatString(); got != "2/5" {
		t.Errorf("flex has the factor %s", got)
	}
	if got := built.PriceFactor("flex").RatString(); got != "1/2" {
		t.Errorf("the built-in flex has the factor %s now", got)
	}
	pro := c.Model("gemini-3-pro-image")
	if got := c.Cost(pro, "standard", jobs.Usage{Image: 1120}).String(); got != "0.112000000" {
		t.Errorf("an image at our price costs %s", got)
	}
}

func TestACatalogueMayReplaceTheBuiltIn(t *testing.T) {
	text := strings.Replace(own, `"extends": true`, `"default_model": "acme-tuned"`, 1)
	_, err := jobs.ParseCatalogue([]byte(text))
	if err == nil || !strings.Contains(err.Error(), `model "acme-tuned": tier "dedicated" has no price factor`) {
		t.Errorf("a whole catalogue without its tiers: %v", err)
	}
	text = strings.Replace(text, `"tiers": {`, `"tiers": {"dedicated": {"price_factor": "1"}, "standard": {"price_factor": "1"}, "batch": {"price_factor": "0.5"}, `, 1)
	c, err := jobs.ParseCatalogue([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ModelIDs()) != 3 || c.DefaultModel().ID != "acme-tuned" || c.Version() != "acme-3" {
		t.Errorf("models %v, default %s, version %s", c.ModelIDs(), c.DefaultModel().ID, c.Version())
	}
	if want := []string{"batch", "dedicated", "flex", "standard"}; !slices.Equal(c.Tiers(), want) {
		t.Errorf("tiers %v, want %v", c.Tiers(), want)
	}
}

func TestPricesByTheImage(t *testing.T) {
	c := ownCatalogue(t)
	for _, tc := range []struct {
		model, size, tier, want string
	}{
		{"acme-diffusion-xl", "1K", "dedicated", "0.012500000"},
		{"acme-diffusion-xl", "2K", "dedicated", "0.030000000"},
		{"acme-tuned", "4K", "standard", "0.500001000"}, // and one token that goes in
		{"acme-tuned", "1K", "batch", "0.010000500"},
	} {
		j, err := c.Parse(&schemas.Job{Prompt: "fox!", Model: tc.model, Size: tc.size, Region: "europe-west4"})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Estimate(j, tc.tier).String(); got != tc.want {
			t.Errorf("%s %s %s costs %s, want %s", tc.model, tc.size, tc.tier, got, tc.want)
		}
		u := j.EstimatedUsage().WithoutImage()
		if want := (jobs.Usage{Prompt: 1, Total: 1}); u != want {
			t.Errorf("without an image the usage is %+v, want %+v", u, want)
		}
		// A service counts tokens only.
		counted := jobs.Usage{Prompt: 1, Image: int64(j.Model.Sizes[j.Size]), Total: 1}
		if got := c.Cost(j.Model, tc.tier, j.WithImage(counted)).String(); got != tc.want {
			t.Errorf("%s %s %s with counted tokens costs %s, want %s", tc.model, tc.size, tc.tier, got, tc.want)
		}
	}
	if names := c.Model("acme-diffusion-xl").SizeNames(); !slices.Equal(names, []string{"1K", "2K"}) {
		t.Errorf("sizes %v", names)
	}
}

func TestTiersOfModels(t *testing.T) {
	c := ownCatalogue(t)
	for _, tc := range []struct {
		model, tier string
		want        bool
	}{
		{"acme-diffusion-xl", "dedicated", true}, {"acme-diffusion-xl", "standard", false}, {"gemini-2.5-flash-image", "flex", false},
		{"gemini-2.5-flash-image", "batch", true}, {"nobody", "standard", false},
	} {
		if got := c.HasTier(tc.model, tc.tier); got != tc.want {
			t.Errorf("%s in %s: %t", tc.model, tc.tier, got)
		}
	}
	if c.PriceFactor("a tier of tomorrow") != nil {
		t.Error("an unknown tier has a price factor")
	}
	c.PriceFactor("batch").SetInt64(7)
	if got := c.PriceFactor("batch").RatString(); got != "1/2" {
		t.Errorf("a caller changed the catalogue: %s", got)
	}
	if got := jobs.DefaultCatalogue().PriceFactor("dedicated").RatString(); got != "1" {
		t.Errorf("dedicated has the factor %s", got)
	}
	_, err := c.Parse(&schemas.Job{Prompt: "x", Model: "acme-diffusion-xl", Region: "europe-west4", Mode: "batch"})
	if err == nil || !strings.Contains(err.Error(), `mode "batch" is not offered by acme-diffusion-xl`) {
		t.Errorf("batch where there is none: %v", err)
	}
}

func TestCatalogueRefusesNonsense(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(own, old, new, 1) }
	for name, tc := range map[string]struct{ text, want string }{
		"unknown field":   {`{"version":"1","default_model":"m","tiers":{},"models":[],"colour":"red"}`, "colour"},
		"no default":      {`{"version":"1","default_model":"m","tiers":{},"models":[]}`, `default_model "m"`},
		"default unknown": {with(`"extends": true`, `"extends": true, "default_model": "nobody"`), `default_model "nobody"`},
		"no version":      {with(`"acme-3"`, `""`), "version"},
		"two objects":     {own + "{}", "something follows"},
		"not JSON":        {"version: 1", "invalid character"},
		"price factor":    {with(`"0.4"`, `"cheap"`), `price_factor "cheap"`},
		"tier's name":     {with(`"flex"`, `"Flex Tier"`), `tier "Flex Tier"`},
		"price":           {with(`"0.0125"`, `"-1"`), `usd_per_image of size 1K: "-1"`},
		"price too fine":  {with(`"0.0125"`, `"0.00000000001"`), "nine decimals"},
		"paid twice":      {with(`{"4K": "0.5"}`, `{"1K": "0.5"}`), "size 1K is paid twice"},
		"not paid":        {with(`{"1K": 1000}`, `{"1K": 1000, "2K": 0}`), "size 2K needs its number of tokens"},
		"token price":     {with(`, "image_output": "20.00"`, ``), "size 1K is paid by tokens"},
		"no sizes":        {with(`"usd_per_image": {"1K": "0.0125", "2K": "0.03"}, `, ``), "needs sizes"},
		"size":            {with(`"2K": "0.03"`, `"3K": "0.03"`), `size "3K" is unknown`},
		"batch size":      {with(`["1K"]`, `["2K"]`), `batch size "2K"`},
		"no batch sizes":  {with(`"batch_sizes": ["1K"], `, ``), "tier batch needs batch_sizes"},
		"location":        {with(`"europe-west4"`, `"evil.example/"`), `location "evil.example/"`},
		"no location":     {with(`["europe-west4"]`, `[]`), "needs locations"},
		"tier unknown":    {with(`["dedicated"]`, `["x"]`), `tier "x" has no price factor`},
		"id":              {with(`acme-diffusion-xl`, `../x`), `model "../x": id may hold only`},
		"capitals":        {with(`acme-diffusion-xl`, `SDXL`), `model "SDXL": id may hold only`},
		"id twice":        {with(`acme-diffusion-xl`, `acme-tuned`), `model "acme-tuned": is listed twice`},
		"ratio":           {with(`"16:9"`, `"16x9"`), `aspect ratio "16x9"`},
		"prompt bytes":    {with(`4096`, `98305`), "max_prompt_bytes is 98305"},
		"references":      {with(`"max_references": 2`, `"max_references": 101`), "max_references is 101"},
		"null":            {with(`"models": [`, `"models": [null, `), "a model is null"},
		"all at once":     {strings.Replace(with(`4096`, `0`), `"0.4"`, `"x"`, 1), "max_prompt_bytes is 0"},
	} {
		_, err := jobs.ParseCatalogue([]byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v does not say %q", name, err, tc.want)
		}
	}
}

func TestParseUSD(t *testing.T) {
	for text, want := range map[string]jobs.USD{"0": 0, "0.02": 20_000_000, "0.000000001": 1, "12": 12_000_000_000} {
		if got, err := jobs.ParseUSD(text); got != want || err != nil {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "two", "-0.1", "0.0000000001", "99999999999"} {
		if got, err := jobs.ParseUSD(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestFitsBatch(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	c := ownCatalogue(t)
	for name, tc := range map[string]struct {
		m    *schemas.Job
		want bool
	}{
		"no deadline":        {&schemas.Job{Model: "acme-tuned", Region: "us-central1"}, true},
		"time enough":        {&schemas.Job{Model: "acme-tuned", Region: "us-central1", Deadline: at(jobs.BatchTime)}, true},
		"a second too early": {&schemas.Job{Model: "acme-tuned", Region: "us-central1", Deadline: at(jobs.BatchTime - time.Second)}, false},
		"passed":             {&schemas.Job{Model: "acme-tuned", Region: "us-central1", Deadline: at(-time.Hour)}, false},
		"size":               {&schemas.Job{Model: "gemini-3.1-flash-image", Size: "2K"}, false},
		"model":              {&schemas.Job{Model: "acme-diffusion-xl", Region: "europe-west4"}, false},
	} {
		tc.m.Prompt = "x"
		j, err := c.Parse(tc.m)
		if err != nil {
			t.Fatal(err)
		}
		if got := j.FitsBatch(now); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// The mode decides neither the image nor its place. A job that is published again in another mode is the same job.
func TestTheModeIsNoPartOfAJobsIdentity(t *testing.T) {
	online := parse(t, &schemas.Job{Prompt: "a", Mode: "online"})
	batch := parse(t, &schemas.Job{Prompt: "a", Mode: "batch"})
	if online.ID != batch.ID || online.Digest() != batch.Digest() {
		t.Error("it has another id or digest in batch mode")
	}
	var problems jobs.Problems
	if _, err := jobs.DefaultCatalogue().Parse(&schemas.Job{Prompt: "a", Mode: "auto"}); !errors.As(err, &problems) {
		t.Errorf("a published job with the mode auto: %v", err)
	}
	if diff := cmp.Diff("batch", batch.Message().GetMode()); diff != "" {
		t.Error(diff)
	}
}
