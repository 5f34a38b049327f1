package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// The test binary plays the tools of docs/deploy.md under their names. What they may be asked is written down here or read off the repository;
// anything else is an error, so that a command of the page can't be made up.
var (
	projectTools = []string{"gcloud", "terraform", "kubectl", "make", "assetmill"}
	offlineTools = []string{"gcloud", "terraform", "kubectl", "make", "bq"}
)

func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if root := os.Getenv("STAND_INS_REPOSITORY"); root != "" && slices.Contains(append(projectTools, offlineTools...), name) {
		s := standIn{repository: root, state: os.Getenv("STAND_INS_STATE"), project: os.Getenv("STAND_INS") == "project"}
		if err := s.play(name, os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// standIn plays a tool.
type standIn struct {
	repository, state string
	project           bool // in a block that may use one
}

func (s standIn) play(name string, args []string) error {
	switch {
	case name == "make":
		return s.make(args)
	case name == "kubectl" && len(args) == 2 && args[0] == "kustomize":
		objects, err := s.render(args[1])
		fmt.Printf("%s", bytes.Join(objects, []byte("---\n")))
		return err
	case !s.project:
		return fmt.Errorf("%s needs a project: the block has to begin with %q", name, projectMark)
	case name == "gcloud":
		return s.gcloud(args)
	case name == "terraform":
		return s.terraform(args)
	case name == "kubectl":
		return s.kubectl(args)
	default:
		return s.assetmill(args)
	}
}

// did remembers what was done.
func (s standIn) did(what string) error {
	f, err := os.OpenFile(filepath.Join(s.state, "done"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, what)
	return errors.Join(err, f.Close())
}

func (s standIn) file(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(s.repository, name))
	return string(text), err
}

// split parts words into arguments and flags with their values.
func split(words []string) (args []string, flags map[string]string) {
	flags = map[string]string{}
	for _, w := range words {
		if !strings.HasPrefix(w, "-") || w == "-" {
			args = append(args, w)
			continue
		}
		name, value, _ := strings.Cut(w, "=")
		flags[name] = value
	}
	return args, flags
}

// onlyFlags returns an error if there are other flags than those.
func onlyFlags(flags map[string]string, allowed ...string) error {
	for name := range flags {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("there is no flag %s; allowed: %v", name, allowed)
		}
	}
	return nil
}

func (s standIn) make(args []string) error {
	real, err := findTool("make")
	if err != nil {
		return err
	}
	if !s.project {
		if os.Getenv("STAND_INS_SHORT") != "" && slices.Equal(args, []string{"image"}) {
			args = append(args, "-n")
		}
		cmd := exec.Command(real, args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
	// Only what it would run.
	out, err := exec.Command(real, append([]string{"-n"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	image := regexp.MustCompile(`(?s)deploy/image run .*-image '([^']+)'\s+-push`).FindSubmatch(out)
	if image == nil {
		return fmt.Errorf("%v pushes no image:\n%s", args, out)
	}
	// The registry's name is that of Terraform's output `images`.
	if prefix := os.Getenv("REGION") + "-docker.pkg.dev/" + os.Getenv("PROJECT") + "/assetmill/"; !strings.HasPrefix(string(image[1]), prefix) {
		return fmt.Errorf("%s is not in the registry %s", image[1], prefix)
	}
	return s.did("make push " + string(image[1]))
}

// findTool finds a tool of this machine, past its stand-in.
func findTool(name string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("STAND_INS_PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found", name)
}

// gcloudFlags are the commands of gcloud that pages may use, with their flags beside --project.
var gcloudFlags = map[string][]string{
	"auth login":                         nil,
	"auth application-default login":     {"--impersonate-service-account"},
	"services enable":                    nil,
	"beta services identity create":      {"--service"},
	"container clusters get-credentials": {"--dns-endpoint", "--location"},
	"storage rm":                         {"--recursive"},
}

func (s standIn) gcloud(words []string) error {
	args, flags := split(words)
	command := ""
	for name := range gcloudFlags {
		if strings.HasPrefix(strings.Join(args, " ")+" ", name+" ") {
			command = name
		}
	}
	if command == "" {
		return fmt.Errorf("the test knows no gcloud %s", strings.Join(args, " "))
	}
	if err := onlyFlags(flags, append(gcloudFlags[command], "--project")...); err != nil {
		return err
	}
	if p, ok := flags["--project"]; ok && p != os.Getenv("PROJECT") {
		return fmt.Errorf("project %q is not $PROJECT", p)
	}
	if err := s.gcloudNames(command, args[len(strings.Fields(command)):], flags); err != nil {
		return err
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + w + "'"
	}
	return s.did("gcloud " + strings.Join(quoted, " "))
}

// gcloudNames holds names to those that Terraform has.
func (s standIn) gcloudNames(command string, args []string, flags map[string]string) error {
	var apis []string
	switch command {
	case "services enable":
		apis = args
	case "beta services identity create":
		apis = []string{flags["--service"]}
	case "auth application-default login":
		account, given := flags["--impersonate-service-account"]
		if !given {
			return nil
		}
		return s.names("deploy/terraform/service-accounts.tf", `(?m)^    %s += "`, strings.TrimSuffix(strings.TrimPrefix(account, "assetmill-"), "@"+os.Getenv("PROJECT")+".iam.gserviceaccount.com"))
	case "container clusters get-credentials":
		return s.names("deploy/terraform/variables.tf", `name += optional\(string, "%s"\)`, strings.Join(args, " "))
	}
	for _, api := range apis {
		if err := s.names("deploy/terraform/project.tf", `(?m)^    %s += `, strings.TrimSuffix(api, ".googleapis.com")); err != nil {
			return err
		}
	}
	return nil
}

// names returns an error unless a file has a name in its place.
func (s standIn) names(file, place, name string) error {
	text, err := s.file(file)
	if err != nil {
		return err
	}
	if !regexp.MustCompile(fmt.Sprintf(place, regexp.QuoteMeta(name))).MatchString(text) {
		return fmt.Errorf("%s has no %q", file, name)
	}
	return nil
}

func (s standIn) terraform(words []string) error {
	const folder = "deploy/terraform"
	if len(words) < 2 || words[0] != "-chdir="+folder {
		return fmt.Errorf("%v does not begin with -chdir=%s", words, folder)
	}
	command, rest := words[1], words[2:]
	switch command {
	case "init":
		return errors.Join(onlyArgs(rest), s.did("terraform init"))
	case "apply", "destroy":
		for len(rest) >= 2 && rest[0] == "-var" {
			name, _, _ := strings.Cut(rest[1], "=")
			if err := s.names(folder+"/variables.tf", `(?m)^variable "%s" `, name); err != nil {
				return err
			}
			rest = rest[2:]
		}
		return errors.Join(onlyArgs(rest), s.settings(folder), s.did("terraform "+command))
	case "output":
		if len(rest) != 2 || rest[0] != "-raw" && rest[0] != "-json" {
			return fmt.Errorf("output %v", rest)
		}
		return s.output(rest[1])
	default:
		return fmt.Errorf("the test knows no terraform %s", command)
	}
}

// onlyArgs returns an error unless the arguments are those.
func onlyArgs(rest []string, allowed ...string) error {
	if !slices.Equal(rest, allowed) {
		return fmt.Errorf("%v, want %v", rest, allowed)
	}
	return nil
}

// settings checks the reader's settings: that there are such, of such parts, and formatted where Terraform is there to tell.
func (s standIn) settings(folder string) error {
	text, err := s.file(folder + "/terraform.tfvars")
	if err != nil {
		return err
	}
	variables, err := s.file(folder + "/variables.tf")
	if err != nil {
		return err
	}
	variable := ""
	for line := range strings.Lines(text) {
		if m := regexp.MustCompile(`^([a-z_]+) +=`).FindStringSubmatch(line); m != nil {
			_, variable, _ = strings.Cut(variables, `variable "`+m[1]+`" {`)
			if variable, _, _ = strings.Cut(variable, "\n}\n"); variable == "" {
				return fmt.Errorf("there is no variable %s", m[1])
			}
		}
		if m := regexp.MustCompile(`^  ([a-z_]+) +=`).FindStringSubmatch(line); m != nil && !regexp.MustCompile(`(?m)^    `+m[1]+` +=`).MatchString(variable) {
			return fmt.Errorf("the variable has no part %s", m[1])
		}
	}
	real, err := findTool("terraform")
	if err != nil {
		return nil
	}
	cmd := exec.Command(real, "fmt", "-check", "-diff", filepath.Join(s.repository, folder, "terraform.tfvars"))
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TF_CLI_CONFIG_FILE=") }), "CHECKPOINT_DISABLE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("terraform fmt: %w\n%s", err, out)
	}
	return nil
}

// output answers as the example does; the outputs' real form is tested by terraform test.
func (s standIn) output(name string) error {
	if err := s.names("deploy/terraform/outputs.tf", `(?m)^output "%s" `, name); err != nil {
		return err
	}
	files := map[string]string{"environment_file": "environment.env", "lanes_file": "lanes.json"}
	if files[name] == "" {
		return fmt.Errorf("the test has no answer for output %s", name)
	}
	text, err := s.file("deploy/kubernetes/overlays/example/" + files[name])
	fmt.Print(strings.ReplaceAll(text, "example-project", os.Getenv("PROJECT")))
	return err
}

// render makes what is in a folder, strictly decoded. KEDA's release, which is not in this repository, is taken from its module.
func (s standIn) render(folder string) ([][]byte, error) {
	kustomization, err := s.file(folder + "/kustomization.yaml")
	if err != nil {
		return nil, err
	}
	mem := filesys.MakeFsInMemory()
	if err := copyFiles(mem, filepath.Join(s.repository, "deploy/kubernetes"), "/deploy/kubernetes"); err != nil {
		return nil, err
	}
	release := regexp.MustCompile(`https://github.com/kedacore/keda/releases/download/\S+`).FindString(kustomization)
	if release == "" {
		objects, err := build(mem, "/"+folder)
		for _, object := range objects {
			err = errors.Join(err, new(deployment).decode(object))
		}
		return objects, err
	}
	module := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2")
	module.Dir = filepath.Join(s.repository, "deploy/kubernetes/check")
	dir, err := module.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	if err := errors.Join(
		copyFiles(mem, strings.TrimSpace(string(dir))+"/config", "/config"),
		mem.WriteFile("/"+folder+"/kustomization.yaml", []byte(strings.Replace(kustomization, release, strings.Repeat("../", strings.Count(folder, "/")+1)+"config/default", 1))),
	); err != nil {
		return nil, err
	}
	return build(mem, "/"+folder)
}

func (s standIn) kubectl(words []string) error {
	if words[0] == "apply" {
		return s.apply(words[1:])
	}
	if words[0] != "-n" || len(words) < 4 {
		return fmt.Errorf("%v: in which namespace?", words)
	}
	namespace, verb, rest := words[1], words[2], words[3:]
	if verb == "exec" {
		if len(rest) < 3 || rest[1] != "--" || rest[2] != "/assetmill" {
			return fmt.Errorf("exec %v: the image has nothing but /assetmill", rest)
		}
		return errors.Join(s.applied(namespace, rest[0]), s.assetmill(rest[3:]))
	}
	args, flags := split(rest)
	switch {
	case verb == "get" && slices.Equal(args, []string{"pods"}):
		fmt.Println("worker-6c9f7d9b8-x2x4v   1/1   Running   0   1m")
		return onlyFlags(flags)
	case verb == "rollout" && len(args) == 2 && args[0] == "status":
		return errors.Join(onlyFlags(flags, "--timeout"), s.applied(namespace, args[1]))
	case verb == "annotate" && len(args) == 3 && regexp.MustCompile(`^autoscaling\.keda\.sh/paused-replicas(-|=\d+)$`).MatchString(args[2]):
		return errors.Join(onlyFlags(flags, "--overwrite"), s.applied(namespace, args[0]+"/"+args[1]))
	case verb == "wait" && slices.Equal(args, []string{"pod", "app.kubernetes.io/name=worker"}) && flags["--for"] == "delete":
		return errors.Join(onlyFlags(flags, "--for", "-l", "--timeout"), s.applied(namespace, "deployment/worker"))
	default:
		return fmt.Errorf("the test knows no kubectl %v", words)
	}
}

// apply renders a folder, which must be the reader's own, and remembers what there is now.
func (s standIn) apply(words []string) error {
	server := slices.Contains(words, "--server-side")
	words = slices.DeleteFunc(words, func(w string) bool { return w == "--server-side" })
	if len(words) != 2 || words[0] != "-k" {
		return fmt.Errorf("apply %v", words)
	}
	objects, err := s.render(words[1])
	if err != nil {
		return err
	}
	if all := string(bytes.Join(objects, nil)); strings.Contains(all, "example-project") || !strings.Contains(all, os.Getenv("PROJECT")) {
		return fmt.Errorf("%s is not $PROJECT's: it has example-project", words[1])
	}
	if strings.Contains(words[1], "keda") && !server {
		return errors.New("KEDA's definitions are too long for the annotation of a client-side apply")
	}
	for _, object := range objects {
		var o struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(object, &o); err != nil {
			return err
		}
		if err := s.did(strings.ToLower("there is " + o.Metadata.Namespace + " " + o.Kind + "/" + o.Metadata.Name)); err != nil {
			return err
		}
	}
	return s.did("kubectl apply " + words[1])
}

// applied returns an error unless there is such an object.
func (s standIn) applied(namespace, object string) error {
	done, err := os.ReadFile(filepath.Join(s.state, "done"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if !strings.Contains(string(done), "there is "+namespace+" "+object+"\n") {
		return fmt.Errorf("nobody has applied %s in namespace %s", object, namespace)
	}
	return nil
}

// assetmill checks a command line against the real one's help. A submission is also tried, as far as that goes without a cloud.
func (s standIn) assetmill(words []string) error {
	binary := filepath.Join(s.repository, "bin/assetmill.real")
	if _, err := os.Stat(binary); err != nil {
		if binary, err = s.buildAssetmill(); err != nil {
			return err
		}
	}
	args, flags := split(words)
	if len(args) == 0 {
		return errors.New("which command?")
	}
	help, err := exec.Command(binary, args[0], "--help").CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^  assetmill `+args[0]+`\b`).Match(help) {
		return fmt.Errorf("assetmill has no command %s: %w", args[0], err)
	}
	for flag := range flags {
		if !regexp.MustCompile(`(?m)^ +(-\w, )?` + regexp.QuoteMeta(flag) + `\b`).Match(help) {
			return fmt.Errorf("assetmill %s has no flag %s", args[0], flag)
		}
	}
	switch args[0] {
	case "submit":
		trial := append(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "--watch" }), "--dry-run")
		if out, err := exec.Command(binary, trial...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	case "query":
		for _, m := range regexp.MustCompile(`FROM ([a-z_]+)`).FindAllStringSubmatch(words[len(words)-1], -1) {
			if found, err := filepath.Glob(filepath.Join(s.repository, "schemas/views/*_"+m[1]+".sql")); err != nil || len(found) != 1 {
				return fmt.Errorf("there is no view %s", m[1])
			}
		}
		fmt.Println(`{"asset_uri":"gs://` + os.Getenv("ASSETMILL_BUCKET") + `/keep/first/1.png"}`)
	case "sign":
		if len(args) != 2 || !regexp.MustCompile(`^gs://[a-z0-9-]+/keep/first/1\.png$`).MatchString(args[1]) {
			return fmt.Errorf("sign %q: that is no image", args[1:])
		}
	}
	return s.did("assetmill " + args[0])
}

// buildAssetmill builds it where the page has not done so yet.
func (s standIn) buildAssetmill() (string, error) {
	binary := filepath.Join(s.state, "assetmill")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/assetmill")
	cmd.Dir = s.repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// lintGcloud has gcloud check the form of what the page asks of it, where it is installed.
func lintGcloud(t *testing.T, done string) {
	t.Helper()
	var commands []map[string]string
	for line := range strings.Lines(done) {
		if strings.HasPrefix(line, "gcloud ") {
			text := strings.ReplaceAll(strings.TrimSpace(line), "'", "")
			commands = append(commands, map[string]string{"command_string": text, "id": text})
		}
	}
	if len(commands) < 8 {
		t.Errorf("only %d commands of gcloud were run", len(commands))
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		t.Log("gcloud is not installed: the form of its commands was not checked")
		return
	}
	text, err := json.Marshal(commands)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "commands.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), gcloud, "meta", "lint-gcloud-commands", "--commands-file="+file)
	cmd.Env = append(os.Environ(), "CLOUDSDK_CONFIG="+dir, "CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=1")
	out, err := cmd.Output()
	var results []struct {
		Command string `json:"command_string"`
		Success bool   `json:"success"`
		Error   string `json:"error_message"`
	}
	if json.Unmarshal(out, &results) != nil || len(results) != len(commands) {
		t.Logf("this gcloud can't check commands (%v), so their form was not checked", err)
		return
	}
	for _, r := range results {
		if !r.Success {
			t.Errorf("gcloud refuses %s: %s", r.Command, r.Error)
		}
	}
	t.Logf("gcloud has checked %d commands", len(results))
}

// readAlertQueries returns the queries of the alerts on the workers' metrics, by name.
func readAlertQueries(t *testing.T) map[string]string {
	t.Helper()
	var alerts map[string]struct{ Query string }
	if err := json.Unmarshal([]byte(source(t, "deploy/monitoring/alerts.json")), &alerts); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for name, a := range alerts {
		all[name] = a.Query
	}
	return all
}
