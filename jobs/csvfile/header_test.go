package csvfile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs/csvfile"
)

func TestHeaderNames(t *testing.T) {
	t.Parallel()
	row := one(t, "\ufeff PROMPT ,Aspect Ratio,\"re\ngion\",Label.Cost-Center,LABEL.My Team, Notes ,source.Code,sku,,headline\n"+
		"a,16:9,global,cc-1,red,\" n, \",c,,,h\n", options(t))
	job := row.Jobs[0]
	if job.AspectRatio != "16:9" {
		t.Errorf("aspect ratio is %q", job.AspectRatio)
	}
	if diff := cmp.Diff(map[string]string{"cost-center": "cc-1", "my_team": "red"}, job.Labels); diff != "" {
		t.Errorf("labels: %s", diff)
	}
	if diff := cmp.Diff(map[string]string{"Notes": " n, ", "Code": "c", "headline": "h"}, job.Source); diff != "" {
		t.Errorf("source: %s", diff)
	}
	for _, name := range []string{"aspect_ratio", "aspect-ratio", "AspectRatio", "ASPECT  RATIO"} {
		if got := one(t, "prompt,"+name+"\na,4:3\n", options(t)).Jobs[0].AspectRatio; got != "4:3" {
			t.Errorf("%s: aspect ratio is %q", name, got)
		}
	}
}

func TestNearMisses(t *testing.T) {
	t.Parallel()
	for header, meant := range map[string]string{
		"promt": "prompt", "Prompts": "prompt", "prmopt": "prompt", "prompt 2": "prompt", "aspct_ratio": "aspect_ratio", "Aspect Ration": "aspect_ratio",
		"refrence": "references", "labels.team": "label.team", "Label:Cost-Center": "label.cost-center", "labels": "label.NAME", "modle": "model",
		"code": "mode", "variant": "variants", "job_id": "id", "Dead-lines": "deadline",
	} {
		_, _, err := read(t, "prompt,"+header+"\na,b\n", options(t))
		want := fmt.Sprintf("prompts.csv row 1, column %s is nearly the known column %q; rename it to that, or to %q if it is meant as it is", header, meant, "source."+header)
		if err == nil || err.Error() != want {
			t.Errorf("%s: error is\n%v, want\n%s", header, err, want)
		}
		if got := one(t, "prompt,source."+header+"\na,b\n", options(t)).Jobs[0].Source[header]; got != "b" {
			t.Errorf("source.%s: source is %q, want b", header, got)
		}
	}
	for _, header := range []string{"SKU", "Note", "Category", "Challenge", "Title", "uid", "ids", "Style", "Name", "Kampagne", "提示", "headline", "prompt_hash", "x.y"} {
		if got := one(t, "prompt,"+header+"\na,b\n", options(t)).Jobs[0].Source[header]; got != "b" {
			t.Errorf("%s: source is %q, want b", header, got)
		}
	}
}

func TestBadHeaders(t *testing.T) {
	t.Parallel()
	many := func(prefix string, n int) string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("%s%d", prefix, i))
		}
		return strings.Join(names, ",")
	}
	for name, test := range map[string]struct {
		header string
		want   []string
	}{
		"everything wrong is reported": {"promt,size,Size,modle", []string{"promt", "Size", "modle"}},
		"a name twice":                 {"prompt,Prompt ", []string{"Prompt"}},
		"a source key twice":           {"prompt,code x,source.code x", []string{"source.code x"}},
		"a label twice":                {"prompt,label.a,Label.A", []string{"Label.A"}},
		"a label's name":               {"prompt,label.a/b,label.9", []string{"label.9", "label.a/b"}},
		"a long source key":            {"prompt," + strings.Repeat("k", 129), []string{strings.Repeat("k", 60) + "…"}},
		"too many source columns":      {"prompt," + many("col", 65), []string{"source"}},
		"too many labels":              {"prompt," + many("label.a", 33), []string{"labels"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := read(t, test.header+"\na\n", options(t))
			var file *csvfile.FileError
			if !errors.As(err, &file) {
				t.Fatalf("error is %v, want a file error", err)
			}
			var columns []string
			for _, p := range file.Problems {
				columns = append(columns, p.Column)
			}
			if diff := cmp.Diff(test.want, columns); diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}
