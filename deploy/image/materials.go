package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// listMaterials returns the bill of materials, in CycloneDX's JSON: what the Go linker wrote into the binary. Hashes of modules are
// those of go.sum.
func listMaterials(o options, info *debug.BuildInfo, binary []byte) ([]byte, error) {
	sum := sha256.Sum256(binary)
	whole := component(cdx.ComponentTypeApplication, info.Main.Path, o.version)
	whole.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{component(cdx.ComponentTypeLibrary, "std", goVersion)}
	for _, m := range linked(info) {
		c := component(cdx.ComponentTypeLibrary, m.Path, m.Version)
		hash, err := moduleHash(m.Sum)
		if err != nil {
			return nil, fmt.Errorf("hash of %s: %w", m.Path, err)
		}
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hash}}
		components = append(components, c)
	}
	var all []string
	for _, c := range components {
		all = append(all, c.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: o.created.UTC().Format(time.RFC3339), Component: &whole}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: whole.BOMRef, Dependencies: &all}}
	var text bytes.Buffer
	if err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return text.Bytes(), nil
}

func component(kind cdx.ComponentType, path, version string) cdx.Component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	return cdx.Component{Type: kind, BOMRef: purl, PackageURL: purl, Name: path, Version: version}
}

// moduleHash turns go.sum's form, h1: and base64, into hexadecimal digits.
func moduleHash(sum string) (string, error) {
	text, ok := strings.CutPrefix(sum, "h1:")
	if !ok {
		return "", fmt.Errorf("%q does not begin with h1:, the only form that is known", sum)
	}
	hash, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(hash), nil
}
