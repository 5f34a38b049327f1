package vertex

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"

	"golang.org/x/image/webp"

	"github.com/assetmill/assetmill/internal/blob"
)

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
		return len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP"
	}, webp.DecodeConfig},
}

func prefix(magic string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
}

// identify returns an image's media type and dimensions. Where the bytes and the declared type disagree, the bytes are
// right. A type that is none of the known ones is believed, without dimensions. ok is false for bytes that are no image:
// empty, of no known type, and declared to be of a known one or of none.
func identify(b *blob.Blob, declared string) (mime string, width, height int, ok bool) {
	var head [12]byte
	n, _ := io.ReadFull(b.NewReader(), head[:])
	for _, f := range formats {
		if !f.magic(head[:n]) {
			continue
		}
		if c, err := f.config(b.NewReader()); err == nil {
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
