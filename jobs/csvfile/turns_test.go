package csvfile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	const header = "prompt,turn_1_prompt,Turn 1 Image,turn-02-image,TURN2PROMPT\n"
	for cells, want := range map[string][]jobs.Turn{
		"a,,,,":                      nil,
		"a":                          nil,
		"a, one , gs://bkt/1.png ,,": {{Prompt: " one ", Image: "gs://bkt/1.png"}},
		"a,one,gs://bkt/1.png,gs://bkt/2.webp,two": {{Prompt: "one", Image: "gs://bkt/1.png"}, {Prompt: "two", Image: "gs://bkt/2.webp"}},
	} {
		got := one(t, header+cells+"\n", options(t)).Jobs[0].Turns
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", cells, diff)
		}
	}
}

// What is wrong with a turn is said with its row and its column.
func TestRowErrorsOfTurns(t *testing.T) {
	t.Parallel()
	const missing = "is missing: a turn is a prompt and its image, and turns are numbered without gaps"
	const header = "prompt,turn_1_prompt,Image of nothing,Turn_1_Image,turn_2_prompt,turn_2_image\n"
	for cells, want := range map[string]string{
		"a,one,,,,":                  "column Turn_1_Image " + missing,
		"a,,,gs://bkt/1.png,,":       "column turn_1_prompt " + missing,
		"a,,,,two,gs://bkt/2.png":    "column turn_1_prompt " + missing + "; column Turn_1_Image " + missing,
		"a,one,,1.png,,":             `column Turn_1_Image: "1.png" is not a Cloud Storage object; write gs://bucket/object`,
		"a,one,,gs://bkt/1.gif,,":    `column Turn_1_Image: "gs://bkt/1.gif" ends in no image type that the model reads; allowed: .png, .jpg, .jpeg, .webp, .heic, .heif`,
		"a,o\xe9e,,gs://bkt/1.png,,": `column turn_1_prompt: "o�e" is not UTF-8: it holds the byte 0xE9 (é in Windows-1252); save the file as "CSV UTF-8"`,
		"a," + strings.Repeat("x", 32_769) + ",,gs://bkt/1.png,,": `column turn_1_prompt: "` + strings.Repeat("x", 60) + `…" is 32769 bytes long; at most 32768 are allowed`,
	} {
		rows, rowErrors, err := read(t, header+cells+"\n", options(t))
		if err != nil || len(rows) > 0 || len(rowErrors) != 1 {
			t.Errorf("%.40s: %d rows, row errors %v, error %v; want one row error", cells, len(rows), rowErrors, err)
			continue
		}
		if diff := cmp.Diff("prompts.csv row 2, "+want, rowErrors[0].Error()); diff != "" {
			t.Errorf("%.40s: %s", cells, diff)
		}
	}
	// The test catalogue's model takes two images in all.
	_, rowErrors, _ := read(t, "prompt,references,turn_1_prompt,turn_1_image\na,gs://bkt/a.png gs://bkt/b.png,one,gs://bkt/1.png\n", options(t))
	if want := "prompts.csv row 2, column references and the images of turns are 3; pro takes at most 2"; len(rowErrors) != 1 || rowErrors[0].Error() != want {
		t.Errorf("row errors %v, want %s", rowErrors, want)
	}
}

func TestHeadersOfTurns(t *testing.T) {
	t.Parallel()
	near := func(name, meant string) string {
		return "column " + name + ` is nearly the known column "` + meant + `"; rename it to that, or to "source.` + name + `" if it is meant as it is`
	}
	for header, want := range map[string]string{
		"turn_1_prompt": "column turn_1_prompt needs the column turn_1_image: a turn is a prompt and the image that it should have led to",
		"turn_2_image,turn_1_prompt,turn_1_image":  "column turn_2_image needs the column turn_2_prompt: a turn is a prompt and the image that it should have led to",
		"turn_2_prompt,turn_2_image":               "column turn_2_prompt follows no turn_1_prompt: turns are numbered from 1 without gaps; column turn_2_image follows no turn_1_prompt: turns are numbered from 1 without gaps",
		"turn_15_prompt,turn_15_image":             "column turn_15_prompt is of turn 15; at most 14 turns are allowed; column turn_15_image is of turn 15; at most 14 turns are allowed",
		"turn_1_prompt,turn_1_image,Turn 01 image": `column Turn 01 image stands twice in the header, first as "turn_1_image"; remove or rename one`,
		"turn_prompt_3":                            near("turn_prompt_3", "turn_3_prompt"),
		"turns_2_images":                           near("turns_2_images", "turn_2_image"),
		"turn_0_prompt":                            near("turn_0_prompt", "turn_1_prompt"),
		"Turns":                                    near("Turns", "turn_1_prompt"),
	} {
		_, _, err := read(t, "prompt,"+header+"\na\n", options(t))
		var file *csvfile.FileError
		if !errors.As(err, &file) {
			t.Errorf("%s: error is %v, want a file error", header, err)
			continue
		}
		if diff := cmp.Diff("prompts.csv row 1, "+want, err.Error()); diff != "" {
			t.Errorf("%s: %s", header, diff)
		}
	}
	for _, header := range []string{"turnover", "Turnaround 2026", "image", "image_1", "Return"} {
		if got := one(t, "prompt,"+header+"\na,b\n", options(t)).Jobs[0].Source[header]; got != "b" {
			t.Errorf("%s: source is %q, want b", header, got)
		}
	}
}
