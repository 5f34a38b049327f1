package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nobody is the user that the image runs as, by the number that images without a distribution have agreed on.
const nobody = "65532"

// file is one file or, without content and with a mode that says so, one folder of a layer.
type file struct {
	content []byte
	mode    int64
	folder  bool
}

// assemble makes the image. Layers that change seldom come first.
func assemble(o options, p parts) (v1.Image, error) {
	licences := map[string]file{"usr/share/doc/assetmill/materials.cdx.json": {content: p.materials, mode: 0o444}}
	for name, text := range p.licences {
		licences["usr/share/licenses/"+name] = file{content: text, mode: 0o444}
	}
	image, err := mutate.ConfigFile(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), config(o))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	for _, l := range []struct {
		what  string
		files map[string]file
	}{
		{"certificate authorities and a user", system()},
		{"licences and bill of materials", licences},
		{"assetmill " + o.version, map[string]file{"assetmill": {content: p.binary, mode: 0o555}}},
	} {
		if image, err = addLayer(image, o, l.what, l.files); err != nil {
			return nil, fmt.Errorf("layer with %s: %w", l.what, err)
		}
	}
	return image, nil
}

// system are the files that a program expects of its system.
func system() map[string]file {
	var authorities bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue // valid for some names or times only, which a file can't say
		}
		_ = pem.Encode(&authorities, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
	}
	return map[string]file{
		"etc/passwd":                        {content: []byte("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:" + nobody + ":" + nobody + ":nonroot:/:/sbin/nologin\n"), mode: 0o444},
		"etc/group":                         {content: []byte("root:x:0:\nnonroot:x:" + nobody + ":\n"), mode: 0o444},
		"etc/ssl/certs/ca-certificates.crt": {content: authorities.Bytes(), mode: 0o444},
		"tmp":                               {mode: 0o1777, folder: true},
	}
}

func config(o options) *v1.ConfigFile {
	return &v1.ConfigFile{
		Architecture: o.arch, OS: "linux", Created: v1.Time{Time: o.created.UTC()}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/assetmill"}, User: nobody + ":" + nobody, WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title":         "assetmill",
				"org.opencontainers.image.description":   "Turns prompts into images by the million on Google Cloud",
				"org.opencontainers.image.source":        "https://github.com/assetmill/assetmill",
				"org.opencontainers.image.documentation": "https://github.com/assetmill/assetmill/blob/main/README.md",
				"org.opencontainers.image.licenses":      "Apache-2.0",
				"org.opencontainers.image.version":       o.version,
				"org.opencontainers.image.revision":      o.revision,
				"org.opencontainers.image.created":       o.created.UTC().Format(time.RFC3339),
			},
		},
	}
}

func addLayer(image v1.Image, o options, what string, files map[string]file) (v1.Image, error) {
	text, err := archive(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{CreatedBy: "deploy/image", Comment: what, Created: v1.Time{Time: o.created.UTC()}},
	})
}

// archive writes files with the folders that they are in, in the order of their names, as root's and without times.
func archive(files map[string]file) ([]byte, error) {
	all := maps.Clone(files)
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			all[dir] = file{mode: 0o755, folder: true}
		}
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, name := range slices.SortedFunc(maps.Keys(all), strings.Compare) {
		f := all[name]
		header := &tar.Header{Name: name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX}
		if f.folder {
			header.Name, header.Typeflag = name+"/", tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}
