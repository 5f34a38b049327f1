package imagehead_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/imagehead"
)

func pngImage(t *testing.T, width, height int) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func jpegImage(t *testing.T, width, height int) string {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, width, height)), nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	// The smallest lossless WebP: one pixel.
	webp := "RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
	tests := []struct {
		name, bytes, declared string
		mime                  string
		width, height         int
		ok                    bool
	}{
		{"PNG", pngImage(t, 5, 3), "image/png", "image/png", 5, 3, true},
		{"JPEG", jpegImage(t, 5, 3), "image/jpeg", "image/jpeg", 5, 3, true},
		{"WebP", webp, "image/webp", "image/webp", 1, 1, true},
		{"JPEG that says it is PNG", jpegImage(t, 5, 3), "image/png", "image/jpeg", 5, 3, true},
		{"PNG that says nothing", pngImage(t, 5, 3), "", "image/png", 5, 3, true},
		{"the beginning of a PNG", pngImage(t, 500, 300)[:64], "image/png", "image/png", 500, 300, true},
		{"PNG with a broken head", pngImage(t, 5, 3)[:10], "image/png", "image/png", 0, 0, true},
		{"something new", "....ftypavif", "image/AVIF; x=y", "image/avif", 0, 0, true},
		{"no PNG", "hello", "image/png", "", 0, 0, false},
		{"nothing", "", "image/avif", "image/avif", 0, 0, false},
		{"no image", "hello", "text/plain", "text/plain", 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			open := func() io.Reader { return strings.NewReader(test.bytes) }
			mime, width, height, ok := imagehead.Identify(open, test.declared)
			if mime != test.mime || width != test.width || height != test.height || ok != test.ok {
				t.Errorf("got %q, %d x %d, %v", mime, width, height, ok)
			}
		})
	}
}
