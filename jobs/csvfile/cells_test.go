package csvfile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

func TestEveryColumn(t *testing.T) {
	t.Parallel()
	header := "id,prompt,campaign,client,model,size,aspect ratio,seed,variants,references,system,safety,mode,deadline,region,retention,label.team,SKU"
	row := one(t, header+"\n"+
		` a-1 , A cat ,spring,acme,PRO,2k,16:9,42,1,"gs://bkt/a.png | gs://bkt/b, c.jpg", Be brief. ,hate=low; sexual=off,Online,2026-12-01 09:00+01:00,Global,90D,red, 007 `+"\n", options(t))
	if !row.HasID || len(row.Jobs) != 1 {
		t.Fatalf("HasID %t, %d jobs", row.HasID, len(row.Jobs))
	}
	seed := int32(42)
	want := &jobs.Job{
		ID: "a-1", Submission: "direct", Campaign: "spring", Client: "acme", Prompt: " A cat ", System: " Be brief. ",
		Size: "2K", AspectRatio: "16:9", Seed: &seed, Variant: 1, References: []string{"gs://bkt/a.png", "gs://bkt/b, c.jpg"},
		Safety: []jobs.SafetySetting{{Category: "HARM_CATEGORY_HATE_SPEECH", Threshold: "BLOCK_LOW_AND_ABOVE"}, {Category: "HARM_CATEGORY_SEXUALLY_EXPLICIT", Threshold: "OFF"}},
		Mode:   jobs.Online, Deadline: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), Region: "global", Retention: "90d",
		Labels: map[string]string{"team": "red"}, Source: map[string]string{"SKU": " 007 "}, SourceFile: "prompts.csv", SourceRow: 2,
	}
	got := *row.Jobs[0]
	if got.Model.ID != "pro" {
		t.Errorf("model is %s", got.Model.ID)
	}
	got.Model, got.Deadline = nil, got.Deadline.UTC()
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	opts := options(t)
	opts.Variants = 2
	opts.Defaults = &schemas.Job{
		Submission: "s-1", Campaign: "summer", Client: "acme", Model: "pro", Size: "4K", AspectRatio: "4:3", Retention: "30d",
		Labels: map[string]string{"team": "red", "tier": "a"}, Source: map[string]string{"from": "cli"},
	}
	rows, rowErrors, err := read(t, "prompt,campaign,size,label.team,sku,variants\na,,,,,\nb,winter,1K,blue,7,1\nc\n", opts)
	if err != nil || len(rowErrors) > 0 || len(rows) != 3 {
		t.Fatalf("%d rows, row errors %v, error %v", len(rows), rowErrors, err)
	}
	defaults := "s-1|summer|acme|4K|4:3|30d|map[team:red tier:a]|map[from:cli]"
	for i, want := range []string{defaults, "s-1|winter|acme|1K|4:3|30d|map[team:blue tier:a]|map[from:cli sku:7]", defaults} {
		j := rows[i].Jobs[0]
		got := fmt.Sprintf("%s|%s|%s|%s|%s|%s|%v|%v", j.Submission, j.Campaign, j.Client, j.Size, j.AspectRatio, j.Retention, j.Labels, j.Source)
		if got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	if got := []int{len(rows[0].Jobs), len(rows[1].Jobs), len(rows[2].Jobs)}; !cmp.Equal(got, []int{2, 1, 2}) {
		t.Errorf("variants are %v, want 2, 1, 2", got)
	}
}

func TestVariants(t *testing.T) {
	t.Parallel()
	rows, rowErrors, err := read(t, "prompt,id,variants\na,x,3\na,,2\na,y,\n"+
		"a,"+strings.Repeat("z", 61)+",9\na,"+strings.Repeat("z", 62)+",9\n", options(t))
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows, error %v", len(rows), err)
	}
	var got []string
	for _, row := range rows[:3] {
		for _, j := range row.Jobs {
			got = append(got, fmt.Sprintf("%q %d %t", j.ID, j.Variant, row.HasID))
		}
	}
	want := []string{`"x-1" 1 true`, `"x-2" 2 true`, `"x-3" 3 true`, `"" 1 false`, `"" 2 false`, `"y" 1 true`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if last := rows[3].Jobs[8].ID; !jobs.ValidID(last) || len(last) != jobs.MaxNameBytes {
		t.Errorf("longest id is %q", last)
	}
	wantError := "prompts.csv row 6, column id: \"" + strings.Repeat("z", 60) + "…\" is too long for the ids of 9 variants, which end in -1 to -9; at most 61 characters are allowed"
	if len(rowErrors) != 1 || rowErrors[0].Error() != wantError {
		t.Errorf("row errors %v, want %s", rowErrors, wantError)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string][]string{
		"gs://bkt/a.png":                           {"gs://bkt/a.png"},
		"gs://bkt/a.png gs://bkt/b.png":            {"gs://bkt/a.png", "gs://bkt/b.png"},
		"gs://bkt/a.png;gs://bkt/b.png;":           {"gs://bkt/a.png", "gs://bkt/b.png"},
		"gs://bkt/a.png|\ngs://bkt/b.png\n":        {"gs://bkt/a.png", "gs://bkt/b.png"},
		"gs://bkt/a, b | c.png, gs://bkt/d;e.png ": {"gs://bkt/a, b | c.png", "gs://bkt/d;e.png"},
		"gs://bkt/xgs://bkt/a.png":                 {"gs://bkt/xgs://bkt/a.png"},
	} {
		got := one(t, "prompt\treferences\na\t\""+cell+"\"\n", options(t)).Jobs[0].References
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", cell, diff)
		}
	}
}

func TestAspectRatiosOfSpreadsheets(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{"16:09": "16:9", "16:09:00": "16:9", "01:01:00": "1:1", "1:01": "1:1", "4:03:00": "4:3", "04:03": "4:3", "16:9": "16:9"} {
		if got := one(t, "prompt,aspect_ratio\na,"+cell+"\n", options(t)).Jobs[0].AspectRatio; got != want {
			t.Errorf("%s is read as %s, want %s", cell, got, want)
		}
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	nine := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	for cell, want := range map[string]time.Time{
		"2026-12-01T09:00:00Z": nine, "2026-12-01T10:00:00+01:00": nine, "2026-12-01 09:00Z": nine, "2026-12-01 09:00:00 Z": nine,
		"2026-12-01T09:00Z": nine, "2026-12-01 07:30 -01:30": nine, "2026-12-01T09:00:00.5Z": nine.Add(time.Second / 2),
	} {
		if got := one(t, "prompt,deadline\na,"+cell+"\n", options(t)).Jobs[0].Deadline; !got.Equal(want) {
			t.Errorf("%s is read as %s, want %s", cell, got, want)
		}
	}
}

func TestSharesNoMemory(t *testing.T) {
	t.Parallel()
	rows, _, err := read(t, "prompt,note\n\"first \"\"row\"\"\",x\nsecond row,y\nthird row,z\n", options(t))
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, error %v", len(rows), err)
	}
	for i, want := range []string{`first "row"`, "second row", "third row"} {
		if rows[i].Jobs[0].Prompt != want || rows[i].Record[0] != want {
			t.Errorf("row %d became %q, %q", i, rows[i].Jobs[0].Prompt, rows[i].Record)
		}
	}
}
