package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"regexp"
	"slices"
)

// maxModelReferences catches slips in catalogues: a job's message names every image, and no model takes more than 14 today.
const maxModelReferences = 100

// catalogueFile is a catalogue as it is written.
type catalogueFile struct {
	Version      string              `json:"version"`
	Source       string              `json:"source"`
	Extends      bool                `json:"extends"`
	DefaultModel string              `json:"default_model"`
	Tiers        map[string]tierFile `json:"tiers"`
	Models       []*Model            `json:"models"`
}

type tierFile struct {
	PriceFactor string `json:"price_factor"`
	Note        string `json:"note"`
}

// ParseCatalogue reads a catalogue from JSON. With `"extends": true` it is the built-in catalogue with the file's tiers and models
// added, or put in the place of those with the same name; otherwise the file is the whole catalogue. The error says everything that is
// wrong: unknown fields, models without a size, a price or a tier, and names that can't stand in an address.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	var file catalogueFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("catalogue: something follows the object")
	}
	c := &Catalogue{version: file.Version, models: map[string]*Model{}, tiers: map[string]*big.Rat{}}
	if file.Extends {
		built := DefaultCatalogue()
		c.version += "+" + built.version // costs are computed from both
		c.models, c.tiers, c.defaultModel = built.models, built.tiers, built.defaultModel
	}
	all := append(c.addTiers(file.Tiers), c.addModels(file.Models)...)
	if file.Version == "" || len(file.Version) > MaxNameBytes {
		all = append(all, fmt.Errorf("version must have 1 to %d characters: lineage records it beside every cost", MaxNameBytes))
	}
	if file.DefaultModel != "" || !file.Extends {
		c.defaultModel = c.models[file.DefaultModel]
	}
	if c.defaultModel == nil && len(all) == 0 {
		all = append(all, fmt.Errorf("default_model %q is not among the models", file.DefaultModel))
	}
	if len(all) > 0 {
		return nil, fmt.Errorf("catalogue: %w", errors.Join(all...))
	}
	c.defaultModel = c.models[c.defaultModel.ID] // which the file may have put another in the place of
	return c, nil
}

func (c *Catalogue) addTiers(tiers map[string]tierFile) (all []error) {
	for _, name := range slices.Sorted(maps.Keys(tiers)) {
		text := tiers[name].PriceFactor
		factor, ok := new(big.Rat).SetString(text)
		switch {
		case !validName(name):
			all = append(all, fmt.Errorf("tier %q %s", name, nameRule))
		case !ok || factor.Sign() < 0:
			all = append(all, fmt.Errorf("tier %s: price_factor %q is not a number of at least 0", name, text))
		default:
			c.tiers[name] = factor
		}
	}
	return all
}

func (c *Catalogue) addModels(models []*Model) (all []error) {
	seen := map[string]bool{}
	for _, m := range models {
		if m == nil {
			all = append(all, errors.New("a model is null"))
			continue
		}
		for _, err := range append(m.faults(), m.tierFaults(c.tiers)...) {
			all = append(all, fmt.Errorf("model %q: %w", m.ID, err))
		}
		if seen[m.ID] {
			all = append(all, fmt.Errorf("model %q: is listed twice", m.ID))
		}
		seen[m.ID] = true
		c.models[m.ID] = m
	}
	return all
}

// Names of models and locations become parts of addresses; cells of CSV files are read in lower case.
var (
	modelForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	locationForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	ratioForm    = regexp.MustCompile(`^[1-9][0-9]{0,3}:[1-9][0-9]{0,3}$`)
)

// faults returns everything that is wrong with a model by itself, and completes its sizes.
func (m *Model) faults() (all []error) {
	wrong := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if !modelForm.MatchString(m.ID) {
		wrong("id may hold only a-z, 0-9, '.', '_' and '-', 1 to 100 of them, and begins with a letter or digit")
	}
	if len(m.Locations) == 0 || len(m.AspectRatios) == 0 || len(m.Tiers) == 0 {
		wrong("needs locations, aspect_ratios and tiers")
	}
	for _, l := range m.Locations {
		if !locationForm.MatchString(l) {
			wrong("location %q is no location such as global or europe-west4", l)
		}
	}
	for _, r := range m.AspectRatios {
		if !ratioForm.MatchString(r) {
			wrong("aspect ratio %q is no ratio such as 16:9", r)
		}
	}
	if m.MaxReferences < 0 || m.MaxReferences > maxModelReferences {
		wrong("max_references is %d; allowed: 0 to %d", m.MaxReferences, maxModelReferences)
	}
	if m.MaxPromptBytes < 1 || m.MaxPromptBytes > MaxPromptBytes {
		wrong("max_prompt_bytes is %d; allowed: 1 to %d", m.MaxPromptBytes, MaxPromptBytes)
	}
	if m.ReferenceTokens < 0 {
		wrong("reference_tokens is negative")
	}
	return append(all, m.sizeFaults()...)
}

// sizeFaults checks sizes and what they cost: each is paid by tokens or by the image.
func (m *Model) sizeFaults() (all []error) {
	wrong := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	sizes := maps.Clone(m.Sizes)
	if sizes == nil {
		sizes = map[string]int{}
	}
	m.imagePrices = map[string]USD{}
	for _, size := range slices.Sorted(maps.Keys(m.USDPerImage)) {
		price, err := ParseUSD(m.USDPerImage[size])
		if err != nil {
			wrong("usd_per_image of size %s: %w", size, err)
		}
		if sizes[size] != 0 {
			wrong("size %s is paid twice, by tokens and by the image", size)
		}
		m.imagePrices[size], sizes[size] = price, 0
	}
	if m.Sizes = sizes; len(sizes) == 0 {
		wrong("needs sizes, with tokens, or usd_per_image")
	}
	for _, size := range m.SizeNames() {
		_, byImage := m.imagePrices[size]
		switch {
		case sizeRank(size) < 0:
			wrong("size %q is unknown; allowed: 512, 1K, 2K, 4K", size)
		case byImage:
		case sizes[size] <= 0:
			wrong("size %s needs its number of tokens, or a price in usd_per_image", size)
		case m.Price.ImageOutput.perToken == nil:
			wrong("size %s is paid by tokens, and usd_per_million_tokens has no image_output", size)
		}
	}
	for _, size := range m.BatchSizes {
		if _, ok := sizes[size]; !ok {
			wrong("batch size %q is not among the sizes", size)
		}
	}
	return all
}

func (m *Model) tierFaults(known map[string]*big.Rat) (all []error) {
	for _, t := range m.Tiers {
		if known[t] == nil {
			all = append(all, fmt.Errorf("tier %q has no price factor", t))
		}
	}
	if m.HasTier(TierBatch) && len(m.BatchSizes) == 0 {
		all = append(all, fmt.Errorf("tier %s needs batch_sizes", TierBatch))
	}
	return all
}
