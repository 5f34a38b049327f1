package jobs_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

func parse(t *testing.T, m *schemas.Job) *jobs.Job {
	t.Helper()
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return j
}

func TestDefaults(t *testing.T) {
	j := parse(t, &schemas.Job{Prompt: "a red fox"})
	got := map[string]any{
		"submission": j.Submission, "campaign": j.Campaign, "model": j.Model.ID, "size": j.Size, "ratio": j.AspectRatio,
		"mode": j.Mode, "region": j.Region, "retention": j.Retention, "variant": j.Variant, "seed": j.Seed == nil,
	}
	want := map[string]any{
		"submission": "direct", "campaign": "default", "model": "gemini-3-pro-image", "size": "1K", "ratio": "1:1",
		"mode": jobs.Online, "region": "global", "retention": "keep", "variant": 1, "seed": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if withRef := parse(t, &schemas.Job{Prompt: "x", References: []string{"gs://bucket/a.png"}}); withRef.AspectRatio != "" {
		t.Errorf("with a reference the ratio is %q, want the reference's own", withRef.AspectRatio)
	}
}

// full is a job with every field set.
func full() *schemas.Job {
	seed := int32(7)
	return &schemas.Job{
		Id: "job-1", Submission: "s-1", Campaign: "spring_sale", Client: "retail", Prompt: "a red fox", System: "be bold",
		Model: "gemini-3-pro-image", Size: "2K", AspectRatio: "16:9", Seed: &seed, Variant: 2,
		References: []string{"gs://bucket/a.png", "gs://bucket/b.JPG"}, Safety: map[string]string{"hate": "low", "HARM_CATEGORY_HARASSMENT": "OFF"},
		Mode: "online", Deadline: "2026-12-01T10:00:00+01:00", Region: "global", Retention: "90d",
		Labels: map[string]string{"team": "web"}, Source: map[string]string{"SKU": "A/7"}, SourceFile: "p.csv", SourceRow: 3,
		Turns: []*schemas.Job_Turn{{Prompt: "a blue fox", Image: "gs://bucket/fox.png"}},
	}
}

func TestAJobSurvivesItsMessage(t *testing.T) {
	j := parse(t, full())
	again := parse(t, j.Message())
	if again.ID != j.ID || again.Digest() != j.Digest() {
		t.Error("id or digest changed on the way through a message")
	}
	if !proto.Equal(j.Message(), again.Message()) {
		t.Errorf("%v\nbecame\n%v", j.Message(), again.Message())
	}
	if !j.Deadline.Equal(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("deadline %s", j.Deadline)
	}
}

func TestWhatIsWrongIsSaidWithWhatIsAllowed(t *testing.T) {
	long := strings.Repeat("é", 50_000)
	turns := func(n int) (all []*schemas.Job_Turn) {
		for range n {
			all = append(all, &schemas.Job_Turn{Prompt: strings.Repeat("x", 10_000), Image: "gs://bucket/a.png"})
		}
		return all
	}
	for name, c := range map[string]struct {
		change func(*schemas.Job)
		want   []string // parts of the error
	}{
		"no prompt":            {func(m *schemas.Job) { m.Prompt = " \n" }, []string{"prompt is missing"}},
		"prompt too long":      {func(m *schemas.Job) { m.Prompt = long }, []string{"prompt", "100000 bytes", "at most 98304"}},
		"all texts too long":   {func(m *schemas.Job) { m.Prompt, m.Turns = long[:90_000], turns(5) }, []string{"prompt is 140007 bytes long together with system and turns", "at most 131072"}},
		"turn without prompt":  {func(m *schemas.Job) { m.Turns[0].Prompt = " " }, []string{"turns.1.prompt is missing"}},
		"turn without image":   {func(m *schemas.Job) { m.Turns[0].Image = "" }, []string{"turns.1.image is missing"}},
		"empty turn":           {func(m *schemas.Job) { m.Turns = append(m.Turns, nil) }, []string{"turns.2.prompt is missing", "turns.2.image is missing"}},
		"turn's prompt":        {func(m *schemas.Job) { m.Turns[0].Prompt = long[:40_000] }, []string{"turns.1.prompt", "40000 bytes", "at most 32768"}},
		"turn's image":         {func(m *schemas.Job) { m.Turns[0].Image = "gs://bucket/a.tiff" }, []string{`turns.1.image "gs://bucket/a.tiff"`, ".png"}},
		"turn's image's place": {func(m *schemas.Job) { m.Turns[0].Image = "a.png" }, []string{`turns.1.image "a.png"`, "gs://bucket/object"}},
		"15 turns":             {func(m *schemas.Job) { m.Turns, m.References = turns(15), nil }, []string{"turns are 15", "at most 14"}},
		"14 turns and a reference": {func(m *schemas.Job) {
			m.Turns, m.References = turns(14), []string{"gs://bucket/a.png"}
		}, []string{"references and the images of turns are 15; gemini-3-pro-image takes at most 14"}},
		"turns beyond a model": {func(m *schemas.Job) {
			m.Model, m.Size, m.Turns, m.References = "gemini-2.5-flash-image", "1K", turns(4), nil
		}, []string{"turns are 4; gemini-2.5-flash-image takes at most 3"}},
		"NUL":                  {func(m *schemas.Job) { m.Prompt = "a\x00b" }, []string{"NUL"}},
		"not UTF-8":            {func(m *schemas.Job) { m.System = "caf\xe9" }, []string{"system", "not UTF-8"}},
		"id with a slash":      {func(m *schemas.Job) { m.Id = "a/b" }, []string{`id "a/b"`, "a-z"}},
		"id with dots":         {func(m *schemas.Job) { m.Id = ".." }, []string{`id ".."`}},
		"id too long":          {func(m *schemas.Job) { m.Id = strings.Repeat("a", 64) }, []string{"1 to 63"}},
		"id ends in a hyphen":  {func(m *schemas.Job) { m.Id = "a-" }, []string{`id "a-"`}},
		"campaign with spaces": {func(m *schemas.Job) { m.Campaign = "Spring Sale 2026!" }, []string{`campaign "Spring Sale 2026!"`, "try spring-sale-2026"}},
		"campaign of dots":     {func(m *schemas.Job) { m.Campaign = "../.." }, []string{`campaign "../.."`}},
		"client with a slash":  {func(m *schemas.Job) { m.Client = "a/b" }, []string{`client "a/b"`, "try a-b"}},
		"label key":            {func(m *schemas.Job) { m.Labels["7up"] = "x" }, []string{`labels "7up"`, "begins with a letter"}},
		"label value":          {func(m *schemas.Job) { m.Labels["team"] = "../x" }, []string{`label.team "../x"`}},
		"unknown model":        {func(m *schemas.Job) { m.Model = "dall-e-3" }, []string{`model "dall-e-3"`, "gemini-3-pro-image", "gemini-2.5-flash-image"}},
		"size of the model":    {func(m *schemas.Job) { m.Size = "512" }, []string{`size "512"`, "gemini-3-pro-image", "1K, 2K, 4K"}},
		"2K in batch":          {func(m *schemas.Job) { m.Mode = "batch" }, []string{`size "2K"`, "batch", "1K"}},
		"ratio":                {func(m *schemas.Job) { m.AspectRatio = "16x9" }, []string{`aspect_ratio "16x9"`, "16:9"}},
		"seed":                 {func(m *schemas.Job) { m.Seed = proto.Int32(-1) }, []string{"seed", "0 to 2147483647"}},
		"variant":              {func(m *schemas.Job) { m.Variant = 101 }, []string{"variant", "1 to 100"}},
		"mode":                 {func(m *schemas.Job) { m.Mode = "fast" }, []string{`mode "fast"`, "online, batch"}},
		"retention":            {func(m *schemas.Job) { m.Retention = "7d" }, []string{`retention "7d"`, "30d, 90d, 365d, archive, keep"}},
		"deadline":             {func(m *schemas.Job) { m.Deadline = "tomorrow" }, []string{"deadline", "2026-12-01T09:00:00Z"}},
		"region of the model":  {func(m *schemas.Job) { m.Region = "europe-west4" }, []string{"europe-west4", "is not served by gemini-3-pro-image", "gemini-2.5-flash-image"}},
		"region of nobody":     {func(m *schemas.Job) { m.Region = "mars" }, []string{`region "mars"`, "global"}},
		"reference":            {func(m *schemas.Job) { m.References[0] = "https://x/y.png" }, []string{"references", "gs://bucket/object"}},
		"reference's type":     {func(m *schemas.Job) { m.References[0] = "gs://bucket/y.gif" }, []string{".png"}},
		"15 references":        {func(m *schemas.Job) { m.References, m.Turns = make([]string, 15), nil }, []string{"references are 15", "at most 14"}},
		"safety category":      {func(m *schemas.Job) { m.Safety["violence"] = "low" }, []string{`safety "violence"`, "hate"}},
		"safety threshold":     {func(m *schemas.Job) { m.Safety["hate"] = "some" }, []string{`safety "some"`, "medium"}},
		"source too large":     {func(m *schemas.Job) { m.Source["notes"] = strings.Repeat("x", 20_000) }, []string{"source", "16384"}},
		"everything at once": {
			func(m *schemas.Job) { m.Prompt, m.Size, m.Mode, m.Id = "", "8K", "no", "A" },
			[]string{"prompt is missing", `size "8K"`, `mode "no"`, `id "A"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := full()
			c.change(m)
			_, err := jobs.DefaultCatalogue().Parse(m)
			var problems jobs.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error %v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			for _, p := range problems {
				if len(p.Value) > 70 {
					t.Errorf("a value of %d bytes is repeated", len(p.Value))
				}
			}
		})
	}
}

func TestDerivedIDs(t *testing.T) {
	base := parse(t, &schemas.Job{Prompt: "a", Submission: "s-1"})
	if !regexp.MustCompile(`^[a-z0-9-]{1,63}$`).MatchString(base.ID) || len(base.ID) != 52 {
		t.Errorf("id %q is not a whole hash", base.ID)
	}
	if again := parse(t, &schemas.Job{Prompt: "a", Submission: "s-1"}); again.ID != base.ID {
		t.Error("the same job has another id")
	}
	if base.DeriveID(0) == base.DeriveID(1) {
		t.Error("two occurrences share an id")
	}
	// Fields must not run into each other, and every field that decides the image or its place must count.
	ids := map[string]string{base.ID: "base"}
	for name, m := range map[string]*schemas.Job{
		"submission": {Prompt: "a", Submission: "s-2"},
		"prompt":     {Prompt: "b", Submission: "s-1"},
		"split 1":    {Prompt: "ab", System: "c", Submission: "s-1"},
		"split 2":    {Prompt: "a", System: "bc", Submission: "s-1"},
		"campaign":   {Prompt: "a", Campaign: "c", Submission: "s-1"},
		"model":      {Prompt: "a", Model: "gemini-3.1-flash-image", Submission: "s-1"},
		"size":       {Prompt: "a", Size: "2K", Submission: "s-1"},
		"ratio":      {Prompt: "a", AspectRatio: "16:9", Submission: "s-1"},
		"seed 0":     {Prompt: "a", Seed: proto.Int32(0), Submission: "s-1"},
		"variant":    {Prompt: "a", Variant: 2, Submission: "s-1"},
		"reference":  {Prompt: "a", References: []string{"gs://bucket/a.png"}, Submission: "s-1"},
		"safety":     {Prompt: "a", Safety: map[string]string{"hate": "low"}, Submission: "s-1"},
		"retention":  {Prompt: "a", Retention: "30d", Submission: "s-1"},
		"turn":       {Prompt: "a", Submission: "s-1", Turns: []*schemas.Job_Turn{{Prompt: "b", Image: "gs://bucket/a.png"}}},
		"two turns":  {Prompt: "a", Submission: "s-1", Turns: []*schemas.Job_Turn{{Prompt: "b", Image: "gs://bucket/a.png"}, {Prompt: "b", Image: "gs://bucket/a.png"}}},
		"region":     {Prompt: "a", Model: "gemini-2.5-flash-image", Region: "us-central1", Submission: "s-1"},
	} {
		id := parse(t, m).ID
		if other, taken := ids[id]; taken {
			t.Errorf("%s has the id of %s", name, other)
		}
		ids[id] = name
	}
	for name, m := range map[string]*schemas.Job{
		"mode":   {Prompt: "a", Submission: "s-1", Mode: "batch"},
		"labels": {Prompt: "a", Submission: "s-1", Labels: map[string]string{"k": "v"}, Client: "c", Source: map[string]string{"x": "y"}},
		"forms":  {Prompt: "a", Submission: "s-1", Size: "1k", Model: "gemini-3-pro-image", AspectRatio: "1:1"},
	} {
		if parse(t, m).ID != base.ID {
			t.Errorf("%s must not change the id: it would be paid twice", name)
		}
	}
}

// Ids that were derived by earlier versions must be derived again, or what they stand for is paid for twice.
func TestDerivedIDsStayWhatTheyWere(t *testing.T) {
	for want, m := range map[string]*schemas.Job{
		"kbsybzoewc4c6cslhdqakbu7snh3qzsxorjjdtchk5lq3kypqfyq": {Prompt: "A red canoe on a calm mountain lake at dawn, product photography"},
		"5jcdyyy2scmjzza34o7ys5xcqs3pyx3zazjsr2czd3teelbvqysa": func() *schemas.Job { m := full(); m.Id, m.Turns = "", nil; return m }(),
	} {
		if got := parse(t, m).ID; got != want {
			t.Errorf("the id of %q is %s, was %s", m.GetPrompt(), got, want)
		}
	}
}

// Prompts of 8,192 tokens pass in every script: the longest tokens are those of Indic scripts, about 9 bytes each.
func TestLongPrompts(t *testing.T) {
	m := full()
	m.Prompt, m.System = strings.Repeat("வணக்கம் ", 98_304/22), strings.Repeat("s", 30_000)
	m.Turns = nil
	parse(t, m)
}

func TestTurnsAreCountedInEstimates(t *testing.T) {
	without, with := full(), full()
	without.Turns = nil
	few, more := parse(t, without).EstimatedUsage(), parse(t, with).EstimatedUsage()
	if more.Prompt-few.Prompt < 560 || more.Total-few.Total != more.Prompt-few.Prompt {
		t.Errorf("a turn with an image makes %+v of %+v", more, few)
	}
}

func TestSafetyForms(t *testing.T) {
	all := map[string]string{"hate": "off", "dangerous": "off", "harassment": "off", "sexual": "off"}
	for text, want := range map[string]map[string]string{
		"":                       nil,
		"off":                    all,
		"hate=low; sexual = OFF": {"hate": "low", "sexual": "OFF"},
		"hate:low|sexual:off,":   {"hate": "low", "sexual": "off"},
		"hate=low;oops":          {"hate": "low", "oops": ""},
	} {
		if diff := cmp.Diff(want, jobs.ParseSafety(text)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	j := parse(t, &schemas.Job{Prompt: "x", Safety: map[string]string{"Hate": "Block_Only_High", "HARM_CATEGORY_SEXUALLY_EXPLICIT": "none"}})
	want := []jobs.SafetySetting{{"HARM_CATEGORY_HATE_SPEECH", "BLOCK_ONLY_HIGH"}, {"HARM_CATEGORY_SEXUALLY_EXPLICIT", "BLOCK_NONE"}}
	if diff := cmp.Diff(want, j.Safety); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCosts(t *testing.T) {
	c := jobs.DefaultCatalogue()
	pro := c.Model("gemini-3-pro-image")
	for _, tc := range []struct {
		tier string
		u    jobs.Usage
		want string
	}{
		{"standard", jobs.Usage{Image: 1120}, "0.134400000"},
		{"standard", jobs.Usage{Image: 2000}, "0.240000000"},
		{"batch", jobs.Usage{Image: 1120}, "0.067200000"},
		{"standard", jobs.Usage{Prompt: 1000, Text: 10, Thought: 90, Image: 1120}, "0.137600000"},
		{"a tier of tomorrow", jobs.Usage{Image: 1120}, "0.134400000"},
		{"standard", jobs.Usage{}, "0.000000000"},
	} {
		if got := c.Cost(pro, tc.tier, tc.u).String(); got != tc.want {
			t.Errorf("%s %+v costs %s, want %s", tc.tier, tc.u, got, tc.want)
		}
	}
	lite := c.Model("gemini-3.1-flash-lite-image")
	if got := c.Cost(lite, "batch", jobs.Usage{Prompt: 1}); got != 125 {
		t.Errorf("one token at half of $0.25 a million is %d nano-dollars, want 125", got)
	}
	if got := jobs.USD(-1_500_000_000).String(); got != "-1.500000000" {
		t.Errorf("negative amount reads %s", got)
	}
}

func TestEveryReasonHasOneOutcome(t *testing.T) {
	if jobs.Reason("made up").Outcome() != "" {
		t.Error("a made-up reason has an outcome")
	}
	for _, r := range jobs.Reasons() {
		if r.Outcome() == "" {
			t.Errorf("%s has no outcome", r)
		}
	}
}

// docs/outcomes.md explains every reason.
func TestEveryReasonIsExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/outcomes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range jobs.Reasons() {
		if row := fmt.Sprintf("| %s | `%s` |", r.Outcome(), r); !strings.Contains(string(page), row) {
			t.Errorf("docs/outcomes.md has no row %q", row)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"prompt":"a red fox"}`))
	f.Add([]byte(`{"id":"x","prompt":"y","safety":{"hate":"low"},"references":["gs://bucket/a.png"],"seed":0}`))
	f.Add([]byte(`{"prompt":"a","turns":[{"prompt":"b","image":"gs://bucket/a.png"}]}`))
	f.Add([]byte(`{"prompt":"a","labels":{"a":"b"},"deadline":"2026-12-01T10:00:00Z","variant":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &schemas.Job{}
		if schemas.Unmarshal(data, m) != nil {
			return
		}
		j, err := jobs.DefaultCatalogue().Parse(m)
		if err != nil {
			return
		}
		if !jobs.ValidID(j.ID) || strings.Contains(j.Campaign, "/") || strings.Contains(j.Campaign, "..") {
			t.Errorf("an object name could be made of %q %q", j.ID, j.Campaign)
		}
		again, err := jobs.DefaultCatalogue().Parse(j.Message())
		if err != nil || again.ID != j.ID || again.Digest() != j.Digest() || !maps.Equal(again.Source, j.Source) {
			t.Errorf("the job's own message does not give the job: %v", err)
		}
	})
}
