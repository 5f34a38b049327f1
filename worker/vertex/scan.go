package vertex

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Bounds of an answer.
const (
	// maxRemainder bounds what is left of an answer without its images and thought signatures, in bytes. Real remainders
	// are a few kilobytes; a megabyte leaves room for long texts and keeps a broken answer from filling memory.
	maxRemainder = 1 << 20
	// maxDepth bounds how deep an answer's JSON may be nested. Images sit at depth seven; Protocol Buffers' own parsers
	// stop at a hundred.
	maxDepth = 100
	// maxKey is the longest object key that is looked at, in bytes as written. It fits the longest name that matters
	// with each of its characters written as \uXXXX; a longer key is none of them.
	maxKey = 128
)

var (
	errMalformed         = errors.New("malformed JSON")
	errRemainderTooLarge = errors.New("the answer is too large even without its images")
)

// A sink receives the images of an answer. An error ends the scan.
type sink interface {
	// begin says that an image's base64 begins. It may wait.
	begin() error
	// Write takes base64 text with JSON's escapes undone.
	io.Writer
	// end says that the base64 is complete and returns the text that stands for the image in the remainder.
	end() (string, error)
	// part says that the object which holds the images since the last call is complete, and whether it is a thought.
	part(thought bool)
}

// key is a name in an object, as far as the scanner cares.
type key uint8

const (
	otherKey key = iota
	inlineDataKey
	dataKey
	thoughtKey
	signatureKey
	responseKey // of a batch's row
)

func keyOf(name string) key {
	switch name {
	case "inlineData", "inline_data":
		return inlineDataKey
	case "data":
		return dataKey
	case "thought":
		return thoughtKey
	case "thoughtSignature", "thought_signature":
		return signatureKey
	case "response":
		return responseKey
	default:
		return otherKey
	}
}

// frame is an open object or array.
type frame struct {
	object  bool
	name    key  // the key that this container is the value of
	key     key  // in an object: the last key
	value   bool // in an object: the colon has passed
	thought bool
	images  bool // an inlineData with an image is a direct child, or this is one
}

type state uint8

const (
	inStructure state = iota // between strings
	inKey
	inText  // a string that passes unchanged
	inWaste // a string that is dropped
	inImage // a string that goes to the sink
)

// scanner takes the images out of a JSON document that arrives in pieces of any size: the string `data` of every object
// that is the value of an `inlineData`. What is left, the remainder, is the same document with a placeholder for each
// image and with thought signatures emptied.
//
// It tracks containers and keys to know where it is, and checks what it takes away. It does not check the grammar of what it
// passes on: whoever parses the remainder does that, and every structural byte is part of it.
type scanner struct {
	sink sink
	// within, if set, is the key of the outermost object whose value alone is searched for images and signatures. What is elsewhere passes.
	within    key
	limit     int // of the remainder, in bytes; 0: maxRemainder
	remainder []byte
	stack     []frame
	state     state
	escape    int // 0, or the position within an escape: 1 after the backslash, 2 to 5 within \uXXXX
	unicode   rune
	name      []byte // of the key that is being read
	one       [1]byte
}

// Write scans the next piece. After an error the scanner must not be used.
func (s *scanner) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		step := s.text
		if s.state == inStructure {
			step = s.structure
		}
		n, err := step(p)
		if err != nil {
			return 0, err
		}
		p = p[n:]
	}
	return total, nil
}

// Close says that the document is complete. It fails with [io.ErrUnexpectedEOF] when it isn't.
func (s *scanner) Close() error {
	if len(s.stack) > 0 || s.state != inStructure || len(s.remainder) == 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (s *scanner) emit(p []byte) error {
	if len(s.remainder)+len(p) > cmp.Or(s.limit, maxRemainder) {
		return errRemainderTooLarge
	}
	s.remainder = append(s.remainder, p...)
	return nil
}

func (s *scanner) top() *frame {
	if len(s.stack) == 0 {
		return nil
	}
	return &s.stack[len(s.stack)-1]
}

// structure scans up to and including the next quote.
func (s *scanner) structure(p []byte) (int, error) {
	for i, c := range p {
		var err error
		switch c {
		case '"':
			if err := s.emit(p[:i+1]); err != nil {
				return 0, err
			}
			return i + 1, s.open()
		case '{', '[':
			err = s.push(c == '{')
		case '}', ']':
			err = s.pop(c == '}')
		case ':':
			if f := s.top(); f != nil {
				f.value = true
			}
		case ',':
			if f := s.top(); f != nil {
				f.value = false
			}
		case 't': // of true; the other letters need no look
			if f := s.top(); f != nil && f.value && f.key == thoughtKey {
				f.thought = true
			}
		}
		if err != nil {
			_ = s.emit(p[:i]) // what was well may be of use to whoever knows that the document is broken
			return 0, err
		}
	}
	return len(p), s.emit(p)
}

func (s *scanner) push(object bool) error {
	if len(s.stack) == maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", errMalformed, maxDepth)
	}
	f := frame{object: object}
	if parent := s.top(); parent != nil && parent.object {
		f.name = parent.key
	}
	s.stack = append(s.stack, f)
	return nil
}

func (s *scanner) pop(object bool) error {
	f := s.top()
	if f == nil || f.object != object {
		return fmt.Errorf("%w: a bracket closes nothing", errMalformed)
	}
	closed := *f
	s.stack = s.stack[:len(s.stack)-1]
	if !closed.images {
		return nil
	}
	if closed.name == inlineDataKey && s.top() != nil {
		s.top().images = true // the part, which may yet turn out to be a thought
	} else {
		s.sink.part(closed.thought)
	}
	return nil
}

// open decides what becomes of the string that begins.
func (s *scanner) open() error {
	f := s.top()
	switch {
	case f == nil || !f.object:
		s.state = inText
	case !f.value:
		s.state, s.name = inKey, s.name[:0]
	case s.within != otherKey && s.stack[0].key != s.within:
		s.state = inText
	case f.key == signatureKey:
		s.state = inWaste
	case f.key == dataKey && f.name == inlineDataKey:
		s.state, f.images = inImage, true
		return s.sink.begin()
	default:
		s.state = inText
	}
	return nil
}

// text scans within a string, up to and including its closing quote.
func (s *scanner) text(p []byte) (int, error) {
	quote := -1 // the next one at or after i; found once, so that a text full of escapes is not searched again and again
	for i := 0; i < len(p); {
		if s.escape > 0 {
			if err := s.escaped(p[i]); err != nil {
				return 0, err
			}
			i++
			continue
		}
		if quote < i {
			if quote = bytes.IndexByte(p[i:], '"'); quote < 0 {
				quote = len(p)
			} else {
				quote += i
			}
		}
		end := quote
		if b := bytes.IndexByte(p[i:quote], '\\'); b >= 0 {
			end = i + b
		}
		if err := s.plain(p[i:end]); err != nil {
			return 0, err
		}
		if end == len(p) {
			return end, nil
		}
		if p[end] == '"' {
			return end + 1, s.close()
		}
		s.escape = 1
		if err := s.keep(p[end : end+1]); err != nil {
			return 0, err
		}
		i = end + 1
	}
	return len(p), nil
}

// keep passes bytes of a string on to the remainder if it is one that passes.
func (s *scanner) keep(p []byte) error {
	switch s.state {
	case inKey:
		if len(s.name)+len(p) <= maxKey {
			s.name = append(s.name, p...)
		} else {
			s.name = append(s.name[:0], "too long:"...) // no name that matters has a colon
		}
		return s.emit(p)
	case inText:
		return s.emit(p)
	default:
		return nil
	}
}

// plain takes a run of a string without escapes.
func (s *scanner) plain(p []byte) error {
	switch s.state {
	case inImage:
		_, err := s.sink.Write(p) // which refuses whatever is not base64
		return err
	case inWaste:
		for _, c := range p {
			if c < ' ' {
				return fmt.Errorf("%w: control character in a string", errMalformed)
			}
		}
		return nil
	default:
		return s.keep(p)
	}
}

// simpleEscape returns what a character after a backslash stands for.
func simpleEscape(c byte) (r rune, ok bool) {
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	default:
		return 0, false
	}
}

// escaped takes the next byte of an escape.
func (s *scanner) escaped(c byte) error {
	if s.state == inText || s.state == inKey {
		s.one[0] = c
		if err := s.keep(s.one[:]); err != nil {
			return err
		}
	}
	if s.escape == 1 {
		if c == 'u' {
			s.escape, s.unicode = 2, 0
			return nil
		}
		r, ok := simpleEscape(c)
		if !ok {
			return fmt.Errorf("%w: unknown escape", errMalformed)
		}
		return s.unescaped(r)
	}
	digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
	if digit < 0 || c < '0' {
		return fmt.Errorf("%w: \\u without four hexadecimal digits", errMalformed)
	}
	s.unicode = s.unicode<<4 | rune(digit)
	if s.escape++; s.escape <= 5 {
		return nil
	}
	return s.unescaped(s.unicode)
}

// unescaped takes the character that an escape stands for.
func (s *scanner) unescaped(r rune) error {
	s.escape = 0
	if s.state != inImage {
		return nil
	}
	switch {
	case r == '\n' || r == '\r' || r == '\t':
		return nil // a line break within base64
	case r >= 0x80:
		return errNotBase64
	}
	s.one[0] = byte(r)
	_, err := s.sink.Write(s.one[:])
	return err
}

// close ends the string.
func (s *scanner) close() error {
	was := s.state
	s.state = inStructure
	switch was {
	case inKey:
		f := s.top()
		f.key = keyOf(s.unquoted())
		if f.key == thoughtKey {
			f.thought = false // of two values the last counts, as in encoding/json
		}
	case inImage:
		placeholder, err := s.sink.end()
		if err != nil {
			return err
		}
		if err := s.emit([]byte(base64.StdEncoding.EncodeToString([]byte(placeholder)))); err != nil {
			return err
		}
	}
	return s.emit([]byte{'"'})
}

// unquoted returns the key with its escapes undone.
func (s *scanner) unquoted() string {
	if bytes.IndexByte(s.name, '\\') < 0 {
		return string(s.name)
	}
	var name string
	if err := json.Unmarshal([]byte(`"`+string(s.name)+`"`), &name); err != nil {
		return "" // the parser of the remainder refuses it
	}
	return name
}
