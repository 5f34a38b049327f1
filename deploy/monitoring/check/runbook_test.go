package check

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// terraformAlerts are those that deploy/terraform makes itself, by their pages: two are made for each subscription.
var terraformAlerts = []string{"dead-letters", "oldest-job", "expiring", "poison"}

func TestEachAlertHasItsPage(t *testing.T) {
	t.Parallel()
	wanted := append(slices.Collect(maps.Keys(readAlerts(t))), terraformAlerts...)
	for _, name := range terraformAlerts {
		if text := source(t, "deploy/terraform/alerts.tf"); !strings.Contains(text, "      "+name+" = {") && !strings.Contains(text, "-"+name+`" =>`) {
			t.Errorf("deploy/terraform has no alert %s", name)
		}
	}
	files, err := filepath.Glob(filepath.Join(repository, "docs/runbook/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index := source(t, "docs/runbook/README.md")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if name == "README" {
			continue
		}
		if !slices.Contains(wanted, name) {
			t.Errorf("docs/runbook/%s.md is the page of no alert", name)
		}
		if !strings.Contains(index, "("+name+".md)") {
			t.Errorf("docs/runbook/README.md does not list %s", name)
		}
	}
	for _, name := range wanted {
		text, err := os.ReadFile(filepath.Join(repository, "docs/runbook", name+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		var headings []string
		for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(text), -1) {
			headings = append(headings, m[1])
		}
		if !slices.Equal(headings, []string{"What it means", "What to look at", "What to do"}) {
			t.Errorf("docs/runbook/%s.md has the headings %q", name, headings)
		}
	}
}

// A page is found from its alert.
func TestAlertsLinkToTheirPages(t *testing.T) {
	t.Parallel()
	text := source(t, "deploy/monitoring/alerts.tf")
	for _, link := range []string{`[What to do](${var.runbook}/${each.key}.md)`, `url          = "${var.runbook}/${each.key}.md"`} {
		if !strings.Contains(text, link) {
			t.Errorf("alerts.tf has no %s", link)
		}
	}
	for _, file := range []string{"deploy/monitoring/variables.tf", "deploy/terraform/variables.tf"} {
		if !strings.Contains(source(t, file), `"https://github.com/assetmill/assetmill/blob/main/docs/runbook"`) {
			t.Errorf("%s: links lead elsewhere", file)
		}
	}
	queues := source(t, "deploy/terraform/alerts.tf")
	if !strings.Contains(queues, `url          = "${var.alerts.runbook}/${each.value.page}.md"`) {
		t.Error("alerts on queues have no link")
	}
	var linked []string
	for _, m := range regexp.MustCompile(`(?m)^ +page += "([a-z-]+)"$`).FindAllStringSubmatch(queues, -1) {
		linked = append(linked, m[1])
	}
	slices.Sort(linked)
	if want := slices.Sorted(slices.Values(terraformAlerts)); !slices.Equal(linked, want) {
		t.Errorf("alerts on queues link to %v, want %v", linked, want)
	}
}

// pages are the runbook's, by name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, "docs/runbook/*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no runbook: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[filepath.Base(file)] = source(t, "docs/runbook/"+filepath.Base(file))
	}
	return all
}

// isCommand reports whether assetmill has a command, such as `query` or `dead list`: the code then has its name as a word of its own.
func isCommand(t *testing.T, command string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, "cmd/assetmill/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	code, name := "", command
	for _, file := range files {
		if under, ok := strings.CutPrefix(command, "dead "); ok {
			name = under
			if filepath.Base(file) != "dead.go" {
				continue
			}
		}
		if !strings.HasSuffix(file, "_test.go") {
			code += source(t, "cmd/assetmill/"+filepath.Base(file))
		}
	}
	return regexp.MustCompile(`"` + name + `[" ]`).MatchString(code)
}

func TestRunbookUsesCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	if !isCommand(t, "query") || !isCommand(t, "dead list") || isCommand(t, "explode") || isCommand(t, "dead query") {
		t.Fatal("the pattern of this test is wrong")
	}
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^|`)assetmill ((?:dead )?[a-z]+)").FindAllStringSubmatch(text, -1) {
			if !isCommand(t, m[1]) {
				t.Errorf("%s: assetmill has no command %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile("(?m)assetmill dead (?:show|replay|drop)(.{0,8})").FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(m[1], " --") {
				t.Errorf("%s: %s wants to be told which", name, m[0])
			}
		}
	}
}

func TestRunbookAsksViewsThatThereAre(t *testing.T) {
	t.Parallel()
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile(`FROM ([a-z_]+)`).FindAllStringSubmatch(text, -1) {
			if found, err := filepath.Glob(filepath.Join(repository, "schemas/views/*_"+m[1]+".sql")); err != nil || len(found) != 1 {
				t.Errorf("%s: there is no view %s", name, m[1])
			}
		}
	}
}

// What kubectl is asked about has the names of deploy/kubernetes.
func TestRunbookNamesWhatIsInTheCluster(t *testing.T) {
	t.Parallel()
	manifests := ""
	for _, file := range []string{"namespace", "worker", "metrics", "scaling"} {
		manifests += source(t, "deploy/kubernetes/base/"+file+".yaml")
	}
	for _, name := range []string{"kind: Deployment\nmetadata:\n  name: worker\n", "kind: ScaledObject\nmetadata:\n  name: worker\n", "kind: PodMonitoring\nmetadata:\n  name: worker\n"} {
		if !strings.Contains(manifests, name) {
			t.Errorf("the manifests have no %q", name)
		}
	}
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile("kubectl ([^`\n]*)").FindAllStringSubmatch(text, -1) {
			inNamespace := strings.HasPrefix(m[1], "-n assetmill ") || strings.HasPrefix(m[1], "-n keda ")
			if !inNamespace {
				t.Errorf("%s: kubectl %s: in which namespace?", name, m[1])
			}
			for _, named := range regexp.MustCompile(`(deployment/|scaledobject |podmonitoring |hpa keda-hpa-)([a-z-]+)`).FindAllStringSubmatch(m[1], -1) {
				if named[2] != "worker" && named[2] != "keda-operator" {
					t.Errorf("%s: there is no %s%s", name, named[1], named[2])
				}
			}
		}
	}
}

// Links between the pages, and to other documents, lead somewhere.
func TestRunbookLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)#]*)(#[a-z-]+)?\)`).FindAllStringSubmatch(text, -1) {
			target, anchor := m[1], strings.TrimPrefix(m[2], "#")
			if strings.HasPrefix(target, "https://") {
				continue
			}
			to := name
			if target != "" {
				to = target
			}
			linked, err := os.ReadFile(filepath.Join(repository, "docs/runbook", to))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			heading := fmt.Sprintf(`(?mi)^#+ %s$`, strings.ReplaceAll(anchor, "-", "[ -]"))
			if anchor != "" && !regexp.MustCompile(heading).Match(linked) {
				t.Errorf("%s: %s has no heading %s", name, to, anchor)
			}
		}
	}
}
