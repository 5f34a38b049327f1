// Package imagehead reads an image's media type and dimensions from its first bytes. It decodes no pixels.
//
// Bytes tell more than declarations: where they disagree, the bytes are right. Pictures whose beginning is cut off too early still have
// their type, without dimensions.
package imagehead

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"

	"golang.org/x/image/webp"
)

// magicBytes is how many bytes tell each of the known types.
const magicBytes = 12

// format is an image type that is known by its first bytes.
type format struct {
	mime   string
	magic  func(head []byte) bool
	config func(io.Reader) (image.Config, error)
}

var formats = []format{
	{"image/png", prefix("\x89PNG\r\n\x1a\n"), png.DecodeConfig},
	{"image/jpeg", prefix("\xff\xd8\xff"), jpeg.DecodeConfig},
	{"image/webp", func(head []byte) bool {
		return len(head) >= magicBytes && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP"
	}, webp.DecodeConfig},
}

func prefix(magic string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
}

// Identify returns the media type and the dimensions, in pixels, of the image that open reads from its start, each time that it is
// called. A type that is none of PNG, JPEG and WebP is believed as declared. Dimensions that can't be read are 0. ok is false
// for bytes that are no image: empty, of no known type, and declared to be of a known one or of none.
func Identify(open func() io.Reader, declared string) (mime string, width, height int, ok bool) {
	var head [magicBytes]byte
	n, _ := io.ReadFull(open(), head[:])
	for _, f := range formats {
		if !f.magic(head[:n]) {
			continue
		}
		if c, err := f.config(open()); err == nil {
			width, height = c.Width, c.Height
		}
		return f.mime, width, height, true
	}
	declared, _, _ = strings.Cut(strings.ToLower(declared), ";")
	declared = strings.TrimSpace(declared)
	for _, f := range formats {
		if f.mime == declared {
			return "", 0, 0, false
		}
	}
	return declared, 0, 0, n > 0 && strings.HasPrefix(declared, "image/")
}
