package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// command is the package that the image runs.
const command = "./cmd/assetmill"

// compile builds the static binary. Paths of this machine are left out, and the commit is in it when there is one.
func compile(ctx context.Context, o options, to string) error {
	vcs := "false"
	if o.revision != "" {
		vcs = "true"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs="+vcs, "-ldflags", "-s -w -X main.version="+o.version, "-o", to, command)
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.arch, "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// parts are what an image is made of.
type parts struct {
	binary    []byte
	materials []byte            // bill of materials
	licences  map[string][]byte // by file name
}

// gather reads what goes into the image.
func gather(ctx context.Context, o options, binary string) (p parts, err error) {
	if p.binary, err = os.ReadFile(binary); err != nil {
		return p, err
	}
	info, err := buildinfo.Read(bytes.NewReader(p.binary))
	if err != nil {
		return p, fmt.Errorf("read what the binary is made of: %w", err)
	}
	if p.materials, err = listMaterials(o, info, p.binary); err != nil {
		return p, err
	}
	if p.licences, err = collectLicences(ctx, o.root, info); err != nil {
		return p, err
	}
	return p, nil
}

// licenceFile matches the files that have to go along with a module's code.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|copyright|patents)([.-].*)?$`)

// collectLicences returns the licence files of Go, of assetmill and of all modules that are linked in, under their module's path.
func collectLicences(ctx context.Context, root string, info *debug.BuildInfo) (map[string][]byte, error) {
	folders, err := moduleFolders(ctx, root, info)
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for module, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, fmt.Errorf("look for the licence of %s: %w", module, err)
		}
		found := false
		for _, e := range entries {
			if e.Type() != 0 || !licenceFile.MatchString(e.Name()) {
				continue
			}
			if all[path.Join(module, e.Name())], err = os.ReadFile(filepath.Join(folder, e.Name())); err != nil {
				return nil, err
			}
			found = true
		}
		if !found {
			return nil, fmt.Errorf("%s has no licence, so it can't be given to others", module)
		}
	}
	return all, nil
}

// moduleFolders returns where the source of each module is.
func moduleFolders(ctx context.Context, root string, info *debug.BuildInfo) (map[string]string, error) {
	goroot, err := goCommand(ctx, root, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	folders := map[string]string{info.Main.Path: root, "go": strings.TrimSpace(string(goroot))}
	args := []string{"mod", "download", "-json"}
	for _, m := range linked(info) {
		args = append(args, m.Path+"@"+m.Version)
	}
	out, err := goCommand(ctx, root, args...)
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Dir string }
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go mod download: %w", err)
		}
		folders[m.Path] = m.Dir
	}
	if _, err := os.Stat(filepath.Join(folders["go"], "LICENSE")); errors.Is(err, fs.ErrNotExist) {
		// Debian keeps it elsewhere. The module of the licence's owner has the same.
		for m, dir := range folders {
			if strings.HasPrefix(m, "golang.org/x/") {
				folders["go"] = dir
			}
		}
	}
	return folders, nil
}

// linked returns the modules that are linked in, those that replace others in their place, in the order of their paths.
func linked(info *debug.BuildInfo) []*debug.Module {
	var all []*debug.Module
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args[:2], " "), err, errs.Bytes())
	}
	return out, nil
}
