package vertex

import simd "github.com/segmentio/asm/base64"

// race decodes the beginning of p, in whole steps, as far as it is standard base64 without padding and without anything in between, and
// returns how many bytes that is. What is left, if only because it is short, must be written as usual. An error is that of
// the destination.
func (d *decoder) race(p []byte) (taken int, err error) {
	if d.slow || d.padded {
		return 0, nil
	}
	if d.used > 0 {
		missing := -d.used & 3 // of the last quad
		if len(p) < missing+stepSize || d.used+missing > len(d.pending) {
			return 0, nil
		}
		copy(d.pending[d.used:], p[:missing])
		ok, err := d.quads(d.pending[:d.used+missing])
		if !ok || err != nil {
			return 0, err
		}
		d.used, taken = 0, missing
	}
	for len(p)-taken >= stepSize {
		ok, err := d.quads(p[taken : taken+stepSize])
		if !ok || err != nil {
			return taken, err
		}
		taken += stepSize
	}
	return taken, nil
}

// quads decodes whole quads of at most stepSize bytes, or changes nothing and reports false.
func (d *decoder) quads(src []byte) (bool, error) {
	n, err := simd.StdEncoding.Decode(d.out[:], src)
	if err != nil || n != len(src)/4*3 {
		return false, nil
	}
	_, err = d.dst.Write(d.out[:n])
	return err == nil, err
}
