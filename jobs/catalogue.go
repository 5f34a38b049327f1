package jobs

import (
	_ "embed"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
)

//go:embed catalogue.json
var catalogueJSON []byte

// Tiers of the built-in catalogue that code has to tell apart.
const (
	TierStandard  = "standard"
	TierDedicated = "dedicated" // an endpoint of the project's own
	TierBatch     = "batch"
)

// Model is one row of the catalogue: what a model offers and costs.
type Model struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Locations  []string       `json:"locations"` // Vertex locations that serve it
	Tiers      []string       `json:"tiers"`
	Sizes      map[string]int `json:"sizes"` // size class to output tokens of one image; 0 where it is paid by the image
	BatchSizes []string       `json:"batch_sizes"`
	// AspectRatios are width to height, such as `16:9`.
	AspectRatios   []string `json:"aspect_ratios"`
	MaxReferences  int      `json:"max_references"` // images that go in, those of turns included
	MaxPromptBytes int      `json:"max_prompt_bytes"`
	// ReferenceTokens is the number of input tokens of one image that goes in.
	ReferenceTokens int       `json:"reference_tokens"`
	Price           ListPrice `json:"usd_per_million_tokens"`
	// USDPerImage is the price of an image by size class, in US dollars, for sizes that are not paid by tokens.
	USDPerImage map[string]string `json:"usd_per_image"`

	imagePrices map[string]USD // USDPerImage, read
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

// HasTier reports whether the model is offered in a tier.
func (m *Model) HasTier(tier string) bool { return slices.Contains(m.Tiers, tier) }

// sizeRank orders `512` before `1K`, `2K`, `4K`, and is negative for what is no size class.
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

// Version names the price table; lineage records it beside every cost.
func (c *Catalogue) Version() string { return c.version }

// Model returns the model with that id, or nil.
func (c *Catalogue) Model(id string) *Model { return c.models[id] }

// DefaultModel returns the model of jobs that name none.
func (c *Catalogue) DefaultModel() *Model { return c.defaultModel }

// ModelIDs returns the ids of all models, sorted.
func (c *Catalogue) ModelIDs() []string { return slices.Sorted(maps.Keys(c.models)) }

// Tiers returns the names of all tiers, sorted.
func (c *Catalogue) Tiers() []string { return slices.Sorted(maps.Keys(c.tiers)) }

// PriceFactor returns what a tier's price is of the list price, or nil for a tier that the catalogue does not have. The caller may
// change it.
func (c *Catalogue) PriceFactor(tier string) *big.Rat {
	factor := c.tiers[tier]
	if factor == nil {
		return nil
	}
	return new(big.Rat).Set(factor)
}

// HasTier reports whether the catalogue has the model and offers it in the tier.
func (c *Catalogue) HasTier(model, tier string) bool {
	m := c.models[model]
	return m != nil && m.HasTier(tier)
}
