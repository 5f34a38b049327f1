package lanes

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/jobs"
)

// imageCatalogue has a model that is paid by the image, and one that has no standard tier.
const imageCatalogue = `{
	"version": "test-1", "default_model": "painter",
	"tiers": {"standard": {"price_factor": "1"}, "flex": {"price_factor": "0.5"}, "provisioned": {"price_factor": "1"}, "batch": {"price_factor": "0.5"}},
	"models": [
		{"id": "painter", "name": "Painter", "locations": ["global"], "tiers": ["standard", "flex"], "usd_per_image": {"1K": "0.02", "2K": "0.05"},
		 "aspect_ratios": ["1:1"], "max_prompt_bytes": 4096},
		{"id": "reserved", "name": "Reserved", "locations": ["global"], "tiers": ["provisioned"], "usd_per_image": {"1K": "0.02"},
		 "aspect_ratios": ["1:1"], "max_prompt_bytes": 4096}
	]}`

func TestModelsPaidByTheImage(t *testing.T) {
	t.Parallel()
	c, err := jobs.ParseCatalogue([]byte(imageCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	painter := c.Model("painter")
	lane := func(tier, name string, change ...func(*LaneConfig)) LaneConfig {
		return at("painter", "global", tier, append(change, named(name))...)
	}
	cfg := configOf(lane(tierStandard, "standard"), lane(tierStandard, "own price", priced(30_000_000)), lane(tierFlex, "flex"))
	cfg.Catalogue = c
	s := New(cfg, Options{Seed: 1})
	for size, want := range map[string]string{
		"1K": "flex 10000000, standard 20000000, own price 30000000",
		"2K": "flex 25000000, own price 30000000, standard 50000000",
		"4K": "",
	} {
		var got []string
		for _, o := range options(cfg, s.lanes, class{painter, size, jobs.GlobalRegion, relaxed}, true) {
			got = append(got, o.lane.cfg.Name+" "+fmt.Sprint(int64(o.step.price)))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, want %q", size, strings.Join(got, ", "), want)
		}
	}
	p, err := s.Next(context.Background(), &jobs.Job{ID: "j", Model: painter, Size: "2K", Region: jobs.GlobalRegion})
	if err != nil {
		t.Fatal(err)
	}
	p.Drop()
}

func TestDefaultLeavesOutModelsWithoutTheStandardTier(t *testing.T) {
	t.Parallel()
	c, err := jobs.ParseCatalogue([]byte(imageCatalogue))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range Default("p", "", c).Lanes {
		got = append(got, l.Name)
	}
	if strings.Join(got, " ") != "painter/global/standard" {
		t.Errorf("lanes %q", got)
	}
}
