package vertextest

import (
	"fmt"
	"image"
	"math"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

type fonts struct{ regular, medium, bold *opentype.Font }

// loadFonts parses the fonts once; parsed fonts are read-only.
var loadFonts = sync.OnceValues(func() (fonts, error) {
	var f fonts
	for _, l := range []struct {
		to  **opentype.Font
		ttf []byte
	}{{&f.regular, goregular.TTF}, {&f.medium, gomedium.TTF}, {&f.bold, gobold.TTF}} {
		parsed, err := opentype.Parse(l.ttf)
		if err != nil {
			return fonts{}, fmt.Errorf("parse font: %w", err)
		}
		*l.to = parsed
	}
	return f, nil
})

// maxDrawnRunes bounds the prompt on the picture; the rest is cut with an ellipsis.
const maxDrawnRunes = 700

// paintText writes the prompt, SIMULATED across the bottom and the small print.
func paintText(img *image.Paletted, pic Picture) error {
	f, err := loadFonts()
	if err != nil {
		return err
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	margin := max(4, min(w, h)*7/100)
	bottom, err := paintFooter(img, f, pic, margin)
	if err != nil {
		return err
	}
	box := image.Rect(margin, margin, w-margin, bottom-margin/2)
	return paintPrompt(img, f.medium, withoutDirectives(pic.Prompt), box)
}

// paintFooter writes the small print and SIMULATED above it; it returns the
// top of what it wrote.
func paintFooter(img *image.Paletted, f fonts, pic Picture, margin int) (top int, err error) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	seed := "no seed"
	if pic.Seed != nil {
		seed = fmt.Sprintf("seed %d", *pic.Seed)
	}
	small := fmt.Sprintf("%s  ·  %s  ·  %s  ·  %d × %d  ·  %s", pic.Model, pic.Size, pic.AspectRatio, w, h, seed)
	m := measure(f.regular, small)
	size := min(float64(min(w, h))*0.022, float64(w-2*margin)/m)
	pen, err := newPen(img, f.regular, max(size, 5))
	if err != nil {
		return 0, err
	}
	base := h - margin
	pen.text(small, fixed.I(margin), base, inkFull, 0)
	pen.close()

	word := "SIMULATED"
	if pic.Thought {
		word = "SIMULATED DRAFT"
	}
	const tracking = 0.06 // extra space between letters, in ems
	m = measure(f.bold, word) + tracking*float64(len(word)-1)
	size = min(float64(w-2*margin)/m, float64(h)*0.24)
	big, err := newPen(img, f.bold, size)
	if err != nil {
		return 0, err
	}
	defer big.close()
	base -= int(max(pen.size, 5) * 2.1)
	big.text(word, fixed.I(margin), base, inkWatermark, fixed.Int26_6(tracking*size*64))
	return base - int(size*0.73), nil // 0.73 em is the height of capitals in this font
}

// paintPrompt sets the prompt as large as fits into box, between a heading's and a caption's size.
func paintPrompt(img *image.Paletted, f *opentype.Font, prompt string, box image.Rectangle) error {
	if runes := []rune(prompt); len(runes) > maxDrawnRunes {
		prompt = string(runes[:maxDrawnRunes]) + "…"
	}
	words := splitWords(f, prompt)
	if len(words) == 0 || box.Empty() {
		return nil
	}
	const leading = 1.28
	short := float64(min(img.Rect.Dx(), img.Rect.Dy()))
	smallest := max(6, short*0.018)
	widest := 0.0
	for _, w := range words {
		widest = max(widest, w.width)
	}
	var lines []string
	size := math.Sqrt(float64(img.Rect.Dx())*float64(img.Rect.Dy())) * 0.075
	size = min(size, float64(box.Dx())/widest)
	for ; ; size *= 0.93 {
		size = max(size, smallest)
		lines = wrap(words, float64(box.Dx())/size)
		if float64(len(lines))*size*leading <= float64(box.Dy()) {
			break
		}
		if size == smallest {
			fit := max(1, int(float64(box.Dy())/(size*leading)))
			if fit < len(lines) {
				lines = lines[:fit]
				lines[fit-1] += "…"
			}
			break
		}
	}
	pen, err := newPen(img, f, size)
	if err != nil {
		return err
	}
	defer pen.close()
	offset := max(1, int(size*0.05))
	for i, line := range lines {
		base := box.Min.Y + int(size*(0.85+float64(i)*leading))
		pen.text(line, fixed.I(box.Min.X+offset), base+offset, -inkShadow, 0)
		pen.text(line, fixed.I(box.Min.X), base, inkFull, 0)
	}
	return nil
}

// word is a piece of text that is not broken, with its width in ems.
type word struct {
	text    string
	width   float64
	glued   bool // no space before it: a piece of a word too long for a line
	newline bool
}

const (
	// refSize is the size at which text is measured; widths scale with size.
	refSize = 64
	// maxPiece breaks long words, and scripts without spaces, into pieces.
	maxPiece = 12
)

func measure(f *opentype.Font, s string) float64 {
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: refSize, DPI: 72})
	if err != nil {
		return float64(len(s))
	}
	defer face.Close()
	return float64(font.MeasureString(face, drawable(f, s))) / 64 / refSize
}

func splitWords(f *opentype.Font, s string) []word {
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: refSize, DPI: 72})
	if err != nil {
		return nil
	}
	defer face.Close()
	var out []word
	for i, line := range strings.Split(s, "\n") {
		first := i > 0
		for _, text := range strings.FieldsFunc(line, unicode.IsSpace) {
			glued := false
			for runes := []rune(drawable(f, text)); len(runes) > 0; glued = true {
				n := min(len(runes), maxPiece)
				if len(runes) <= 2*maxPiece && unicode.IsLetter(runes[0]) && runes[0] < 0x2000 {
					n = len(runes) // an ordinary word stays whole
				}
				piece := string(runes[:n])
				runes = runes[n:]
				width := float64(font.MeasureString(face, piece)) / 64 / refSize
				out = append(out, word{piece, width, glued, first})
				first = false
			}
		}
	}
	return out
}

// wrap sets words into lines of at most width ems. A word wider than a line has its own.
func wrap(words []word, width float64) []string {
	const space = 0.28
	var lines []string
	var line strings.Builder
	at := 0.0
	for _, w := range words {
		gap := space
		if w.glued {
			gap = 0
		}
		if line.Len() > 0 && (w.newline || at+gap+w.width > width) {
			lines = append(lines, line.String())
			line.Reset()
		}
		if line.Len() > 0 && !w.glued {
			line.WriteByte(' ')
			at += gap
		} else if line.Len() == 0 {
			at = 0
		}
		line.WriteString(w.text)
		at += w.width
	}
	return append(lines, line.String())
}

// drawable drops control and combining characters, which the font has no
// glyphs for, and puts a box for other characters that it lacks.
func drawable(f *opentype.Font, s string) string {
	var buf sfnt.Buffer
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		if i, err := f.GlyphIndex(&buf, r); err != nil || i == 0 {
			return '□'
		}
		return r
	}, s)
}

// pen writes text in one font size.
type pen struct {
	img  *image.Paletted
	font *opentype.Font
	face font.Face
	size float64
}

func newPen(img *image.Paletted, f *opentype.Font, size float64) (*pen, error) {
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: max(size, 1), DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		return nil, fmt.Errorf("font face: %w", err)
	}
	return &pen{img: img, font: f, face: face, size: size}, nil
}

func (p *pen) close() { _ = p.face.Close() } // opentype faces hold no resources; Close never fails

// text writes s from x at the base line y. A negative ink is the shadow, which
// only marks pixels without ink.
func (p *pen) text(s string, x fixed.Int26_6, y, ink int, tracking fixed.Int26_6) {
	dot := fixed.Point26_6{X: x, Y: fixed.I(y)}
	last := rune(-1)
	for _, r := range drawable(p.font, s) {
		if last >= 0 {
			dot.X += p.face.Kern(last, r) + tracking
		}
		dr, mask, at, advance, ok := p.face.Glyph(dot, r)
		if ok {
			if alpha, isAlpha := mask.(*image.Alpha); isAlpha {
				p.stamp(dr, alpha, at, ink)
			}
		}
		dot.X += advance
		last = r
	}
}

// stamp blends one glyph: the ink level is the glyph's coverage, in steps.
func (p *pen) stamp(dr image.Rectangle, mask *image.Alpha, at image.Point, ink int) {
	clip := dr.Intersect(p.img.Rect)
	for y := clip.Min.Y; y < clip.Max.Y; y++ {
		from := mask.PixOffset(at.X+clip.Min.X-dr.Min.X, at.Y+y-dr.Min.Y)
		src := mask.Pix[from : from+clip.Dx()]
		to := p.img.PixOffset(clip.Min.X, y)
		dst := p.img.Pix[to : to+clip.Dx()]
		for i, a := range src {
			if a < 24 {
				continue
			}
			old := dst[i]
			if ink < 0 {
				if a > 127 && old&inkBits == 0 {
					dst[i] = old | inkShadow
				}
				continue
			}
			// Inks 2 to ink are growing shares of white; 1 is the shadow.
			level := byte(1 + (int(a)*(ink-1)+127)/255)
			if level > 1 && level > old&inkBits {
				dst[i] = old&^inkBits | level
			}
		}
	}
}
