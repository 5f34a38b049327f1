package vertextest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"testing"
)

// TestPaddingIsExact tries the sizes at which chunks and segments begin and end.
func TestPaddingIsExact(t *testing.T) {
	t.Parallel()
	pads := newPadder()
	for _, mime := range []string{"image/png", "image/jpeg"} {
		file, err := Draw(Picture{Prompt: "x", Width: 16, Height: 16, MIMEType: mime})
		if err != nil {
			t.Fatal(err)
		}
		smallest := chunkOverhead
		if mime == "image/jpeg" {
			smallest = comMinimum
		}
		for _, around := range []int{0, fillerSize, comMax + comMinimum, 2 * (comMax + comMinimum), 3 * fillerSize} {
			for extra := max(0, around-20); extra < around+20; extra++ {
				f := pads.file(mime, file, len(file)+extra)
				want := len(file)
				if extra >= smallest {
					want += extra
				}
				got := f.bytes()
				if len(got) != want || f.size != want {
					t.Errorf("%s with %d more: %d bytes, size %d; want %d", mime, extra, len(got), f.size, want)
				}
				if _, _, err := image.Decode(bytes.NewReader(got)); err != nil {
					t.Errorf("%s with %d more: %v", mime, extra, err)
				}
				if want := sha256.Sum256(got); f.sha256 != hex.EncodeToString(want[:]) {
					t.Errorf("%s with %d more: wrong hash", mime, extra)
				}
				if _, ok := PromptHash(got); !ok {
					t.Errorf("%s with %d more: no prompt hash", mime, extra)
				}
			}
		}
	}
}
