package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/google"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// materialsType is the media type of the bill of materials.
const materialsType = types.MediaType("application/vnd.cyclonedx+json")

// write puts the image into a folder, as an OCI image layout, and the bill of materials beside it. An image that was there before is
// replaced; a folder with anything else is left alone.
func write(dir string, image v1.Image, materials []byte) (v1.Hash, error) {
	digest, err := image.Digest()
	if err != nil {
		return digest, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
			return digest, fmt.Errorf("%s has something else than an image in it: choose another folder", dir)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return digest, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return digest, err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return digest, fmt.Errorf("write the image: %w", err)
	}
	if err := l.AppendImage(image); err != nil {
		return digest, fmt.Errorf("write the image: %w", err)
	}
	return digest, os.WriteFile(filepath.Join(dir, "materials.cdx.json"), materials, 0o644)
}

// push uploads the image, and the bill of materials as what refers to it. It returns the image's name by digest, which is what a
// deployment should be given.
func push(ctx context.Context, to string, image v1.Image, materials []byte) (string, error) {
	tag, err := name.NewTag(to, name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf("%q: %w", to, err)
	}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithUserAgent("assetmill"),
		remote.WithAuthFromKeychain(authn.NewMultiKeychain(google.Keychain, authn.DefaultKeychain)),
	}
	if err := remote.Write(tag, image, options...); err != nil {
		return "", fmt.Errorf("push %s: %w", tag, err)
	}
	about, err := partial.Descriptor(image)
	if err != nil {
		return "", err
	}
	bill, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, materialsType), types.OCIManifestSchema1), static.NewLayer(materials, materialsType))
	if err != nil {
		return "", err
	}
	bill = mutate.Subject(bill, *about).(v1.Image)
	digest, err := bill.Digest()
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag.Digest(digest.String()), bill, options...); err != nil {
		return "", fmt.Errorf("push the bill of materials of %s: %w", tag, err)
	}
	return tag.Digest(about.Digest.String()).String(), nil
}
