package vertextest

import (
	"slices"
	"strings"
)

// Model says what one model accepts and what it counts. It is data: a test
// that needs another model adds a row through [Config.Models].
type Model struct {
	ID string
	// Locations where the model is offered; everywhere else it is a 404.
	Locations []string
	// Sizes and Ratios that it accepts; anything else is a 400.
	Sizes  []string
	Ratios []string
	// MaxReferences is the number of images that a prompt may carry.
	MaxReferences int
	// MaxInputTokens is the context window on the input side.
	MaxInputTokens int
	// ReferenceTokens is the number of input tokens of one reference image.
	ReferenceTokens int
	// ImageTokens is the number of output tokens of one image, by size.
	ImageTokens map[string]int
	// Thinks is whether answers count thinking tokens.
	Thinks bool
	// BatchSizes are the sizes that batch prediction makes. Empty: 1K only.
	BatchSizes []string
	// Flex is whether the Flex tier exists for the model.
	Flex bool
}

// Sizes as the API spells them.
const (
	size512 = "512"
	size1K  = "1K"
	size2K  = "2K"
	size4K  = "4K"
)

// DefaultModels returns the image models that Vertex AI serves, as documented
// in 2026-11. The caller owns the slice. gemini-nano-banana-2.1 has no page on
// the platform yet: its limits and its 2K tokens are assumptions.
func DefaultModels() []Model {
	global := []string{"global"}
	common := []string{"1:1", "3:2", "2:3", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
	tall := []string{"1:4", "4:1", "1:8", "8:1"}
	all := slices.Concat(common, tall, []string{"9:21"})
	return []Model{
		{
			ID: "gemini-3-pro-image", Locations: global,
			Sizes: []string{size1K, size2K, size4K}, Ratios: all,
			MaxReferences: 14, MaxInputTokens: 65_536, ReferenceTokens: 560,
			ImageTokens: map[string]int{size1K: 1120, size2K: 1120, size4K: 2000},
			Thinks:      true, Flex: true,
		},
		{
			ID: "gemini-3.1-flash-image", Locations: global,
			Sizes: []string{size512, size1K, size2K, size4K}, Ratios: all,
			MaxReferences: 14, MaxInputTokens: 131_072, ReferenceTokens: 1120,
			ImageTokens: map[string]int{size512: 747, size1K: 1120, size2K: 1680, size4K: 2520},
			Thinks:      true, Flex: true,
		},
		{
			ID: "gemini-3.1-flash-lite-image", Locations: global,
			Sizes: []string{size1K}, Ratios: slices.Concat(common, tall),
			MaxReferences: 14, MaxInputTokens: 65_536, ReferenceTokens: 1120,
			ImageTokens: map[string]int{size1K: 1120},
			Thinks:      true, Flex: true,
		},
		{
			ID: "gemini-2.5-flash-image",
			Locations: []string{
				"global", "us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1", "us-west4",
				"europe-central2", "europe-north1", "europe-southwest1", "europe-west1", "europe-west4", "europe-west8",
			},
			Sizes: []string{size1K}, Ratios: common,
			MaxReferences: 3, MaxInputTokens: 32_768, ReferenceTokens: 258,
			ImageTokens: map[string]int{size1K: 1290},
		},
		{
			ID: "gemini-nano-banana-2.1", Locations: global,
			Sizes: []string{size1K, size2K, size4K}, Ratios: all,
			MaxReferences: 14, MaxInputTokens: 65_536, ReferenceTokens: 1120,
			ImageTokens: map[string]int{size1K: 1120, size2K: 1680, size4K: 3780},
			Thinks:      true, Flex: true,
		},
	}
}

// PixelSize returns the width and height in pixels of an image of the given
// aspect ratio and size, and whether both are known. 1:1, 16:9 and 4:5 are as
// documented; the others follow the same rule, multiples of 16 near one
// megapixel at 1K, doubled for 2K and again for 4K, halved for 512.
func PixelSize(ratio, size string) (width, height int, ok bool) {
	var w, h int
	switch ratio {
	case "1:1":
		w, h = 1024, 1024
	case "3:2":
		w, h = 1264, 848
	case "4:3":
		w, h = 1200, 896
	case "5:4":
		w, h = 1152, 928
	case "16:9":
		w, h = 1376, 768
	case "21:9":
		w, h = 1584, 672
	case "4:1":
		w, h = 2048, 512
	case "8:1":
		w, h = 3072, 384
	case "2:3", "3:4", "4:5", "9:16", "9:21", "1:4", "1:8":
		a, b, _ := strings.Cut(ratio, ":")
		if h, w, ok = PixelSize(b+":"+a, size); !ok {
			return 0, 0, false
		}
		return w, h, true
	default:
		return 0, 0, false
	}
	switch size {
	case size512:
		return w / 2, h / 2, true
	case size1K:
		return w, h, true
	case size2K:
		return w * 2, h * 2, true
	case size4K:
		return w * 4, h * 4, true
	default:
		return 0, 0, false
	}
}
