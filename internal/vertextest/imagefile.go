package vertextest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"strings"
)

// The parts of the PNG and JPEG formats that the standard library does not
// write: text entries, padding, and plain pictures from kept image data.

const (
	pngSignature = "\x89PNG\r\n\x1a\n"
	// afterIHDR is where the header of a PNG ends.
	afterIHDR = 8 + 4 + 4 + 13 + 4
	// chunkOverhead is length, type and CRC of a PNG chunk.
	chunkOverhead = 12
	// padType marks padding: ancillary, private, safe to copy.
	padType = "pmPd"
)

// appendChunk appends a PNG chunk whose data are the given pieces.
func appendChunk(out []byte, kind string, data ...[]byte) []byte {
	n := 0
	crc := crc32.NewIEEE()
	_, _ = crc.Write([]byte(kind)) // hashes never fail
	for _, d := range data {
		n += len(d)
		_, _ = crc.Write(d)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(n))
	out = append(out, kind...)
	for _, d := range data {
		out = append(out, d...)
	}
	return binary.BigEndian.AppendUint32(out, crc.Sum32())
}

// insertPNG puts text entries after the header.
func insertPNG(file []byte, texts ...keyText) []byte {
	var chunks []byte
	for _, t := range texts {
		chunks = appendChunk(chunks, "tEXt", []byte(t.key), []byte{0}, []byte(t.text))
	}
	out := make([]byte, 0, len(file)+len(chunks))
	out = append(out, file[:afterIHDR]...)
	out = append(out, chunks...)
	return append(out, file[afterIHDR:]...)
}

// plain builds a PNG of vertical bands. The compressed pixels depend on
// the size alone; palette and text entries make each picture its own.
func (p *painter) plain(pic Picture, id [sha256.Size]byte, colours color.Palette) ([]byte, error) {
	data, err := p.plainData(image.Pt(pic.Width, pic.Height))
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(data)+1024)
	out = append(out, pngSignature...)
	head := binary.BigEndian.AppendUint32(nil, uint32(pic.Width))
	head = binary.BigEndian.AppendUint32(head, uint32(pic.Height))
	head = append(head, 8, 3, 0, 0, 0) // 8 bits, paletted
	out = appendChunk(out, "IHDR", head)
	for _, t := range pic.texts(id) {
		out = appendChunk(out, "tEXt", []byte(t.key), []byte{0}, []byte(t.text))
	}
	var palette []byte
	for i := 0; i < len(colours); i += inkLevels {
		r, g, b, _ := colours[i].RGBA()
		palette = append(palette, byte(r>>8), byte(g>>8), byte(b>>8))
	}
	out = appendChunk(out, "PLTE", palette)
	out = append(out, data...)
	return appendChunk(out, "IEND"), nil
}

// plainData returns the IDAT chunk of bands in the given size.
func (p *painter) plainData(size image.Point) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if data := p.bands[size]; data != nil {
		return data, nil
	}
	row := make([]byte, 1+size.X) // filter type 0, then pixels
	for x := range size.X {
		row[1+x] = byte(x * bgLevels / size.X)
	}
	var buf bytes.Buffer
	// The slower levels search long chains of equal hashes in such data: seconds at 4K.
	z, err := zlib.NewWriterLevel(&buf, zlib.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("compress bands: %w", err)
	}
	for range size.Y {
		if _, err := z.Write(row); err != nil {
			return nil, fmt.Errorf("compress bands: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress bands: %w", err)
	}
	if len(p.bands) >= maxBands {
		clear(p.bands)
	}
	data := appendChunk(nil, "IDAT", buf.Bytes())
	p.bands[size] = data
	return data, nil
}

// JPEG markers.
const (
	jpegSOI    = "\xff\xd8"
	markerCOM  = 0xfe
	comMax     = 65_533 // bytes of text in one segment: two of the 65,535 are the length
	comMinimum = 4      // marker and length
)

// insertJPEG puts text entries as comments after the start of the image.
func insertJPEG(file []byte, texts ...keyText) []byte {
	out := append([]byte(nil), jpegSOI...)
	for _, t := range texts {
		out = appendComment(out, []byte(t.key+"="+t.text))
	}
	return append(out, file[len(jpegSOI):]...)
}

func appendComment(out, text []byte) []byte {
	out = append(out, 0xff, markerCOM)
	out = binary.BigEndian.AppendUint16(out, uint16(len(text)+2))
	return append(out, text...)
}

// PromptHash returns the hex SHA-256 of the prompt that a PNG or JPEG file
// drawn by this package was made from, and whether it carries one. A broken
// file has none.
func PromptHash(file []byte) (string, bool) { return embedded(file, keyPrompt) }

// RequestHash returns the hex hash of everything that the picture in file
// depends on: requests that differ in prompt, model, size, ratio, seed or
// labels have different hashes.
func RequestHash(file []byte) (string, bool) { return embedded(file, keyRequest) }

// ContextHash returns what [HashContext] says of the request that the picture
// in file was made from, and whether it carries that: a picture that was made
// from one text alone does not.
func ContextHash(file []byte) (string, bool) { return embedded(file, keyContext) }

func embedded(file []byte, key string) (string, bool) {
	switch {
	case bytes.HasPrefix(file, []byte(pngSignature)):
		return embeddedPNG(file[len(pngSignature):], key)
	case bytes.HasPrefix(file, []byte(jpegSOI)):
		return embeddedJPEG(file[len(jpegSOI):], key)
	}
	return "", false
}

func embeddedPNG(rest []byte, key string) (string, bool) {
	for len(rest) >= chunkOverhead {
		n := int64(binary.BigEndian.Uint32(rest))
		if n > int64(len(rest)-chunkOverhead) {
			return "", false
		}
		kind, data := string(rest[4:8]), rest[8:8+n]
		if kind == "tEXt" {
			if k, v, ok := strings.Cut(string(data), "\x00"); ok && k == key {
				return v, true
			}
		}
		rest = rest[chunkOverhead+n:]
	}
	return "", false
}

func embeddedJPEG(rest []byte, key string) (string, bool) {
	for len(rest) >= comMinimum && rest[0] == 0xff && rest[1] == markerCOM {
		n := int(binary.BigEndian.Uint16(rest[2:]))
		if n < 2 || n+2 > len(rest) {
			return "", false
		}
		if v, ok := strings.CutPrefix(string(rest[4:2+n]), key+"="); ok {
			return v, true
		}
		rest = rest[2+n:]
	}
	return "", false
}
