package vertextest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math/rand/v2"
)

// imageFile is a finished file in pieces. Padding is a shared block repeated,
// so thousands of large images in flight cost no memory.
type imageFile struct {
	mime   string
	pieces [][]byte
	size   int
	sha256 string
}

// fillerSize is the length of the shared block.
const fillerSize = 64 << 10

// newFiller returns bytes that do not compress, as image data does not.
func newFiller() []byte {
	r := rand.NewChaCha8([32]byte{})
	b := make([]byte, fillerSize)
	_, _ = r.Read(b) // never fails
	return b
}

// newImageFile pads file to size bytes, if it is smaller by enough for a chunk.
func newImageFile(mime string, file, filler []byte, size int) imageFile {
	f := imageFile{mime: mime, pieces: [][]byte{file}}
	if extra := size - len(file); mime == "image/png" && extra >= chunkOverhead {
		f.pieces = padPNG(file, filler, extra)
	} else if mime == "image/jpeg" && extra >= comMinimum {
		f.pieces = padJPEG(file, filler, extra)
	}
	h := sha256.New()
	for _, p := range f.pieces {
		f.size += len(p)
		h.Write(p)
	}
	f.sha256 = hex.EncodeToString(h.Sum(nil))
	return f
}

// bytes joins the pieces, for transports that need one slice.
func (f imageFile) bytes() []byte {
	out := make([]byte, 0, f.size)
	for _, p := range f.pieces {
		out = append(out, p...)
	}
	return out
}

// padPNG puts a private ancillary chunk before IEND, the last 12 bytes.
func padPNG(file, filler []byte, extra int) [][]byte {
	n := extra - chunkOverhead
	end := len(file) - chunkOverhead
	head := binary.BigEndian.AppendUint32(nil, uint32(n))
	head = append(head, padType...)
	crc := crc32.NewIEEE()
	_, _ = crc.Write([]byte(padType))
	pieces := [][]byte{file[:end], head}
	for n > 0 {
		p := filler[:min(n, len(filler))]
		_, _ = crc.Write(p)
		pieces = append(pieces, p)
		n -= len(p)
	}
	return append(pieces, binary.BigEndian.AppendUint32(nil, crc.Sum32()), file[end:])
}

// padJPEG puts comment segments after the start marker.
func padJPEG(file, filler []byte, extra int) [][]byte {
	pieces := [][]byte{file[:len(jpegSOI)]}
	for extra > 0 {
		n := min(extra, comMax+comMinimum, len(filler)+comMinimum)
		if rest := extra - n; rest > 0 && rest < comMinimum {
			n -= comMinimum // leave enough for one more segment
		}
		head := binary.BigEndian.AppendUint16([]byte{0xff, markerCOM}, uint16(n-2))
		pieces = append(pieces, head, filler[:n-comMinimum])
		extra -= n
	}
	return append(pieces, file[len(jpegSOI):])
}
