package vertextest_test

import (
	"bytes"
	"image"
	"image/color"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func lighthouse() vertextest.Picture {
	return vertextest.Picture{
		Prompt: "A lighthouse in a storm, oil on canvas, thick brush strokes, seen from the sea at dusk",
		Model:  "gemini-3-pro-image", Size: "1K", AspectRatio: "1:1",
	}
}

func draw(t testing.TB, p vertextest.Picture) []byte {
	t.Helper()
	file, err := vertextest.Draw(p)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDrawIsDeterministicAndDistinct(t *testing.T) {
	t.Parallel()
	base := draw(t, lighthouse())
	if !bytes.Equal(base, draw(t, lighthouse())) {
		t.Error("the same picture is drawn differently")
	}
	seed := int32(0)
	for name, change := range map[string]func(*vertextest.Picture){
		"prompt":  func(p *vertextest.Picture) { p.Prompt += "." },
		"model":   func(p *vertextest.Picture) { p.Model = "m" },
		"seed":    func(p *vertextest.Picture) { p.Seed = &seed },
		"variant": func(p *vertextest.Picture) { p.Variant = "2" },
		"thought": func(p *vertextest.Picture) { p.Thought = true },
		"ratio":   func(p *vertextest.Picture) { p.AspectRatio = "4:5" },
	} {
		for _, plain := range []bool{false, true} {
			p, same := lighthouse(), lighthouse()
			p.Plain, same.Plain = plain, plain
			change(&p)
			a, _ := vertextest.RequestHash(draw(t, p))
			b, _ := vertextest.RequestHash(draw(t, same))
			if a == b || a == "" || bytes.Equal(draw(t, p), draw(t, same)) {
				t.Errorf("another %s (plain %v) is the same picture", name, plain)
			}
		}
	}
}

func TestDrawOddInput(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*vertextest.Picture){
		"empty prompt":      func(p *vertextest.Picture) { p.Prompt = "" },
		"only a directive":  func(p *vertextest.Picture) { p.Prompt = "[[two]]" },
		"very long":         func(p *vertextest.Picture) { p.Prompt = strings.Repeat("lorem ipsum ", 5000) },
		"one long word":     func(p *vertextest.Picture) { p.Prompt = strings.Repeat("W", 3000) },
		"no spaces":         func(p *vertextest.Picture) { p.Prompt = strings.Repeat("東京の夜景", 100) },
		"invalid UTF-8":     func(p *vertextest.Picture) { p.Prompt = "a\xff\xfe\x00b\u202e\u0301\n\n\nc" },
		"only controls":     func(p *vertextest.Picture) { p.Prompt = "\u200b\u0000\t\n" },
		"one pixel":         func(p *vertextest.Picture) { p.Width, p.Height = 1, 1 },
		"narrow":            func(p *vertextest.Picture) { p.Width, p.Height = 3, 900 },
		"tallest at 512":    func(p *vertextest.Picture) { p.Size, p.AspectRatio = "512", "1:8" },
		"jpeg of one pixel": func(p *vertextest.Picture) { p.Width, p.Height, p.MIMEType = 1, 1, "image/jpeg" },
		"long model":        func(p *vertextest.Picture) { p.Model = strings.Repeat("model", 100) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := lighthouse()
			change(&p)
			if _, _, err := image.Decode(bytes.NewReader(draw(t, p))); err != nil {
				t.Error(err)
			}
		})
	}
	for _, p := range []vertextest.Picture{{Size: "3K", AspectRatio: "1:1"}, {Width: 1 << 20, Height: 1}, {Width: -1, Height: 5}, {}} {
		if _, err := vertextest.Draw(p); err == nil {
			t.Errorf("%+v was drawn", p)
		}
	}
}

// TestTextIsLegible checks that white text is on the picture and that the
// ground behind it is dark enough for it, for many palettes.
func TestTextIsLegible(t *testing.T) {
	t.Parallel()
	for seed := range int32(20) {
		p := lighthouse()
		p.Size, p.Seed, p.Model = "512", &seed, "gemini-3.1-flash-image"
		p.Width, p.Height = 512, 512
		img, _, err := image.Decode(bytes.NewReader(draw(t, p)))
		if err != nil {
			t.Fatal(err)
		}
		white, brightest := 0, 0.0
		for y := range 512 {
			for x := range 512 {
				c := img.At(x, y)
				if (x < 10 || y < 10) && luminance(c) > brightest {
					brightest = luminance(c) // the margin has no text
				}
				if luminance(c) > 0.95 {
					white++
				}
			}
		}
		if white < 2000 {
			t.Errorf("seed %d: %d white pixels: there is no text", seed, white)
		}
		// WCAG asks 3:1 of large text.
		if contrast := 1.05 / (brightest + 0.05); contrast < 3 {
			t.Errorf("seed %d: contrast %.1f", seed, contrast)
		}
	}
}

// luminance is the relative luminance of c, with a gamma of 2.2.
func luminance(c color.Color) float64 {
	r, g, b, _ := c.RGBA()
	l := func(v uint32) float64 { f := float64(v) / 0xffff; return f * f * (0.7 + 0.3*f) }
	return 0.2126*l(r) + 0.7152*l(g) + 0.0722*l(b)
}

func FuzzPromptHash(f *testing.F) {
	p := lighthouse()
	p.Width, p.Height = 16, 16
	file := draw(f, p)
	p.MIMEType = "image/jpeg"
	jpeg := draw(f, p)
	for _, b := range [][]byte{file, file[:len(file)/2], jpeg, jpeg[:5], file[:9], nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := vertextest.PromptHash(b); !ok {
			_, _ = vertextest.RequestHash(b)
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	for _, size := range []string{"1K", "2K", "4K"} {
		b.Run(size, func(b *testing.B) {
			p := lighthouse()
			p.Size = size
			for i := range b.N {
				seed := int32(i)
				p.Seed = &seed
				draw(b, p)
			}
		})
	}
	b.Run("jpeg", func(b *testing.B) {
		p := lighthouse()
		p.MIMEType = "image/jpeg"
		for b.Loop() {
			draw(b, p)
		}
	})
}
