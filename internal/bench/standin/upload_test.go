package standin

import (
	"bytes"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

const testBoundary = "b0undary"

func multipartBody(metadata string, data []byte, end string) string {
	return "--" + testBoundary + "\r\nContent-Type: application/json\r\n\r\n" + metadata +
		"\r\n--" + testBoundary + "\r\nContent-Type: image/png\r\n\r\n" + string(data) + end
}

func TestReadMultipart(t *testing.T) {
	t.Parallel()
	const closing = "\r\n--" + testBoundary + "--\r\n"
	random := func(n int) []byte {
		p := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
		return p
	}
	for name, tc := range map[string]struct {
		data []byte
		end  string
	}{
		"empty":                     {nil, closing},
		"small":                     {[]byte(`{"state":"claimed"}`), closing},
		"without the last break":    {[]byte("x"), strings.TrimSuffix(closing, "\r\n")},
		"ends with line breaks":     {[]byte("x\r\n\r\n"), closing},
		"holds a boundary":          {[]byte("x\r\n--" + testBoundary + "\r\ny"), closing},
		"holds a closing boundary":  {[]byte("x" + closing + "y" + strings.Repeat("z", 100)), closing},
		"a block":                   {random(blockSize), closing},
		"just under a block":        {random(blockSize - len(closing)), closing},
		"many blocks and some more": {random(3*blockSize + 17), closing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := multipartBody(`{"name":"n"}`, tc.data, tc.end)
			for how, reader := range map[string]func(io.Reader) io.Reader{
				"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with the end": iotest.DataErrReader,
			} {
				if how == "byte by byte" && len(body) > 2*blockSize {
					continue // takes too long
				}
				metadata, data, err := readMultipart(reader(strings.NewReader(body)), testBoundary)
				if err != nil {
					t.Errorf("%s: %v", how, err)
					continue
				}
				if string(metadata) != `{"name":"n"}` {
					t.Errorf("%s: metadata %q", how, metadata)
				}
				if data.size != int64(len(tc.data)) || data.crc32c != crc32.Checksum(tc.data, castagnoli) {
					t.Errorf("%s: %d bytes with %08x instead of %d", how, data.size, data.crc32c, len(tc.data))
				}
				if kept := data.kept; len(tc.data) <= keptBytes && !bytes.Equal(kept, tc.data) || len(tc.data) > keptBytes && kept != nil {
					t.Errorf("%s: %d bytes are kept", how, len(kept))
				}
			}
		})
	}
}

func TestReadMultipartRefusesWhatIsCutOff(t *testing.T) {
	t.Parallel()
	whole := multipartBody(`{}`, []byte("data"), "\r\n--"+testBoundary+"--")
	for n := range len(whole) {
		if _, data, err := readMultipart(strings.NewReader(whole[:n]), testBoundary); err == nil {
			t.Errorf("the first %d bytes pass as %+v", n, data)
		}
	}
}
