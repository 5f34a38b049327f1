package standin

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
)

const (
	// side is the width and height of the picture, as of a 1K image.
	side = 1024
	// padding is the type of the PNG chunk that fills the image up: ancillary, private, safe to copy.
	padding = "bnCh"
	// chunkOverhead is the length, the type and the checksum of a PNG chunk.
	chunkOverhead = 12
	// endChunk is the length of the chunk that ends a PNG.
	endChunk = chunkOverhead
)

// newImage returns a PNG picture of exactly size bytes, or of as few as a picture takes. The filling is random, so that nobody's
// compression finds anything in it, and the same each time.
func newImage(size int) ([]byte, error) {
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White})); err != nil {
		return nil, fmt.Errorf("draw the image: %w", err)
	}
	filling := make([]byte, max(size-file.Len()-chunkOverhead, 0))
	_, _ = rand.NewChaCha8([32]byte{}).Read(filling) // never fails
	picture := file.Bytes()
	out := append([]byte(nil), picture[:len(picture)-endChunk]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(filling)))
	start := len(out)
	out = append(append(out, padding...), filling...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[start:]))
	return append(out, picture[len(picture)-endChunk:]...), nil
}

// newAnswer returns the body of an answer with an image, as Vertex AI writes it.
func newAnswer(picture []byte) []byte {
	signature := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("signature"), 28))
	var b bytes.Buffer
	b.WriteString("{\n  \"candidates\": [\n    {\n      \"content\": {\n        \"role\": \"model\",\n        \"parts\": [\n          {\n" +
		"            \"inlineData\": {\n              \"mimeType\": \"image/png\",\n              \"data\": \"")
	b.WriteString(base64.StdEncoding.EncodeToString(picture))
	b.WriteString("\"\n            },\n            \"thoughtSignature\": \"" + signature + "\"\n          }\n        ]\n      },\n" +
		"      \"finishReason\": \"STOP\"\n    }\n  ],\n")
	b.WriteString(`  "usageMetadata": {
    "promptTokenCount": 12,
    "candidatesTokenCount": 1120,
    "totalTokenCount": 1332,
    "trafficType": "ON_DEMAND",
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}],
    "thoughtsTokenCount": 200
  },
  "modelVersion": "gemini-3-pro-image",
  "createTime": "2026-11-23T10:00:00.000000Z",
  "responseId": "YmVuY2gtYmVuY2gtYmVu"
}
`)
	return b.Bytes()
}
