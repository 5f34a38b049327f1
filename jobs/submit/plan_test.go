package submit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
)

func auto(o *submit.Options) { o.Defaults.Mode = string(jobs.Auto) }

// prompts are rows of a file with one column more than the prompt: n rows with that cell.
func prompts(n int, name, cell string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %d,%s\n", name, i, cell)
	}
	return b.String()
}

// modes counts the published jobs by mode.
func (c *cloud) modes() map[jobs.Mode]int {
	m := map[jobs.Mode]int{}
	for _, j := range c.published {
		m[j.Mode]++
	}
	return m
}

func TestRowsThatSayTheirModeKeepIt(t *testing.T) {
	c := &cloud{keep: true}
	r, _, err := run(t, c, "prompt,mode\na,batch\nb,online\nc,\n", nil)
	if diff := cmp.Diff(map[jobs.Mode]int{jobs.Batch: 1, jobs.Online: 2}, c.modes()); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if r.GetBatchJobs() != 1 || len(r.GetPlans()) != 0 {
		t.Errorf("receipt %v", r)
	}
	c = &cloud{keep: true}
	if r, _, err = run(t, c, "prompt,mode\na,batch\nb,online\nc,auto\n", auto); err != nil || r.GetPlans()[0].GetJobs() != 1 || c.modes()[jobs.Batch] != 1 {
		t.Errorf("with --mode auto: %v, %v", r, err)
	}
}

func TestAutoTakesBatchWhereItWillDo(t *testing.T) {
	const far, near = "2000-02-01T00:00:00Z", "2000-01-04T00:00:00Z" // in a bubble the time is 2000-01-01
	for name, tc := range map[string]struct {
		file            string
		batch, online   int
		fitting, groups int64
	}{
		"too few to be worth it":      {"prompt,size\n" + prompts(99, "a", "1K"), 0, 99, 99, 1},
		"just enough":                 {"prompt,size\n" + prompts(100, "a", "1K"), 100, 0, 100, 1},
		"variants count":              {"prompt,variants\n" + prompts(50, "a", "2"), 100, 0, 100, 1},
		"sizes that batch can't make": {"prompt,size\n" + prompts(100, "a", "1K") + prompts(7, "b", "2K"), 100, 7, 100, 1},
		"deadlines":                   {"prompt,deadline\n" + prompts(100, "a", far) + prompts(5, "b", near), 100, 5, 100, 1},
		"all too urgent":              {"prompt,deadline\n" + prompts(200, "a", near), 0, 200, 0, 1},
		"models count by themselves":  {"prompt,model\n" + prompts(99, "a", "gemini-3-pro-image") + prompts(99, "b", "gemini-3.1-flash-image"), 0, 198, 198, 2},
		"regions too": {"prompt,region,model\n" + prompts(99, "a", "us-central1,gemini-2.5-flash-image") +
			prompts(100, "b", "europe-west4,gemini-2.5-flash-image"), 100, 99, 199, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cloud{keep: true}
				var told *schemas.SubmissionRow
				r, _, err := run(t, c, tc.file, func(o *submit.Options) {
					auto(o)
					o.Planned = func(r *schemas.SubmissionRow) error { told = proto.CloneOf(r); return nil }
				})
				if err != nil {
					t.Fatal(err)
				}
				var fitting int64
				for _, p := range r.GetPlans() {
					fitting += p.GetFittingJobs()
				}
				if got := c.modes(); got[jobs.Batch] != tc.batch || got[jobs.Online] != tc.online || fitting != tc.fitting || int64(len(r.GetPlans())) != tc.groups {
					t.Errorf("published %v, %d fit, plans %v", got, fitting, r.GetPlans())
				}
				if r.GetBatchJobs() != int64(tc.batch) || told.GetBatchJobs() != int64(tc.batch) || told.GetPublished() != 0 {
					t.Errorf("receipt says %d, before publishing it said %v", r.GetBatchJobs(), told)
				}
			})
		})
	}
}

// Both prices and both times are there before anything is published, in a dry run too.
func TestThePlanShowsPricesAndTimes(t *testing.T) {
	c := &cloud{}
	r, _, err := run(t, c, "prompt,size\n"+prompts(1000, "a prompt with forty bytes of text so", "1K")+prompts(200, "b", "4K"), func(o *submit.Options) {
		auto(o)
		o.DryRun, o.OnlineRate = true, 60
	})
	if err != nil || len(r.GetPlans()) != 1 || c.count != 0 {
		t.Fatalf("%v, %v, %d published", r, err, c.count)
	}
	p := r.GetPlans()[0]
	online, batch := p.GetOnlineCostUsd(), p.GetBatchCostUsd()
	// 1,000 images at $0.1344 or half of it, 200 at $0.24, and some input.
	if online < "182.4" || online > "182.5" || batch < "115.2" || batch > "115.3" || r.GetEstimatedCostUsd() != batch {
		t.Errorf("online $%s, with batch $%s, estimated $%s", online, batch, r.GetEstimatedCostUsd())
	}
	if p.GetOnlineMs() != (20*time.Minute).Milliseconds() || p.GetBatchMs() != (96*time.Hour).Milliseconds() {
		t.Errorf("online %d ms, batch %d ms", p.GetOnlineMs(), p.GetBatchMs())
	}
}

func TestAPlanMayBeDeclined(t *testing.T) {
	c := &cloud{}
	declined := errors.New("too dear")
	_, _, err := run(t, c, "prompt\na\n", func(o *submit.Options) { o.Planned = func(*schemas.SubmissionRow) error { return declined } })
	if !errors.Is(err, declined) || c.count != 0 || len(c.receipts) != 0 {
		t.Errorf("err %v, %d published, %d receipts", err, c.count, len(c.receipts))
	}
}

func TestRejectedRowsAreNotInThePlan(t *testing.T) {
	c := &cloud{keep: true, absent: map[string]bool{"gs://bucket/none.png": true}}
	content := "prompt,references\n" + prompts(100, "a", "") + prompts(50, "b", "gs://bucket/none.png")
	r, _, err := run(t, c, content, func(o *submit.Options) { auto(o); o.SkipInvalid = true })
	if err != nil || r.GetPlans()[0].GetJobs() != 100 || r.GetBatchJobs() != 100 || c.modes()[jobs.Batch] != 100 {
		t.Errorf("%v, %v, published %v", r, err, c.modes())
	}
	alone, _, err := run(t, &cloud{}, "prompt,references\n"+prompts(100, "a", ""), auto)
	if err != nil || alone.GetEstimatedCostUsd() != r.GetEstimatedCostUsd() {
		t.Errorf("estimated at %s with rejected rows, at %s without, %v", r.GetEstimatedCostUsd(), alone.GetEstimatedCostUsd(), err)
	}
}

// A second run of the same files decides as the first did, whatever has changed but the clock; and the clock moves jobs to online only.
// No run makes a job that another did not: ids and digests stay the same in every mode.
func TestAutoDecidesTheSameAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := time.Now()
		deadline := first.Add(jobs.BatchTime + time.Hour).UTC().Format(time.RFC3339)
		content := "prompt,deadline\n" + prompts(60, "calm", "") + prompts(60, "urgent", deadline)
		c := &cloud{keep: true, failAfter: 30}
		r1, _, err := run(t, c, content, auto)
		if err == nil || r1.GetBatchJobs() != 120 {
			t.Fatalf("first run: %v, %v", r1, err)
		}
		digests := map[string]jobs.Digest{}
		for _, j := range c.published {
			digests[j.ID] = j.Digest()
		}
		for _, tc := range []struct {
			after         time.Duration
			change        func(*submit.Options)
			batch, online int
		}{
			{time.Minute, auto, 120, 0},
			{2 * time.Hour, auto, 60, 60}, // by itself, 60 jobs would be too few for a batch
			{200 * time.Hour, auto, 60, 60},
			{0, nil, 0, 120}, // somebody is in a hurry
			{0, func(o *submit.Options) { o.Defaults.Mode = "online" }, 0, 120},
			{0, func(o *submit.Options) { o.Defaults.Mode = "batch" }, 120, 0},
		} {
			time.Sleep(tc.after)
			again := &cloud{keep: true, receipts: c.receipts}
			r, _, err := run(t, again, content, tc.change)
			if got := again.modes(); err != nil || got[jobs.Batch] != tc.batch || got[jobs.Online] != tc.online || r.GetSubmission() != r1.GetSubmission() {
				t.Errorf("after %s more: published %v as %s, was %s: %v", tc.after, got, r.GetSubmission(), r1.GetSubmission(), err)
			}
			for _, j := range again.published {
				if was, ok := digests[j.ID]; ok && was != j.Digest() {
					t.Fatalf("job %s has another digest: it would be refused as a conflict", j.ID)
				}
				digests[j.ID] = j.Digest()
			}
			if len(digests) != 120 {
				t.Fatalf("%d different jobs were published of 120: some would be paid twice", len(digests))
			}
		}
	})
}

func TestAModelWithoutBatchGoesOnline(t *testing.T) {
	c := &cloud{keep: true}
	own, err := jobs.ParseCatalogue([]byte(`{"extends": true, "version": "own", "models": [{"id": "own-diffusion", "locations": ["europe-west4"], "tiers": ["dedicated"],
		"usd_per_image": {"1K": "0.01"}, "aspect_ratios": ["1:1"], "max_prompt_bytes": 2000}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := run(t, c, "prompt,region,model\n"+prompts(150, "a", "europe-west4,own-diffusion"), func(o *submit.Options) { auto(o); o.Catalogue = own })
	if err != nil || c.modes()[jobs.Online] != 150 || r.GetEstimatedCostUsd() != "1.500000000" || r.GetPriceVersion() != "own+"+jobs.DefaultCatalogue().Version() {
		t.Errorf("%v, %v, published %v", r, err, c.modes())
	}
}
