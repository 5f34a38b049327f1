package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var (
	someOptions = options{version: "v1.2.3", revision: "0123abc", arch: "amd64", created: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	someParts   = parts{
		binary: []byte("not a program"), materials: []byte("{}"),
		licences: map[string][]byte{"b.example/x/LICENSE": []byte("be nice"), "a.example/y/NOTICE": []byte("by me")},
	}
)

func assembled(t *testing.T, o options, p parts) v1.Image {
	t.Helper()
	image, err := assemble(o, p)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digest(t *testing.T, image v1.Image) string {
	t.Helper()
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// unpacked is the image's file system, as a container would see it.
func unpacked(t *testing.T, image v1.Image) (map[string]*tar.Header, map[string][]byte) {
	t.Helper()
	r := mutate.Extract(image)
	defer r.Close()
	headers, contents := map[string]*tar.Header{}, map[string][]byte{}
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		headers[name] = h
		if contents[name], err = io.ReadAll(files); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheSameMakesTheSame(t *testing.T) {
	t.Parallel()
	first := digest(t, assembled(t, someOptions, someParts))
	for range 3 { // maps come in another order each time
		if again := digest(t, assembled(t, someOptions, someParts)); again != first {
			t.Fatalf("%s, then %s", first, again)
		}
	}
	local := someOptions
	local.created = local.created.In(time.FixedZone("elsewhere", 3600))
	if again := digest(t, assembled(t, local, someParts)); again != first {
		t.Error("the time zone of this machine is in the image")
	}
	other := someParts
	other.binary = []byte("another program")
	if digest(t, assembled(t, someOptions, other)) == first {
		t.Error("another program has the same digest")
	}
	later := someOptions
	later.version = "v1.2.4"
	if digest(t, assembled(t, later, someParts)) == first {
		t.Error("another version has the same digest")
	}
}

// What seldom changes is not pushed and pulled again with each version.
func TestLayersAreKept(t *testing.T) {
	t.Parallel()
	later, other := someOptions, someParts
	later.version, later.created = "v1.2.4", later.created.Add(time.Hour)
	other.binary = []byte("another program")
	a, err1 := assembled(t, someOptions, someParts).Layers()
	b, err2 := assembled(t, later, other).Layers()
	if err := errors.Join(err1, err2); err != nil || len(a) != 3 || len(b) != 3 {
		t.Fatalf("%d and %d layers: %v", len(a), len(b), err)
	}
	for i, same := range []bool{true, true, false} {
		x, _ := a[i].Digest()
		y, _ := b[i].Digest()
		if (x == y) != same {
			t.Errorf("layer %d: the same is %t, want %t", i, x == y, same)
		}
	}
}

func TestWhatIsInIt(t *testing.T) {
	t.Parallel()
	headers, contents := unpacked(t, assembled(t, someOptions, someParts))
	for name, want := range map[string]string{
		"assetmill":                                  "not a program",
		"usr/share/licenses/b.example/x/LICENSE":     "be nice",
		"usr/share/licenses/a.example/y/NOTICE":      "by me",
		"usr/share/doc/assetmill/materials.cdx.json": "{}",
	} {
		if got := string(contents[name]); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(string(contents["etc/passwd"]), "nonroot:x:65532:65532:") {
		t.Errorf("the user is not there: %s", contents["etc/passwd"])
	}
	for name, h := range headers {
		switch mode := fs.FileMode(h.Mode); {
		case h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(time.Unix(0, 0)):
			t.Errorf("%s belongs to %d:%d and is of %s", name, h.Uid, h.Gid, h.ModTime)
		case mode&0o222 != 0 && h.Typeflag != tar.TypeDir:
			t.Errorf("%s can be written", name)
		case h.Typeflag == tar.TypeDir && mode&0o022 != 0 && name != "tmp":
			t.Errorf("anybody can write into %s", name)
		}
	}
	if headers["assetmill"].Mode != 0o555 || headers["tmp"].Mode != 0o1777 {
		t.Errorf("the modes are %o and %o", headers["assetmill"].Mode, headers["tmp"].Mode)
	}
}

// Google's services are signed by these.
func TestAuthoritiesAreThere(t *testing.T) {
	t.Parallel()
	_, contents := unpacked(t, assembled(t, someOptions, someParts))
	names := map[string]bool{}
	for rest := contents["etc/ssl/certs/ca-certificates.crt"]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		names[c.Subject.CommonName] = true
	}
	for _, name := range []string{"GTS Root R1", "GTS Root R3", "GTS Root R4", "GlobalSign"} {
		if !names[name] {
			t.Errorf("%s is missing among %d", name, len(names))
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := assembled(t, someOptions, someParts).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.Config.User != "65532:65532":
		t.Errorf("it runs as %q", c.Config.User)
	case !slices.Equal(c.Config.Entrypoint, []string{"/assetmill"}) || c.Config.Cmd != nil:
		t.Errorf("it runs %q %q", c.Config.Entrypoint, c.Config.Cmd)
	case c.OS != "linux" || c.Architecture != "amd64":
		t.Errorf("it is for %s/%s", c.OS, c.Architecture)
	case !c.Created.Equal(someOptions.created):
		t.Errorf("it is of %s", c.Created)
	}
	for label, want := range map[string]string{"version": "v1.2.3", "revision": "0123abc", "created": "2026-11-23T12:00:00Z", "licenses": "Apache-2.0"} {
		if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
}

func TestImageIsWrittenAndValid(t *testing.T) {
	t.Parallel()
	image := assembled(t, someOptions, someParts)
	dir := filepath.Join(t.TempDir(), "some", "image")
	for range 2 { // the second time over the first
		if _, err := write(dir, image, someParts.materials); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write(filepath.Dir(dir), image, nil); err == nil {
		t.Error("a folder with other things was taken")
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest.String() != digest(t, image) {
		t.Fatalf("the folder has %v: %v", manifest, err)
	}
	written, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(written); err != nil {
		t.Error(err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	defer server.Close()
	image := assembled(t, someOptions, someParts)
	host := strings.TrimPrefix(server.URL, "http://")
	pushed, err := push(t.Context(), host+"/p/assetmill:v1.2.3", image, someParts.materials)
	if err != nil {
		t.Fatal(err)
	}
	if want := host + "/p/assetmill@" + digest(t, image); pushed != want {
		t.Errorf("pushed %s, want %s", pushed, want)
	}
	tag, err := name.NewTag(host + "/p/assetmill:v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(tag)
	if err != nil || digest(t, pulled) != digest(t, image) {
		t.Errorf("another image came back: %v", err)
	}
	index, err := remote.Referrers(tag.Digest(digest(t, image)))
	if err != nil {
		t.Fatal(err)
	}
	referring, err := index.IndexManifest()
	if err != nil || len(referring.Manifests) != 1 || referring.Manifests[0].ArtifactType != string(materialsType) {
		t.Fatalf("what refers to it is %+v: %v", referring, err)
	}
	if _, err := push(t.Context(), host+"/p/assetmill", image, nil); err == nil {
		t.Error("a name without a tag was taken")
	}
}

func TestMaterials(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Main: debug.Module{Path: "example.com/app"},
		Deps: []*debug.Module{
			{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v2.0.0+incompatible", Sum: "h1:AAEC"}},
			{Path: "example.com/lib", Version: "v0.1.0", Sum: "h1:/w=="},
		},
	}
	text, err := listMaterials(someOptions, info, []byte("not a program"))
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range *bom.Components {
		hash := ""
		if c.Hashes != nil {
			hash = (*c.Hashes)[0].Value
		}
		got = append(got, c.PackageURL+" "+hash)
	}
	want := []string{"pkg:golang/std@1.26.8 ", "pkg:golang/example.com/lib@v0.1.0 ff", "pkg:golang/example.com/new@v2.0.0%2Bincompatible 000102"}
	if !slices.Equal(got, want) {
		t.Errorf("components are %q, want %q", got, want)
	}
	if sum := sha256.Sum256([]byte("not a program")); (*bom.Metadata.Component.Hashes)[0].Value != fmt.Sprintf("%x", sum) || bom.Metadata.Component.Version != "v1.2.3" {
		t.Errorf("the whole is %+v", bom.Metadata.Component)
	}
	for _, sum := range []string{"", "h1:*", "go.mod"} {
		info.Deps[1].Sum = sum
		if _, err := listMaterials(someOptions, info, nil); err == nil {
			t.Errorf("the sum %q was taken", sum)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-arch", "386"}, {"-push"}, {"-created", "yesterday"}, {"more"}, {"-none"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	o, err := parse([]string{"-root", "/r", "-out", "x"}, io.Discard)
	if err != nil || o.out != "/r/x" {
		t.Errorf("%+v: %v", o, err)
	}
}

// The real thing: built twice, unpacked and run. It takes minutes until Go has compiled everything without C once.
func TestAssetmillItself(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the binary of assetmill is not built")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	o := someOptions
	o.root, o.arch, o.revision = root, runtime.GOARCH, ""
	var digests []string
	var image v1.Image
	var all parts
	for i := range 2 {
		binary := filepath.Join(t.TempDir(), fmt.Sprint("build-", i))
		if err := compile(t.Context(), o, binary); err != nil {
			t.Fatal(err)
		}
		if all, err = gather(t.Context(), o, binary); err != nil {
			t.Fatal(err)
		}
		image = assembled(t, o, all)
		digests = append(digests, digest(t, image))
	}
	if digests[0] != digests[1] {
		t.Errorf("built twice, it is %q", digests)
	}
	t.Logf("%s, binary of %d MiB, %d licence files", digests[0], len(all.binary)>>20, len(all.licences))
	checkStatic(t, all.binary)
	checkMaterials(t, all)
	if runtime.GOOS == "linux" {
		checkRuns(t, image, o.version)
	}
}

// checkStatic: a program that needs a loader or libraries does not run in this image.
func checkStatic(t *testing.T, binary []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary needs a loader")
		}
	}
	if len(libraries) > 0 {
		t.Errorf("the binary needs %q", libraries)
	}
	if home, err := os.UserHomeDir(); err == nil && bytes.Contains(binary, []byte(home+"/go/pkg/mod")) {
		t.Error("paths of this machine are in the binary")
	}
}

func checkMaterials(t *testing.T, all parts) {
	t.Helper()
	var bom cdx.BOM
	if err := json.Unmarshal(all.materials, &bom); err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []string{"std", "cloud.google.com/go/storage", "google.golang.org/genai"} {
		if !slices.ContainsFunc(*bom.Components, func(c cdx.Component) bool { return c.Name == wanted }) {
			t.Errorf("%s is not among the materials", wanted)
		}
	}
	for _, c := range *bom.Components {
		module := c.Name
		if module == "std" {
			module = "go"
		}
		found := false
		for name := range all.licences {
			found = found || strings.HasPrefix(name, module+"/")
		}
		if !found {
			t.Errorf("the licence of %s is missing", module)
		}
	}
}

// checkRuns unpacks the program as a container engine would, and runs it with an empty environment.
func checkRuns(t *testing.T, image v1.Image, version string) {
	t.Helper()
	_, contents := unpacked(t, image)
	binary := filepath.Join(t.TempDir(), "assetmill")
	if err := os.WriteFile(binary, contents["assetmill"], 0o755); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"--help", "--version"} {
		cmd := exec.CommandContext(t.Context(), binary, arg)
		cmd.Env = []string{}
		out, err := cmd.CombinedOutput()
		if want := map[string]string{"--help": "assetmill worker", "--version": version}[arg]; err != nil || !strings.Contains(string(out), strings.TrimPrefix(want, "assetmill ")) {
			t.Errorf("assetmill %s: %v\n%s", arg, err, out)
		}
	}
}
