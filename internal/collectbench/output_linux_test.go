package collectbench

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"slices"
)

// What a line has around the request and the image, as Vertex writes it.
const (
	beforeRequest = `{"status":"","processed_time":"2026-11-23T10:00:00.000+00:00","request":`
	beforeImage   = `,"response":{"candidates":[{"content":{"parts":[{"inlineData":{"data":"`
	afterImage    = `","mimeType":"image/png"},"thoughtSignature":"c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"}],"role":"model"},"finishReason":"STOP"}],` +
		`"modelVersion":"gemini-3-pro-image","responseId":"YmVuY2gtYmVuY2gtYmVu","usageMetadata":{"promptTokenCount":52,"candidatesTokenCount":1120,` +
		`"totalTokenCount":1372,"promptTokensDetails":[{"modality":"TEXT","tokenCount":52}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1120}],` +
		`"thoughtsTokenCount":200}}` + "}\n"
)

// output is the file that Vertex leaves behind: a line with an image for each request, in an order of its own. It is made as it is read, and
// is the same each time.
type output struct {
	heads [][]byte // of the lines, up to the image
	ends  []int64  // where the lines end
	rest  []byte   // of every line: the image and what is behind it
}

// newOutput answers the requests of an input file, each with the image.
func newOutput(input, picture []byte) *output {
	o := &output{rest: append(base64.StdEncoding.AppendEncode(nil, picture), afterImage...)}
	for line := range bytes.Lines(input) {
		request := bytes.TrimSuffix(bytes.TrimPrefix(line, []byte(`{"request":`)), []byte("}\n"))
		o.heads = append(o.heads, slices.Concat([]byte(beforeRequest), request, []byte(beforeImage)))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(o.heads), func(i, j int) { o.heads[i], o.heads[j] = o.heads[j], o.heads[i] })
	end := int64(0)
	for _, head := range o.heads {
		end += int64(len(head) + len(o.rest))
		o.ends = append(o.ends, end)
	}
	return o
}

func (o *output) size() int64 { return o.ends[len(o.ends)-1] }

// copyTo writes the bytes from one place up to another.
func (o *output) copyTo(w io.Writer, from, to int64) error {
	line, _ := slices.BinarySearchFunc(o.ends, from, func(end, from int64) int { return cmp.Or(cmp.Compare(end, from), -1) })
	for ; from < to; line++ {
		start := o.ends[line] - int64(len(o.heads[line])+len(o.rest))
		for _, part := range [][]byte{o.heads[line], o.rest} {
			first := min(max(from-start, 0), int64(len(part)))
			last := min(to-start, int64(len(part)))
			if first < last {
				if _, err := w.Write(part[first:last]); err != nil {
					return err
				}
			}
			start += int64(len(part))
		}
		from = o.ends[line]
	}
	return nil
}

// newPicture returns size bytes that begin as a PNG file, and go on as noise: nobody looks that far.
func newPicture(size int) ([]byte, error) {
	var head bytes.Buffer
	if err := png.Encode(&head, image.NewPaletted(image.Rect(0, 0, 1024, 1024), color.Palette{color.White})); err != nil {
		return nil, err
	}
	if size < head.Len() {
		return nil, fmt.Errorf("a picture has %d bytes at least", head.Len())
	}
	picture := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(picture) // never fails
	copy(picture, head.Bytes())
	return picture, nil
}
