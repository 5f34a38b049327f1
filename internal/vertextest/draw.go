package vertextest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"strconv"
	"sync"
)

// Picture says what to draw. Equal pictures are drawn byte for byte alike.
type Picture struct {
	Prompt            string
	Context           string // see HashContext; empty: the prompt is all there is
	Model             string
	Size, AspectRatio string // as in the API; give the pixel size, see [PixelSize]
	Seed              *int32 // nil: none
	Variant           string // tells calls with the same prompt and seed apart
	MIMEType          string // image/png (default) or image/jpeg
	Quality           int    // of a JPEG, 1 to 100; 0: the encoder's default
	Plain             bool   // bands without text, PNG only
	Thought           bool   // an interim image: half size, grey, without a prompt hash
	Width, Height     int    // in pixels; 0: from AspectRatio and Size
}

// maxSide bounds width and height: the longest documented side is 8:1 at 4K.
const maxSide = 12_288

// Draw returns the picture as a PNG or JPEG file. It is safe for concurrent use.
func Draw(p Picture) ([]byte, error) { return newPainter().draw(p) }

// A picture is a paletted image: the palette has bgLevels colours, each in
// inkLevels mixtures with the ink on top. A pixel is level*inkLevels + ink, so
// text is blended by changing three bits, without colour arithmetic.
const (
	bgLevels  = 32
	inkLevels = 8
	inkBits   = inkLevels - 1
)

// inkMix is the share of white for each ink; the second is a shadow instead.
func inkMix() [inkLevels]float64 { return [...]float64{0, -0.45, 0.14, 0.28, 0.46, 0.64, 0.82, 1} }

const (
	inkShadow    = 1
	inkWatermark = 3 // SIMULATED stays behind the prompt
	inkFull      = inkLevels - 1
)

// painter reuses buffers between pictures and keeps the compressed bands of
// plain pictures, one small entry for each pixel size. Safe for concurrent use.
type painter struct {
	pixels sync.Pool // *[]byte
	png    pngPool

	mu    sync.Mutex
	bands map[image.Point][]byte
}

// maxBands bounds the kept bands: 15 ratios in 4 sizes, and their thought images.
const maxBands = 128

func newPainter() *painter { return &painter{bands: map[image.Point][]byte{}} }

// pngPool implements png.EncoderBufferPool.
type pngPool struct{ sync.Pool }

func (p *pngPool) Get() *png.EncoderBuffer {
	b, _ := p.Pool.Get().(*png.EncoderBuffer)
	return b
}

func (p *pngPool) Put(b *png.EncoderBuffer) { p.Pool.Put(b) }

func (p *painter) draw(pic Picture) ([]byte, error) {
	w, h := pic.Width, pic.Height
	if w == 0 && h == 0 {
		var ok bool
		if w, h, ok = PixelSize(pic.AspectRatio, pic.Size); !ok {
			return nil, fmt.Errorf("draw: unknown aspect ratio %q or size %q", pic.AspectRatio, pic.Size)
		}
	}
	if pic.Thought {
		w, h = max(1, w/2), max(1, h/2)
	}
	if w < 1 || h < 1 || w > maxSide || h > maxSide {
		return nil, fmt.Errorf("draw: %d x %d pixels, allowed is 1 to %d", w, h, maxSide)
	}
	pic.Width, pic.Height = w, h
	id := pic.identity()
	colours := ramp(id, pic.Thought)
	if pic.Plain && pic.MIMEType != "image/jpeg" {
		return p.plain(pic, id, colours)
	}
	buf := p.buffer(w * h)
	defer p.pixels.Put(buf)
	img := &image.Paletted{Pix: *buf, Stride: w, Rect: image.Rect(0, 0, w, h), Palette: colours}
	paintGround(img, id)
	if err := paintText(img, pic); err != nil {
		return nil, fmt.Errorf("draw: %w", err)
	}
	if pic.MIMEType == "image/jpeg" {
		return encodeJPEG(img, pic, id)
	}
	var out bytes.Buffer
	out.Grow(w*h/8 + 4096)
	enc := png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &p.png}
	if err := enc.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("draw: %w", err)
	}
	return insertPNG(out.Bytes(), pic.texts(id)...), nil
}

func (p *painter) buffer(n int) *[]byte {
	if b, ok := p.pixels.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

// identity hashes all that the picture depends on.
func (pic Picture) identity() [sha256.Size]byte {
	h := sha256.New()
	seed := "none"
	if pic.Seed != nil {
		seed = strconv.Itoa(int(*pic.Seed))
	}
	for _, s := range []string{
		pic.Prompt, pic.Model, pic.Size, pic.AspectRatio, seed, pic.Variant, pic.MIMEType,
		fmt.Sprint(pic.Thought, pic.Width, pic.Height, pic.Quality),
	} {
		addText(h, s)
	}
	if pic.Context != "" {
		addText(h, pic.Context)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Keywords of the text in the file.
const (
	keyPrompt  = "assetmill:prompt-sha256"
	keyContext = "assetmill:context-sha256"
	keyRequest = "assetmill:request-sha256"
	keyComment = "Description"
)

// keyText is one text entry of a PNG (tEXt chunk) or a JPEG (COM segment).
type keyText struct{ key, text string }

// texts are the entries of a picture. The request hash gives different
// requests different bytes even where they look alike.
func (pic Picture) texts(id [sha256.Size]byte) []keyText {
	out := []keyText{
		{keyComment, "SIMULATED image for tests, drawn by a program and not made by a model"},
		{keyRequest, hex.EncodeToString(id[:])},
	}
	if !pic.Thought {
		sum := sha256.Sum256([]byte(pic.Prompt))
		out = append(out, keyText{keyPrompt, hex.EncodeToString(sum[:])})
		if pic.Context != "" {
			out = append(out, keyText{keyContext, pic.Context})
		}
	}
	return out
}

// ramp makes the palette: from a dark colour through a second hue to a
// brighter third, in OKLCH so that every ramp is as dark and white text
// is as legible on it.
func ramp(id [sha256.Size]byte, grey bool) color.Palette {
	// Both ends lie between teal and orange, by way of blue and red: dark yellows and greens look muddy.
	const from, to = 165 * math.Pi / 180, 400 * math.Pi / 180
	hue := from + float64(id[0])/255*(to-from)
	turn := 0.6 + float64(id[1])/255*1.1 // radians between the ends: related, not clashing
	if hue+turn > to || (id[2]&1 == 1 && hue-turn > from) {
		turn = -turn
	}
	chroma := 0.085 + float64(id[3])/256*0.05
	if grey {
		chroma = 0
	}
	mix := inkMix()
	out := make(color.Palette, 0, bgLevels*inkLevels)
	for i := range bgLevels {
		t := float64(i) / (bgLevels - 1)
		base := oklch(0.25+0.37*t*(0.55+0.45*t), chroma*(0.75+0.5*t), hue+turn*t)
		for _, m := range mix {
			out = append(out, blend(base, m))
		}
	}
	return out
}

// blend mixes c with white by m, or with black by -m.
func blend(c [3]float64, m float64) color.Color {
	to, share := 1.0, m
	if m < 0 {
		to, share = 0, -m
	}
	var v [3]uint8
	for i := range c {
		v[i] = uint8(math.Round(255 * (c[i] + (to-c[i])*share)))
	}
	return color.NRGBA{v[0], v[1], v[2], 255}
}

// oklch converts lightness, chroma and hue to sRGB in 0 to 1.
func oklch(l, c, h float64) [3]float64 {
	a, b := c*math.Cos(h), c*math.Sin(h)
	cube := func(v float64) float64 { return v * v * v }
	lc := cube(l + 0.3963377774*a + 0.2158037573*b)
	mc := cube(l - 0.1055613458*a - 0.0638541728*b)
	sc := cube(l - 0.0894841775*a - 1.2914855480*b)
	linear := [3]float64{
		4.0767416621*lc - 3.3077115913*mc + 0.2309699292*sc,
		-1.2684380046*lc + 2.6097574011*mc - 0.3413193965*sc,
		-0.0041960863*lc - 0.7034186147*mc + 1.7076147010*sc,
	}
	var out [3]float64
	for i, v := range linear {
		v = min(1, max(0, v))
		if v <= 0.0031308 {
			out[i] = 12.92 * v
		} else {
			out[i] = 1.055*math.Pow(v, 1/2.4) - 0.055
		}
	}
	return out
}

// paintGround fills img with smooth contours: the sum of four waves, along x,
// y and two bent diagonals, cut into levels. Waves are tables, so a pixel costs
// four loads.
func paintGround(img *image.Paletted, id [sha256.Size]byte) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	long := max(w, h)
	const unit = 1 << 16
	wave := func(n, k int, weight float64) []int32 {
		cycles := 0.35 + 0.9*float64(id[4+2*k])/256
		phase := 2 * math.Pi * float64(id[5+2*k]) / 256
		t := make([]int32, n)
		for i := range t {
			v := 0.5 + 0.5*math.Sin(2*math.Pi*cycles*float64(i)/float64(long)+phase)
			t[i] = int32(v * weight * unit)
		}
		return t
	}
	// The last two rows bend the diagonals, in pixels.
	bendBy := float64(long) * 0.16
	bend := wave(h, 4, 1)
	tx, ty := wave(w, 0, 0.2), wave(h, 1, 0.24)
	td := wave(w+h+long, 2, 0.34)
	te := wave(w+h+long, 3, 0.21)
	for y := range h {
		row := img.Pix[y*img.Stride : y*img.Stride+w]
		shift := int(float64(bend[y]) / unit * bendBy)
		d := td[y+shift:]
		e := te[h-1-y+shift:]
		base := ty[y]
		d, e, x := d[:w], e[:w], tx[:w]
		for i := range row {
			level := (base + x[i] + d[i] + e[i]) * bgLevels >> 16
			row[i] = uint8(level) * inkLevels
		}
	}
}

func encodeJPEG(img *image.Paletted, pic Picture, id [sha256.Size]byte) ([]byte, error) {
	// The encoder's fast path takes YCbCr; through the palette it would convert each pixel by an interface call.
	out := image.NewYCbCr(img.Rect, image.YCbCrSubsampleRatio444)
	var table [256][3]uint8
	for i, c := range img.Palette {
		r, g, b, _ := c.RGBA()
		table[i][0], table[i][1], table[i][2] = color.RGBToYCbCr(uint8(r>>8), uint8(g>>8), uint8(b>>8))
	}
	w := img.Rect.Dx()
	for y := range img.Rect.Dy() {
		row := img.Pix[y*img.Stride : y*img.Stride+w]
		at := y * out.YStride
		for i, p := range row {
			c := &table[p]
			out.Y[at+i], out.Cb[at+i], out.Cr[at+i] = c[0], c[1], c[2]
		}
	}
	quality := pic.Quality
	if quality == 0 {
		quality = jpeg.DefaultQuality
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, out, &jpeg.Options{Quality: quality}); err != nil {
		return nil, fmt.Errorf("draw: %w", err)
	}
	return insertJPEG(buf.Bytes(), pic.texts(id)...), nil
}
