package doctor_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/assetmill/assetmill/internal/doctor"
)

// fixes are the commands of findings, each once. It is safe for concurrent use.
type fixes struct {
	mu       sync.Mutex
	commands map[string]bool
}

// add takes the fixes of findings, whose Terraform hints it holds to deploy/terraform.
func (s *fixes) add(t *testing.T, all []doctor.Finding) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range all {
		checkTerraform(t, f.Fix.Terraform)
		for text := f.Fix.Command; text != ""; {
			command := text
			if m := separator.FindStringSubmatchIndex(text); m != nil {
				command, text = text[:m[2]], text[m[3]:]
			} else {
				text = ""
			}
			s.commands[command] = true
		}
	}
}

// lint has Google's own tools look at the commands, where they are installed: whether there is such a command with such flags.
func (s *fixes) lint(t *testing.T) {
	if t.Failed() {
		return
	}
	var all []map[string]string
	for _, c := range slices.Sorted(maps.Keys(s.commands)) {
		// The checker drops an equals sign that nothing follows; gcloud itself does not.
		if strings.HasPrefix(c, "gcloud ") && !strings.Contains(c, "= ") {
			all = append(all, map[string]string{"command_string": c, "id": c})
		}
	}
	if len(all) < 30 {
		t.Errorf("only %d commands of gcloud were collected", len(all))
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		t.Log("gcloud is not installed: the form of its commands was not checked")
		return
	}
	dir := t.TempDir()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "commands.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcloud, "meta", "lint-gcloud-commands", "--commands-file="+file)
	cmd.Env = append(os.Environ(), "CLOUDSDK_CONFIG="+dir, "CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=1")
	out, err := cmd.Output()
	var results []struct {
		Command string `json:"command_string"`
		Error   string `json:"error_message"`
		Success bool   `json:"success"`
	}
	if json.Unmarshal(out, &results) != nil || len(results) != len(all) {
		t.Logf("this gcloud can't check commands (%v), so their form was not checked", err)
		return
	}
	for _, r := range results {
		if !r.Success {
			t.Errorf("gcloud refuses %s: %s", r.Command, r.Error)
		}
	}
}

var (
	tfResource = regexp.MustCompile(`^(google_[a-z_]+)[.]([a-z_]+)(\["[^"]+"\])?$`)
	tfDeclared = regexp.MustCompile(`(?m)^(resource|variable|output) "([a-z_]+)"(?: "([a-z_]+)")?`)
)

// checkTerraform checks that what a hint names is in deploy/terraform.
func checkTerraform(t *testing.T, hint string) {
	t.Helper()
	if hint == "" {
		return
	}
	want := ""
	if m := tfResource.FindStringSubmatch(hint); m != nil {
		want = "resource " + m[1] + " " + m[2]
	} else if kind, name, ok := strings.Cut(hint, " "); ok {
		name, _, _ = strings.Cut(name, ".")
		want = kind + " " + name
	}
	if !slices.Contains(terraformNames(t), want) {
		t.Errorf("deploy/terraform has no %s (%q)", want, hint)
	}
}

var terraformNames = func() func(*testing.T) []string {
	var once sync.Once
	var names []string
	return func(t *testing.T) []string {
		once.Do(func() {
			files, err := filepath.Glob("../../deploy/terraform/*.tf")
			if err != nil || len(files) == 0 {
				t.Errorf("no Terraform: %v", err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Error(err)
				}
				for _, m := range tfDeclared.FindAllStringSubmatch(string(text), -1) {
					names = append(names, strings.TrimSpace(m[1]+" "+m[2]+" "+m[3]))
				}
			}
		})
		return names
	}
}()

// The grants that the tests call healthy are those that Terraform's own tests hold Terraform to.
func TestGrantsAreTerraforms(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/terraform/tests/access.tftest.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for name, member := range map[string]string{
		"worker": workerMember, "submitter": "serviceAccount:" + submitterAccount, "console": "serviceAccount:" + consoleAccount,
	} {
		_, list, ok := strings.Cut(string(text), "output.grants."+name+" == tolist([")
		list, _, closed := strings.Cut(list, "])")
		if !ok || !closed {
			t.Fatalf("there is no list of the %s's grants", name)
		}
		var theirs []string
		for _, m := range regexp.MustCompile(`"([^"]+ on [^"]+)"`).FindAllStringSubmatch(list, -1) {
			theirs = append(theirs, strings.Replace(m[1], "on account console", "on account "+consoleAccount, 1))
		}
		// The tests' deployment has a further region and references, which Terraform's has not.
		ours := slices.DeleteFunc(slices.Clone(terraformGrants[member]), func(g string) bool {
			return strings.Contains(g, extraBucket) || strings.Contains(g, brandBucket)
		})
		slices.Sort(theirs)
		slices.Sort(ours)
		if !slices.Equal(theirs, ours) {
			t.Errorf("the %s's grants are, in Terraform,\n%s\nand here\n%s", name, strings.Join(theirs, "\n"), strings.Join(ours, "\n"))
		}
	}
}

// Each check that can find something bad does so in a test.
func TestEveryCheckFindsSomething(t *testing.T) {
	t.Parallel()
	found := map[string]doctor.Severity{}
	for _, d := range defects {
		found[d.id] = max(found[d.id], d.severity)
	}
	// These have tests of their own.
	for _, id := range []string{"settings.environment", "settings.catalogue", "settings.lanes", "credentials.missing", "service.unreachable", "lane.denied"} {
		found[id] = doctor.Error
	}
	found["lane.unchecked"] = doctor.Warning
	mends := map[string]bool{}
	for _, d := range defects {
		mends[d.id] = mends[d.id] || d.mends
	}
	for _, c := range doctor.Checks() {
		if c.Worst > doctor.Info && found[c.ID] != c.Worst {
			t.Errorf("%s finds an %s at worst, and a test of it %s", c.ID, c.Worst, found[c.ID])
		}
		if c.Mends != mends[c.ID] {
			t.Errorf("%s: doctor --fix mends it: %v, and in a test: %v", c.ID, c.Mends, mends[c.ID])
		}
		delete(found, c.ID)
	}
	if len(found) > 0 {
		t.Errorf("unknown checks: %v", found)
	}
}
