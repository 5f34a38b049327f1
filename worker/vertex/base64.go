package vertex

import (
	"errors"
	"io"

	simd "github.com/segmentio/asm/base64"
)

var errNotBase64 = errors.New("image data is not base64")

const (
	// pendingSize is how much base64 is gathered before it is decoded when it comes in small runs, as between escapes. A
	// multiple of four, and large enough for the SIMD code to pay off.
	pendingSize = 4 << 10
	// stepSize is how much base64 is decoded at once. Its output fits the CPU's first-level cache, where it is read
	// again at once to be copied and summed.
	stepSize = 16 << 10
)

// decoder decodes base64 that arrives in pieces. It takes the standard and the URL alphabet, with padding or without,
// since Protocol Buffers' JSON allows all of them. The zero decoder needs a dst.
type decoder struct {
	dst     io.Writer
	padded  bool // the padding has come; nothing may follow
	slow    bool // what came was not plain standard base64: translate it byte by byte
	used    int  // bytes of pending
	pending [pendingSize]byte
	out     [stepSize / 4 * 3]byte
}

func (d *decoder) reset(dst io.Writer) {
	d.dst, d.padded, d.slow, d.used = dst, false, false, 0
}

// Write takes the next base64 text.
func (d *decoder) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if d.slow {
			if err := d.translate(p); err != nil {
				return 0, err
			}
			return total, nil
		}
		if d.used == 0 && len(p) >= pendingSize {
			n := min(len(p)&^3, stepSize)
			if err := d.decode(p[:n]); err != nil {
				return 0, err
			}
			p = p[n:]
			continue
		}
		// A short run, or one that continues a torn quad: only as much as makes quads whole again, if much more follows.
		room := pendingSize - d.used
		if len(p) > pendingSize && d.used%4 != 0 {
			room = min(room, 4-d.used%4)
		}
		n := copy(d.pending[d.used:d.used+min(room, len(p))], p)
		d.used += n
		p = p[n:]
		if d.used == pendingSize || d.used%4 == 0 && len(p) >= pendingSize {
			if err := d.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

// flush decodes what is pending, whole quads.
func (d *decoder) flush() error {
	src := d.pending[:d.used]
	d.used = 0
	if len(src) == 0 {
		return nil
	}
	return d.decode(src)
}

// decode decodes whole quads of at most stepSize bytes.
func (d *decoder) decode(src []byte) error {
	if d.padded {
		return errNotBase64
	}
	n, err := simd.StdEncoding.Decode(d.out[:], src)
	pad := padding(src)
	// The decoder skips line breaks, which JSON does not allow unescaped; then it yields less than it should.
	if err != nil || n != len(src)/4*3-pad {
		if d.slow {
			return errNotBase64
		}
		d.slow = true
		// src may be pending itself, which translate fills: it reads ahead of where it writes, but not across a flush.
		return d.translate(append([]byte(nil), src...))
	}
	d.padded = pad > 0
	_, err = d.dst.Write(d.out[:n])
	return err
}

func padding(src []byte) int {
	n := 0
	for n < 2 && n < len(src) && src[len(src)-1-n] == '=' {
		n++
	}
	return n
}

// translate takes base64 of either alphabet with spaces in it.
func (d *decoder) translate(p []byte) error {
	for _, c := range p {
		switch {
		case c == ' ':
			continue
		case c == '-':
			c = '+'
		case c == '_':
			c = '/'
		case c < ' ':
			return errNotBase64
		}
		d.pending[d.used] = c
		if d.used++; d.used == pendingSize {
			if err := d.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close decodes what is left. The last bytes take the slow way, which puts missing padding right.
func (d *decoder) Close() error {
	rest := append([]byte(nil), d.pending[:d.used]...)
	d.used, d.slow = 0, true
	if err := d.translate(rest); err != nil {
		return err
	}
	if n := d.used % 4; n > 0 {
		if n == 1 || d.pending[d.used-1] == '=' {
			return errNotBase64
		}
		d.used += copy(d.pending[d.used:], "=="[:4-n])
	}
	return d.flush()
}
