package jobs

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
)

//go:embed catalogue.json
var catalogueJSON []byte

// Model is one row of the catalogue: what a model offers and costs.
type Model struct {
	ID             string         `json:"id"`
	Name           string         `json:"name"`
	Locations      []string       `json:"locations"` // Vertex locations that serve it
	Tiers          []string       `json:"tiers"`
	Sizes          map[string]int `json:"sizes"` // size class to output tokens of one image
	BatchSizes     []string       `json:"batch_sizes"`
	AspectRatios   []string       `json:"aspect_ratios"`
	MaxReferences  int            `json:"max_references"`
	MaxPromptBytes int            `json:"max_prompt_bytes"`
	// ReferenceTokens is the number of input tokens of one reference image.
	ReferenceTokens int       `json:"reference_tokens"`
	Price           ListPrice `json:"usd_per_million_tokens"`
}

// ListPrice is a model's standard price per token.
type ListPrice struct {
	Input       TokenPrice `json:"input"`
	TextOutput  TokenPrice `json:"text_output"` // also thinking
	ImageOutput TokenPrice `json:"image_output"`
}

// SizeNames returns the model's size classes, smallest first.
func (m *Model) SizeNames() []string {
	return slices.SortedFunc(maps.Keys(m.Sizes), func(a, b string) int { return sizeRank(a) - sizeRank(b) })
}

// sizeRank orders `512` before `1K`, `2K`, `4K`.
func sizeRank(size string) int {
	return strings.Index(" 512 1K 2K 4K ", " "+size+" ")
}

// Catalogue is the set of models that jobs may ask for, with their prices. It is immutable and safe for concurrent use.
type Catalogue struct {
	version      string
	defaultModel *Model
	models       map[string]*Model
	tiers        map[string]*big.Rat // price factor
}

// DefaultCatalogue returns the catalogue that is built in.
func DefaultCatalogue() *Catalogue {
	c, err := ParseCatalogue(catalogueJSON)
	if err != nil {
		panic(fmt.Sprintf("jobs: embedded catalogue: %v", err)) // a test parses it
	}
	return c
}

// ParseCatalogue reads a catalogue from JSON. Unknown fields, models without sizes or prices, and tiers without a
// price factor are errors.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	type tier struct {
		PriceFactor string `json:"price_factor"`
		Note        string `json:"note"`
	}
	var file struct {
		Version      string          `json:"version"`
		Source       string          `json:"source"`
		DefaultModel string          `json:"default_model"`
		Tiers        map[string]tier `json:"tiers"`
		Models       []*Model        `json:"models"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	c := &Catalogue{version: file.Version, models: map[string]*Model{}, tiers: map[string]*big.Rat{}}
	for name, t := range file.Tiers {
		factor, ok := new(big.Rat).SetString(t.PriceFactor)
		if !ok || factor.Sign() < 0 {
			return nil, fmt.Errorf("catalogue: tier %s: price_factor %q is not a number of at least 0", name, t.PriceFactor)
		}
		c.tiers[name] = factor
	}
	for _, m := range file.Models {
		if err := c.check(m); err != nil {
			return nil, fmt.Errorf("catalogue: model %q: %w", m.ID, err)
		}
		c.models[m.ID] = m
	}
	if c.defaultModel = c.models[file.DefaultModel]; c.defaultModel == nil {
		return nil, fmt.Errorf("catalogue: default_model %q is not among the models", file.DefaultModel)
	}
	return c, nil
}

func (c *Catalogue) check(m *Model) error {
	switch {
	case m.ID == "":
		return fmt.Errorf("has no id")
	case c.models[m.ID] != nil:
		return fmt.Errorf("is listed twice")
	case len(m.Locations) == 0 || len(m.Sizes) == 0 || len(m.AspectRatios) == 0 || len(m.Tiers) == 0:
		return fmt.Errorf("needs locations, sizes, aspect_ratios and tiers")
	case m.MaxPromptBytes <= 0:
		return fmt.Errorf("needs max_prompt_bytes")
	}
	for size := range m.Sizes {
		if sizeRank(size) < 0 {
			return fmt.Errorf("size %q is unknown", size)
		}
	}
	for _, t := range m.Tiers {
		if c.tiers[t] == nil {
			return fmt.Errorf("tier %q has no price factor", t)
		}
	}
	return nil
}

// Version names the price table; lineage records it beside every cost.
func (c *Catalogue) Version() string { return c.version }

// Model returns the model with that id, or nil.
func (c *Catalogue) Model(id string) *Model { return c.models[id] }

// DefaultModel returns the model of jobs that name none.
func (c *Catalogue) DefaultModel() *Model { return c.defaultModel }

// ModelIDs returns the ids of all models, sorted.
func (c *Catalogue) ModelIDs() []string { return slices.Sorted(maps.Keys(c.models)) }
