package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// runAlone runs a command line with an environment of its own and nobody at the terminal.
func runAlone(t *testing.T, env map[string]string, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr strings.Builder
	code = run(t.Context(), args, streams{strings.NewReader(in), &stdout, &stderr}, func(name string) string { return env[name] }, make(chan struct{}))
	return code, stdout.String(), stderr.String()
}

func TestDoctorWithoutSettings(t *testing.T) {
	t.Parallel()
	code, out, _ := runAlone(t, nil, "", "doctor")
	if code != exitUsage || !strings.Contains(out, "settings.environment") || !strings.Contains(out, "set ASSETMILL_PROJECT, ASSETMILL_BUCKET, ASSETMILL_WORK_BUCKET") {
		t.Errorf("code %d, %s", code, out)
	}
	code, out, _ = runAlone(t, map[string]string{"ASSETMILL_PROJECT": "mill"}, "", "doctor", "--json")
	var got struct {
		Project  string
		Errors   int
		Findings []struct{ ID, Severity string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != exitUsage || got.Project != "mill" || got.Errors != 1 || len(got.Findings) != 1 || got.Findings[0].ID != "settings.environment" || got.Findings[0].Severity != "error" {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestDoctorFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`role "boss" is unknown; allowed: worker, submitter, console`: {"--as", "boss"},
		"--yes goes with --fix": {"--yes"},
		"--fix asks before it changes anything, and nobody is there":     {"--fix"},
		"--fix asks before it changes anything, and nobody is there to ": {"--fix", "--json"},
		"doctor needs no arguments":                                      {"now"},
	} {
		if code, _, errOut := runAlone(t, nil, "y\n", append([]string{"doctor"}, args...)...); code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%v: code %d, %s", args, code, errOut)
		}
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, "YES \n": true, "n\n": false, "": false, "\n": false, "yesterday\n": false} {
		var out strings.Builder
		a := &app{streams: streams{in: strings.NewReader(answer), out: &out}}
		if got := a.confirm("Sure? "); got != want || out.String() != "Sure? " {
			t.Errorf("%q means %v", answer, got)
		}
	}
}
