package vertextest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"math/rand/v2"
	"sync"
)

// imageFile is a finished file in pieces. Padding is a shared block repeated,
// so thousands of large images in flight cost no memory.
type imageFile struct {
	mime   string
	pieces [][]byte
	size   int
	sha256 string
}

const (
	// fillerSize is the length of the shared block.
	fillerSize = 64 << 10

	// maxPads bounds the kept beginnings of padded files. A test uses a few sizes.
	maxPads = 256
)

// padder makes files of a wanted size. The padding stands at the beginning,
// after the header, where it is the same for all files of one size: their hash
// starts from there. Hashing was three quarters of what a padded image cost.
// Safe for concurrent use.
type padder struct {
	filler []byte

	mu   sync.Mutex
	pads map[padKey]*pad
}

// padKey is what the beginning of a padded file depends on.
type padKey struct {
	head  string
	extra int
}

// pad is the beginning of a padded file. It is read-only.
type pad struct {
	pieces [][]byte
	size   int
	hash   hash.Cloner // of pieces
}

func newPadder() *padder { return &padder{filler: newFiller(), pads: map[padKey]*pad{}} }

// newFiller returns bytes that do not compress, as image data does not.
func newFiller() []byte {
	r := rand.NewChaCha8([32]byte{})
	b := make([]byte, fillerSize)
	_, _ = r.Read(b) // never fails
	return b
}

// file pads file to size bytes, if it is smaller by enough for a chunk.
func (p *padder) file(mime string, file []byte, size int) imageFile {
	head, smallest := afterIHDR, chunkOverhead
	if mime == "image/jpeg" {
		head, smallest = len(jpegSOI), comMinimum
	}
	extra := size - len(file)
	if extra < smallest {
		extra, head = 0, 0
	}
	begin := p.begin(mime, string(file[:head]), extra)
	f := imageFile{mime: mime, size: begin.size + len(file) - head, pieces: append(begin.pieces[:len(begin.pieces):len(begin.pieces)], file[head:])}
	h := begin.clone()
	_, _ = h.Write(file[head:]) // hashes never fail
	f.sha256 = hex.EncodeToString(h.Sum(nil))
	return f
}

// begin returns head and extra bytes of padding.
func (p *padder) begin(mime, head string, extra int) *pad {
	key := padKey{head, extra}
	p.mu.Lock()
	defer p.mu.Unlock()
	if kept := p.pads[key]; kept != nil {
		return kept
	}
	b := &pad{pieces: [][]byte{[]byte(head)}}
	if extra > 0 && mime == "image/jpeg" {
		b.pieces = append(b.pieces, p.segments(extra)...)
	} else if extra > 0 {
		b.pieces = append(b.pieces, p.chunk(extra)...)
	}
	h := sha256.New()
	for _, piece := range b.pieces {
		b.size += len(piece)
		_, _ = h.Write(piece)
	}
	b.hash, _ = h.(hash.Cloner)
	if len(p.pads) >= maxPads {
		clear(p.pads)
	}
	p.pads[key] = b
	return b
}

// clone returns a hash that has seen the pieces.
func (b *pad) clone() hash.Hash {
	if b.hash != nil {
		if h, err := b.hash.Clone(); err == nil {
			return h
		}
	}
	h := sha256.New() // an implementation that cannot be cloned hashes again
	for _, piece := range b.pieces {
		_, _ = h.Write(piece)
	}
	return h
}

// bytes joins the pieces, for transports that need one slice.
func (f imageFile) bytes() []byte {
	out := make([]byte, 0, f.size)
	for _, p := range f.pieces {
		out = append(out, p...)
	}
	return out
}

// chunk is a private ancillary chunk of a PNG, of extra bytes in all.
func (p *padder) chunk(extra int) [][]byte {
	n := extra - chunkOverhead
	head := binary.BigEndian.AppendUint32(nil, uint32(n))
	head = append(head, padType...)
	crc := crc32.NewIEEE()
	_, _ = crc.Write([]byte(padType))
	pieces := [][]byte{head}
	for n > 0 {
		part := p.filler[:min(n, len(p.filler))]
		_, _ = crc.Write(part)
		pieces = append(pieces, part)
		n -= len(part)
	}
	return append(pieces, binary.BigEndian.AppendUint32(nil, crc.Sum32()))
}

// segments are comments of a JPEG, of extra bytes in all.
func (p *padder) segments(extra int) (pieces [][]byte) {
	for extra > 0 {
		n := min(extra, comMax+comMinimum, len(p.filler)+comMinimum)
		if rest := extra - n; rest > 0 && rest < comMinimum {
			n -= comMinimum // leave enough for one more segment
		}
		head := binary.BigEndian.AppendUint16([]byte{0xff, markerCOM}, uint16(n-2))
		pieces = append(pieces, head, p.filler[:n-comMinimum])
		extra -= n
	}
	return pieces
}
