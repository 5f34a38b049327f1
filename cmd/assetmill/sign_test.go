package main

import (
	"strings"
	"testing"
	"time"
)

func TestSignUsage(t *testing.T) {
	t.Parallel()
	const uri = "gs://assets/keep/spring/a.png"
	for want, args := range map[string][]string{
		"name images as gs://bucket/object, or a submission":  {},
		"name images as gs://bucket/object, or a submission ": {"--submission", "s-1", uri},
		`"https://example.com/a.png" is not`:                  {"https://example.com/a.png"},
		"--ttl is 13h0m0s; allowed: 1s to 12 h":               {"--ttl", "13h", uri},
		"--ttl is 0s":                                         {"--ttl", "0", uri},
	} {
		if code, _, errOut := runAlone(t, nil, "", append([]string{"sign"}, args...)...); code != exitUsage || !strings.Contains(errOut, strings.TrimSpace(want)) {
			t.Errorf("%v: code %d, %s", args, code, errOut)
		}
	}
}

// The local cloud has nothing to sign with, and needs nothing.
func TestPlainLinks(t *testing.T) {
	t.Parallel()
	env := map[string]string{"ASSETMILL_PROJECT": "mill", "ASSETMILL_BUCKET": "assets", "ASSETMILL_WORK_BUCKET": "work", "STORAGE_EMULATOR_HOST": "localhost:4443"}
	code, out, errOut := runAlone(t, env, "", "sign", "gs://assets/keep/spring/a b.png", "gs://assets/keep/spring/c.png")
	want := "http://localhost:4443/storage/v1/b/assets/o/keep%2Fspring%2Fa%20b.png?alt=media\nhttp://localhost:4443/storage/v1/b/assets/o/keep%2Fspring%2Fc.png?alt=media\n"
	if code != exitOK || out != want || !strings.Contains(errOut, "plain") {
		t.Errorf("code %d, %s, %s", code, out, errOut)
	}
	code, out, _ = runAlone(t, env, "", "sign", "--json", "gs://assets/a.png")
	if want := `{"asset_uri":"gs://assets/a.png","url":"http://localhost:4443/storage/v1/b/assets/o/a.png?alt=media"}` + "\n"; code != exitOK || out != want {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	rows := []signedAsset{
		{JobID: "j-1", AssetURI: "gs://a/1.png", URL: "https://x/1?a=1,2", Expires: time.Date(2026, 11, 23, 19, 0, 0, 0, time.FixedZone("", 3600)), SourceFile: `my "best".csv`, SourceRow: 2},
		{JobID: "j-2", AssetURI: "gs://a/2.png", URL: "https://x/2"},
	}
	for _, test := range []struct {
		json bool
		want string
	}{
		{false, "job_id,asset_uri,url,expires,source_file,source_row\n" +
			`j-1,gs://a/1.png,"https://x/1?a=1,2",2026-11-23T18:00:00Z,"my ""best"".csv",2` + "\nj-2,gs://a/2.png,https://x/2,,,\n"},
		{true, `{"job_id":"j-1","asset_uri":"gs://a/1.png","url":"https://x/1?a=1,2","expires":"2026-11-23T19:00:00+01:00","source_file":"my \"best\".csv","source_row":2}` + "\n" +
			`{"job_id":"j-2","asset_uri":"gs://a/2.png","url":"https://x/2"}` + "\n"},
	} {
		var out strings.Builder
		a := &app{streams: streams{out: &out}}
		w := a.manifestWriter(&signFlags{json: test.json})
		for _, row := range rows {
			if err := w.write(row); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil || out.String() != test.want {
			t.Errorf("%s, %v", out.String(), err)
		}
	}
}
