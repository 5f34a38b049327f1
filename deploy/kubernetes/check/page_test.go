package check

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// projectMark is the first line of a block whose commands need a project of the reader's.
	projectMark = "# needs your project"
	// pageTimeout bounds a run of the page: it compiles assetmill without anything in the cache, on a machine that does other things too.
	pageTimeout = 10 * time.Minute
)

// realTools are those that may be what they are. A command that is neither here nor played by a stand-in fails as one that is not installed.
var realTools = []string{"bash", "cat", "cp", "env", "git", "go", "grep", "ln", "mkdir", "mv", "rm", "sed", "sh", "sleep", "sort", "tail", "head", "awk", "dirname", "basename", "uname", "tr", "gcc", "cc", "ld", "as"}

// block is a fenced block of a page.
type block struct {
	line     int // of its first command
	language string
	text     string
	project  bool
}

// blocksOf takes a page apart.
func blocksOf(page string) (all []block, err error) {
	var open *block
	for i, line := range strings.Split(page, "\n") {
		fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case ok && open == nil:
			open = &block{line: i + 2, language: fence}
		case ok:
			open.project = strings.HasPrefix(open.text, projectMark+"\n")
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block has no end", open.line)
	}
	for _, b := range all {
		if b.language != "sh" && b.language != "text" {
			return nil, fmt.Errorf("line %d: a block is in %q, and only sh, which is run, and text, which is not, are known here", b.line, b.language)
		}
	}
	return all, nil
}

// scriptOf makes one script of a page's blocks, which share their variables as in a reader's shell. Stand-ins come before each block: for
// those that need a project, others than for those that need none.
func scriptOf(blocks []block) string {
	var b strings.Builder
	b.WriteString("set -eu -o pipefail\n")
	for _, block := range blocks {
		if block.language != "sh" {
			continue
		}
		kind := "offline"
		if block.project {
			kind = "project"
		}
		fmt.Fprintf(&b, "echo '== line %d' >&2\nexport STAND_INS=%s PATH=$STAND_INS_ROOT/%s:$STAND_INS_ROOT/real\n", block.line, kind, kind)
		if block.project {
			b.WriteString("if [ -e bin/assetmill ]; then mv bin/assetmill bin/assetmill.real; ln -s \"$STAND_INS_ROOT/project/assetmill\" bin/assetmill; fi\n")
		}
		b.WriteString(block.text)
		if block.project {
			b.WriteString("if [ -e bin/assetmill.real ]; then mv -f bin/assetmill.real bin/assetmill; fi\n")
		}
	}
	return b.String()
}

// shell is where a page is run: a copy of the repository, and the tools beside it.
type shell struct {
	copy  string // of the repository
	tools string
	state string // what stand-ins remember
}

// openShell copies the repository, as it is now, and makes the stand-ins.
func openShell(t *testing.T) shell {
	t.Helper()
	dir := t.TempDir()
	s := shell{filepath.Join(dir, "assetmill"), filepath.Join(dir, "tools"), filepath.Join(dir, "state")}
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for kind, names := range map[string][]string{"project": projectTools, "offline": offlineTools} {
		for _, name := range names {
			link(t, here, filepath.Join(s.tools, kind, name))
		}
	}
	for _, name := range realTools {
		if path, err := exec.LookPath(name); err == nil {
			link(t, path, filepath.Join(s.tools, "real", name))
		}
	}
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range repositoryFiles(t) {
		copyFile(t, filepath.Join(repository, name), filepath.Join(s.copy, name))
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false", "commit", "-qm", "x"}} {
		if out, err := exec.Command("git", append([]string{"-C", s.copy}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return s
}

// repositoryFiles are all files of the repository but those that git ignores. Where git does not know, as in an archive, all but what is built.
func repositoryFiles(t *testing.T) (names []string) {
	t.Helper()
	out, err := exec.Command("git", "-C", repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err == nil {
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	err = filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", ".local", "bin", ".terraform", "node_modules"}, d.Name()) {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(repository, path)
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// copyFile copies a file, unless it was deleted and git does not know yet.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if os.IsNotExist(err) || err == nil && info.IsDir() {
		return
	}
	text, readErr := os.ReadFile(from)
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}

// run runs a script and returns all that it printed.
func (s shell) run(t *testing.T, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pageTimeout)
	defer cancel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash, so the page is not run")
	}
	cmd := exec.CommandContext(ctx, bash, "-c", script)
	cmd.Dir = s.copy
	cmd.Env = append(os.Environ(), "STAND_INS_ROOT="+s.tools, "STAND_INS_STATE="+s.state, "STAND_INS_REPOSITORY="+s.copy, "STAND_INS_PATH="+os.Getenv("PATH"), "GOWORK=off")
	if testing.Short() {
		cmd.Env = append(cmd.Env, "STAND_INS_SHORT=1")
	} else {
		// All of assetmill is compiled without paths and without C, as `make image` does: so it is compiled once.
		cmd.Env = append(cmd.Env, "GOFLAGS=-trimpath", "CGO_ENABLED=0")
	}
	// Nothing of it is the tester's own cloud.
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool {
		return strings.HasPrefix(v, "ASSETMILL_") || strings.HasPrefix(v, "GOOGLE_") || strings.Contains(v, "_EMULATOR_HOST=")
	})
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// The page is followed as a newcomer would, with a cloud that is played. With -short the image is not built, which takes minutes the first time:
// make only says how it would.
func TestDeployPage(t *testing.T) {
	t.Parallel()
	page := source(t, "docs/deploy.md")
	blocks, err := blocksOf(page)
	if err != nil {
		t.Fatal(err)
	}
	s := openShell(t)
	out, err := s.run(t, scriptOf(blocks))
	if err != nil {
		t.Fatalf("docs/deploy.md: %v\n%s", err, lastLines(out, 60))
	}
	// What the steps are for has happened.
	image := `(?m)^image sha256:[0-9a-f]{64} in `
	if testing.Short() {
		image = `go -C deploy/image run [.] -arch 'amd64' -version '[0-9a-f]+' -revision`
	}
	for _, want := range []string{
		image, `Would publish up to 1 of 1 jobs from 1 rows`,
		`image: europe-west4-docker.pkg.dev/my-project-123/assetmill/assetmill:v1`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("nothing printed %s; the end:\n%s", want, lastLines(out, 40))
		}
	}
	done, err := os.ReadFile(filepath.Join(s.state, "done"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"terraform apply", "make push europe-west4-docker.pkg.dev/my-project-123/assetmill/assetmill:v1\n", "kubectl apply deploy/kubernetes/overlays/keda", "kubectl apply deploy/kubernetes/overlays/mine",
		"assetmill doctor", "assetmill submit", "assetmill query", "assetmill sign", "make push europe-west4-docker.pkg.dev/my-project-123/assetmill/assetmill:v2\n", "terraform destroy",
	} {
		if !strings.Contains(string(done), want) {
			t.Errorf("the page has no %q; it does\n%s", want, done)
		}
	}
	if n := strings.Count(string(done), "kubectl apply deploy/kubernetes/overlays/mine"); n != 2 {
		t.Errorf("the overlay is applied %d times, want 2: first, and for the upgrade", n)
	}
	lintGcloud(t, string(done))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// The test above must be able to fail.
func TestDeployPageFailsForWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := openShell(t)
	const names = "export PROJECT=my-project-123 REGION=europe-west4 TAG=v1\n"
	const mine = "cp -r deploy/kubernetes/overlays/example deploy/kubernetes/overlays/mine\n"
	for _, test := range []struct{ name, text, want string }{
		{"unmarked", "gcloud auth login", "gcloud needs a project"},
		{"unmarked in a line", "PROJECT=x terraform -chdir=deploy/terraform init", "terraform needs a project"},
		{"unknown command", projectMark + "\nhelm install keda", "helm"},
		{"unknown gcloud", projectMark + "\ngcloud compute instances list", "no gcloud compute instances list"},
		{"unknown flag of gcloud", projectMark + "\ngcloud services enable pubsub.googleapis.com --projct=x", "--projct"},
		{"another project", projectMark + "\n" + names + "gcloud services enable pubsub.googleapis.com --project=other", `project "other"`},
		{"unknown API", projectMark + "\n" + names + "gcloud services enable pubsup.googleapis.com --project=$PROJECT", "pubsup"},
		{"unknown account", projectMark + "\n" + names + "gcloud auth application-default login --impersonate-service-account=assetmill-boss@$PROJECT.iam.gserviceaccount.com", "boss"},
		{"unknown output", projectMark + "\nterraform -chdir=deploy/terraform output -raw environment", "environment"},
		{"unknown variable", projectMark + "\nterraform -chdir=deploy/terraform apply -var protected=false", "protected"},
		{"another folder", projectMark + "\nterraform -chdir=deploy/tf init", "deploy/tf"},
		{"settings that are none", "printf 'project_id = \"x\"\\nregion = \"y\"\\nzone = \"z\"\\n' > deploy/terraform/terraform.tfvars\n```\n\n```sh\n" + projectMark + "\nterraform -chdir=deploy/terraform apply", "zone"},
		{"parts of settings that are none", "printf 'project_id = \"x\"\\nregion = \"y\"\\nalerts = {\\n  usd_an_hour = 1\\n}\\n' > deploy/terraform/terraform.tfvars\n```\n\n```sh\n" + projectMark + "\nterraform -chdir=deploy/terraform apply", "usd_an_hour"},
		{"unknown overlay", "kubectl kustomize deploy/kubernetes/overlays/yours", "yours"},
		{"apply without a project", "kubectl apply -k deploy/kubernetes/overlays/example", "needs a project"},
		{"values of the example", mine + "```\n\n```sh\n" + projectMark + "\n" + names + "kubectl apply -k deploy/kubernetes/overlays/mine", "example-project"},
		{"nothing applied", projectMark + "\nkubectl -n assetmill rollout status deployment/worker --timeout=1m", "deployment/worker"},
		{"unknown target", "make images", "images"},
		{"unknown registry", projectMark + "\n" + names + "make image IMAGE=docker.io/x/assetmill:v1 PUSH=1", "docker.io"},
	} {
		blocks, err := blocksOf("```sh\n" + test.text + "\n```\n")
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		out, err := s.run(t, scriptOf(blocks))
		if err == nil || !strings.Contains(lastLines(out, 3), test.want) {
			t.Errorf("%s: %v\n%s\nwant an error with %q", test.name, err, out, test.want)
		}
		if err := os.RemoveAll(filepath.Join(s.copy, "deploy/kubernetes/overlays/mine")); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range []string{"```\ngcloud auth login\n```\n", "```bash\nls\n```\n", "```sh\nls\n"} {
		if _, err := blocksOf(page); err == nil {
			t.Errorf("no error for %q", page)
		}
	}
}

// Numbers that the page took from elsewhere are the same there.
func TestDeployPageCountsTheAlerts(t *testing.T) {
	t.Parallel()
	always, limits := 0, 0
	for _, alert := range readAlertQueries(t) {
		if strings.Contains(alert, "USD_PER_") {
			limits++
		} else {
			always++
		}
	}
	tests := source(t, "deploy/terraform/tests/cluster.tftest.hcl")
	_, queues, _ := strings.Cut(tests, "condition = toset(keys(google_monitoring_alert_policy.this)) == toset([")
	queues, _, _ = strings.Cut(queues, "])")
	always += strings.Count(queues, `"`) / 2
	if want := fmt.Sprintf("| %d alerts, %d with both limits", always, always+limits); !strings.Contains(source(t, "docs/deploy.md"), want) {
		t.Errorf("the page does not say %q", want)
	}
}

// The decision's figures are those of the simulation, which another test holds docs/autoscaling.md to.
func TestDecisionHasTheSimulationsFigures(t *testing.T) {
	t.Parallel()
	decision, rows := source(t, "docs/decisions/0014-where-workers-run.md"), map[string][]string{}
	for line := range strings.Lines(source(t, "docs/autoscaling.md")) {
		if cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"); len(cells) == 11 {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows[cells[0]] = cells
		}
	}
	pool, gate, none, throttled := rows["grace of 10 s: a worker pool"], rows["as deployed"], rows["backlog without the gate"], rows["gate by throttled calls alone"]
	if pool == nil || gate == nil || none == nil || throttled == nil {
		t.Fatalf("docs/autoscaling.md has only %v", rows)
	}
	number := func(text string) (n float64) {
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	thousands := func(n float64) string {
		if n < 1000 {
			return fmt.Sprintf("%.0f", n)
		}
		return fmt.Sprintf("%d,%03d", int(n)/1000, int(n)%1000)
	}
	for _, want := range []string{
		fmt.Sprintf("has %s stops", pool[6]),
		fmt.Sprintf("%s calls cut off, $%.0f, for a fleet that costs $%.0f", thousands(number(pool[8])), number(pool[10]), number(pool[5])),
		fmt.Sprintf("saves %.0f of %.0f worker hours and costs the launch %.0f of %.0f minutes", number(none[4])-number(gate[4]), number(none[4]), number(gate[1])-number(none[1]), number(none[1])),
	} {
		if !strings.Contains(decision, want) {
			t.Errorf("docs/decisions/0014 does not say %q", want)
		}
	}
	if saved := number(none[4]) - number(throttled[4]); saved != 1 || !strings.Contains(decision, "by throttling\nalone it saves one") {
		t.Errorf("by throttling alone it saves %.0f hours", saved)
	}
}

func TestDeployPageLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	links := regexp.MustCompile(`\]\(([^)#]*)#?([a-z0-9-]*)\)`).FindAllStringSubmatch(source(t, "docs/deploy.md"), -1)
	if len(links) < 10 {
		t.Errorf("only %d links: the pattern of this test is wrong", len(links))
	}
	for _, m := range links {
		file := filepath.Join("docs", m[1])
		if m[1] == "" {
			file = "docs/deploy.md"
		}
		text, err := os.ReadFile(filepath.Join(repository, file))
		if err != nil {
			t.Error(err)
			continue
		}
		if m[2] != "" && !regexp.MustCompile(`(?mi)^#+ `+strings.ReplaceAll(m[2], "-", "[ -]")+`$`).Match(text) {
			t.Errorf("%s has no heading %s", file, m[2])
		}
	}
}
