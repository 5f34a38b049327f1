// Package tidy holds the rules of this repository as tests: which package may import which, how long a function may be, what
// every package must say of itself, and what may not be called. It has no code of its own.
package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/assetmill/assetmill"
	root   = "../.."
	// maxFunctionLines is what fits on a screen.
	maxFunctionLines = 70
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath                               string
	Name                                     string
	Imports, TestImports, XTestImports, Deps []string
	Doc                                      string
}

func (p pkg) name() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps,Doc", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// allowed says for each package which others of this module it may import. A folder with a trailing slash stands for all below.
var allowed = map[string][]string{
	"schemas":                   {},
	"schemas/internal/generate": {},
	"jobs":                      {"schemas"},
	"jobs/csvfile":              {"schemas", "jobs"},
	"jobs/queue":                {"schemas", "jobs", "internal/retry"},
	"jobs/submit":               {"schemas", "jobs", "jobs/csvfile"},
	"worker":                    {"schemas", "jobs", "internal/blob", "internal/retry"},
	"worker/ledger":             {"schemas", "jobs", "worker", "internal/gcs", "internal/retry"},
	"worker/assets":             {"schemas", "jobs", "worker", "internal/gcs", "internal/retry", "internal/imagehead"},
	"worker/vertex":             {"schemas", "jobs", "worker", "worker/batch", "internal/blob", "internal/imagehead", "internal/retry"},
	"worker/lineage":            {"schemas", "jobs", "worker"},
	"worker/lanes":              {"schemas", "jobs", "worker", "worker/lanes/pace", "internal/retry"},
	"worker/lanes/pace":         {},
	"worker/lanes/pace/pacesim": {"worker/lanes/pace"},
	"worker/batch":              {"schemas", "jobs", "worker"},
	"worker/batch/batchtest":    {"schemas", "jobs", "worker", "worker/batch", "worker/workertest", "internal/blob"},
	"worker/batch/gcsfiles":     {"jobs", "worker/batch", "internal/gcs", "internal/retry"},
	"worker/workertest":         {"schemas", "jobs", "worker", "worker/lanes", "worker/batch", "internal/blob", "internal/retry"},
	"internal/blob":             {},
	"internal/imagehead":        {},
	"internal/bench":            {"schemas", "internal/bench/"},
	"internal/bench/rival":      {},
	"internal/bench/standin":    {"schemas", "internal/selfsigned"},
	"internal/collectbench":     {},
	"internal/doctor":           {"schemas", "jobs", "worker", "worker/lanes", "internal/retry"},
	"internal/plan":             {"jobs", "jobs/csvfile", "jobs/submit", "worker/lanes"},
	"internal/scalesim":         {"jobs"},
	"internal/telemetry":        {},
	"internal/retry":            {},
	"internal/selfsigned":       {},
	"internal/gcs":              {},
	"internal/gcs/gcstest":      {},
	"internal/vertextest":       {"internal/selfsigned"},
	"internal/localbq":          {"schemas"},
	"internal/localcloud":       {"schemas", "internal/"},
	"internal/torture":          {},
	"deploy/terraform":          {"schemas", "jobs"},
	"internal/tidy":             {},
	"cmd/assetmill":             {"schemas", "jobs", "jobs/", "worker", "worker/", "internal/blob", "internal/retry", "internal/gcs", "internal/telemetry", "internal/doctor", "internal/plan"},
	"cmd/bench":                 {"internal/bench"},
	"cmd/localcloud":            {"schemas", "internal/"},
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range list(t) {
		may, known := allowed[p.name()]
		if !known {
			t.Errorf("%s is not in the table of this test: say what it may import", p.name())
			continue
		}
		for _, i := range p.Imports {
			short, ours := strings.CutPrefix(i, module+"/")
			if ours && !slices.ContainsFunc(may, func(m string) bool {
				return short == m || strings.HasSuffix(m, "/") && strings.HasPrefix(short, m)
			}) {
				t.Errorf("%s imports %s", p.name(), short)
			}
		}
	}
}

// cloudUsers are the packages that may talk to a cloud. All others get what they need through small interfaces.
var cloudUsers = []string{
	"jobs/queue", "worker/ledger", "worker/vertex", "worker/assets", "worker/lineage", "worker/batch/gcsfiles", "cmd/assetmill",
	"internal/gcs", "internal/gcs/gcstest", "internal/vertextest", "internal/localbq", "internal/localcloud",
	"internal/doctor", "internal/bench", "internal/bench/rival", "internal/bench/standin",
}

func TestCloudClientsStayInTheirPackages(t *testing.T) {
	for _, p := range list(t) {
		if slices.Contains(cloudUsers, p.name()) {
			continue
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "cloud.google.com/") || strings.HasPrefix(i, "google.golang.org/genai") || strings.HasPrefix(i, "google.golang.org/api/") {
				t.Errorf("%s imports %s", p.name(), i)
			}
		}
	}
}

// What stands in for the cloud, and what only tests need, is never part of the production binary.
func TestStandInsStayOutOfTheBinary(t *testing.T) {
	for _, p := range list(t) {
		if p.name() != "cmd/assetmill" {
			continue
		}
		for _, d := range p.Deps {
			for _, banned := range []string{
				module + "/internal/vertextest", module + "/internal/local", module + "/internal/bench", module + "/worker/batch/batchtest", module + "/worker/workertest", module + "/internal/gcs/gcstest",
				"github.com/goccy/bigquery-emulator", "github.com/fsouza/fake-gcs-server", "cloud.google.com/go/pubsub/v2/pstest",
			} {
				if strings.HasPrefix(d, banned) {
					t.Errorf("cmd/assetmill links %s", d)
				}
			}
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range list(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.ImportPath) + " "
		}
		if p.name() != "internal/tidy" && !strings.HasPrefix(p.Doc, want) {
			t.Errorf("the doc of %s begins with %q, not with %q", p.name(), p.Doc, want)
		}
	}
}

// sources calls f for each Go file of the module that is written by hand.
func sources(t *testing.T, f func(name string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		f(filepath.ToSlash(name), fset, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFunctionsFitOnAScreen(t *testing.T) {
	sources(t, func(name string, fset *token.FileSet, file *ast.File) {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "workertest/suite") {
			return // tables and suites of tests are long and flat
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines", name, fn.Name.Name, lines)
			}
		}
	})
}

// bannedCalls are calls with a better way, and what that is.
var bannedCalls = map[string]string{
	"log.Print": "zap", "log.Printf": "zap", "log.Println": "zap", "log.Fatal": "return an error", "log.Fatalf": "return an error",
	"os.Exit":     "return an error; only main may exit",
	"fmt.Println": "write to the streams that the command was given", "fmt.Printf": "write to the streams that the command was given",
}

func TestBannedCalls(t *testing.T) {
	// Helpers of a package's tests may run in a bubble that another file makes.
	bubbles := map[string]bool{}
	sources(t, func(name string, _ *token.FileSet, file *ast.File) {
		if makesBubbles(file) {
			bubbles[filepath.Dir(name)] = true
		}
	})
	sources(t, func(name string, fset *token.FileSet, file *ast.File) {
		test := strings.HasSuffix(name, "_test.go")
		synctest := makesBubbles(file) || test && bubbles[filepath.Dir(name)]
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			what := callee(call)
			if what == "time.Sleep" && !synctest {
				t.Errorf("%s calls time.Sleep: wait for a signal or a timer with a context, or use testing/synctest", fset.Position(call.Pos()))
			}
			if better := bannedCalls[what]; better != "" && !test && !strings.HasSuffix(name, "main.go") {
				t.Errorf("%s calls %s: %s", fset.Position(call.Pos()), what, better)
			}
			return true
		})
	})
}

func makesBubbles(file *ast.File) bool {
	return slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
}

func callee(call *ast.CallExpr) string {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + s.Sel.Name
}

func TestNoInitFunctions(t *testing.T) {
	sources(t, func(name string, _ *token.FileSet, file *ast.File) {
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: make what it makes where it is needed", name)
			}
		}
	})
}
