package vertex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// requestHash identifies a request, however it is spelled: keys in any order, numbers in any notation, strings with any escapes, with null,
// {} and [] for what is not there. Labels are left out altogether: an output that loses them must still be known by its request.
// The hash is zero for a request that says nothing.
//
// It is a tree of hashes, an object's being made of its members' by their keys' order, so nothing but the keys of the open objects is
// held beside the request.
func requestHash(request []byte) ([32]byte, error) {
	h := hasher{dec: json.NewDecoder(bytes.NewReader(request))}
	h.dec.UseNumber()
	sum, _, err := h.value()
	return sum, err
}

// What a hashed value is: the first byte that is hashed of it.
const (
	hashedNull   = '0'
	hashedBool   = 'b'
	hashedNumber = 'n'
	hashedString = 's'
	hashedArray  = 'a'
	hashedObject = 'o'
)

type hasher struct {
	dec   *json.Decoder
	depth int
	buf   []byte // of what is being hashed, when it is a leaf
}

// value hashes the next value. present is false when it says nothing.
func (h *hasher) value() (sum [32]byte, present bool, err error) {
	token, err := h.dec.Token()
	if err != nil {
		return sum, false, err
	}
	switch t := token.(type) {
	case json.Delim:
		if h.depth == maxDepth {
			return sum, false, fmt.Errorf("%w: nested deeper than %d", errMalformed, maxDepth)
		}
		h.depth++
		defer func() { h.depth-- }()
		if t == '{' {
			return h.object()
		}
		return h.array()
	case string:
		return h.leaf(hashedString, t), true, nil
	case json.Number:
		return h.leaf(hashedNumber, normalNumber(string(t))), true, nil
	case bool:
		return h.leaf(hashedBool, strconv.FormatBool(t)), true, nil
	default:
		return sum, false, nil // null
	}
}

func (h *hasher) leaf(kind byte, text string) [32]byte {
	h.buf = append(append(h.buf[:0], kind), text...)
	return sha256.Sum256(h.buf)
}

// array hashes the rest of an array. What says nothing keeps its place.
func (h *hasher) array() (sum [32]byte, present bool, err error) {
	all := []byte{hashedArray}
	for h.dec.More() {
		item, ok, err := h.value()
		if err != nil {
			return sum, false, err
		}
		if !ok {
			item = h.leaf(hashedNull, "")
		}
		all = append(all, item[:]...)
	}
	_, err = h.dec.Token()
	return sha256.Sum256(all), len(all) > 1, err
}

// object hashes the rest of an object. Of two members with one key the last counts, as in encoding/json.
func (h *hasher) object() (sum [32]byte, present bool, err error) {
	members := map[string][32]byte{}
	for h.dec.More() {
		token, err := h.dec.Token()
		if err != nil {
			return sum, false, err
		}
		key, _ := token.(string)
		member, ok, err := h.value()
		if err != nil {
			return sum, false, err
		}
		delete(members, key)
		if ok && !(h.depth == 1 && key == "labels") {
			members[key] = member
		}
	}
	if _, err := h.dec.Token(); err != nil || len(members) == 0 {
		return sum, false, err
	}
	all := []byte{hashedObject}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		member := members[key]
		all = binary.AppendUvarint(all, uint64(len(key))) // so that no two sets of members read alike
		all = append(append(all, key...), member[:]...)
	}
	return sha256.Sum256(all), true, nil
}

// normalNumber spells a JSON number in one way: its digits without zeros at either end, and the power of ten of the last of them.
func normalNumber(text string) string {
	mantissa, exponent, sign := text, 0, ""
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(text[i+1:]); err != nil {
			return text // an exponent that nobody means
		}
		mantissa = text[:i]
	}
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	exponent -= len(fraction)
	short := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(short)
	short = strings.TrimLeft(short, "0")
	if short == "" {
		return "0"
	}
	return sign + short + "e" + strconv.Itoa(exponent)
}
