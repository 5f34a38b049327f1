package standin

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

const (
	// blockSize is how much of an upload is read at a time.
	blockSize = 256 << 10
	// keptBytes is the largest object whose bytes are kept: the ledger's records and the like take some kilobytes.
	keptBytes = 64 << 10
)

var blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}

// content is what is known of bytes that have passed.
type content struct {
	size   int64
	crc32c uint32
	kept   []byte // nil when they were too many
}

func (c *content) Write(p []byte) (int, error) {
	c.crc32c = crc32.Update(c.crc32c, castagnoli, p)
	if c.size += int64(len(p)); c.size <= keptBytes {
		c.kept = append(c.kept, p...)
	} else {
		c.kept = nil
	}
	return len(p), nil
}

// readMultipart reads a body of type multipart/related with two parts: some JSON, and the object's bytes. mime/multipart would look for the
// boundary in every byte, and cost more than all else here; the end of the body is where the bytes end.
func readMultipart(body io.Reader, boundary string) (metadata []byte, data *content, err error) {
	block := blocks.Get().(*[blockSize]byte)
	defer blocks.Put(block)
	n, metadata, err := readHead(body, block[:], boundary)
	if err != nil {
		return nil, nil, err
	}
	data = &content{}
	end := "\r\n--" + boundary + "--" // and perhaps a line break
	tail := len(end) + len("\r\n")
	held := n // bytes at the start of block that may belong to the end
	for {
		if held > tail {
			_, _ = data.Write(block[:held-tail]) // never fails
			copy(block[:], block[held-tail:held])
			held = tail
		}
		n, err := body.Read(block[held:])
		held += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the upload: %w", err)
		}
	}
	at := bytes.LastIndex(block[:held], []byte(end))
	if at < 0 {
		return nil, nil, errors.New("the upload has no closing boundary")
	}
	_, _ = data.Write(block[:at])
	return metadata, data, nil
}

// readHead reads up to the first byte of the second part, and moves what was read of that to the beginning of block.
func readHead(body io.Reader, block []byte, boundary string) (rest int, metadata []byte, err error) {
	between := []byte("\r\n--" + boundary + "\r\n")
	for n := 0; ; {
		m, readErr := body.Read(block[n:])
		n += m
		_, first, _ := bytes.Cut(block[:n], headEnd)
		first, second, _ := bytes.Cut(first, between)
		if _, data, complete := bytes.Cut(second, headEnd); complete {
			metadata = bytes.Clone(first)
			return copy(block, data), metadata, nil
		}
		if readErr != nil || n == len(block) {
			return 0, nil, fmt.Errorf("the upload is not of two parts: %w", errors.Join(readErr, io.ErrUnexpectedEOF))
		}
	}
}

// headEnd ends the head of a part.
var headEnd = []byte("\r\n\r\n")
