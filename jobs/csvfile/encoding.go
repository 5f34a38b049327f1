package csvfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// sniffBytes is how much of the file decides its encoding: enough to reach the word `prompt` in most headers.
const sniffBytes = 1 << 10

const saveAs = `; save the file as "CSV UTF-8"`

// notText are the first bytes of files that people take for CSV.
var notText = []struct{ magic, message string }{
	{"PK\x03\x04", "is a workbook (xlsx, ods) or a zip file, not a CSV file"},
	{"\xd0\xcf\x11\xe0", "is an Excel workbook (xls), not a CSV file"},
	{"\xff\xfe\x00\x00", "is UTF-32, which is not supported"},
	{"\x00\x00\xfe\xff", "is UTF-32, which is not supported"},
	{"\x1f\x8b", "is compressed (gzip), not a CSV file"},
	{"%PDF", "is a PDF, not a CSV file"},
}

// openText returns the file's text without a byte order mark, as UTF-8 where the file is UTF-16, and whether it was
// UTF-16. The text of other files is not checked here. Its error is the reader's, or a message as a *FileError without a name.
func openText(r io.Reader) (in *bufio.Reader, utf16 bool, err error) {
	in = bufio.NewReaderSize(r, MaxHeaderBytes)
	head, err := in.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	for _, n := range notText {
		if bytes.HasPrefix(head, []byte(n.magic)) {
			return nil, false, &FileError{Problems: []CellProblem{{Message: n.message + saveAs}}}
		}
	}
	var bom int
	var order unicode.Endianness
	switch at := utf16Prompt(head); {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		bom = 3
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		bom, order, utf16 = 2, unicode.LittleEndian, true
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		bom, order, utf16 = 2, unicode.BigEndian, true
	case at >= 0:
		order, utf16 = unicode.Endianness(at%2 == 0), true
	}
	if _, err := in.Discard(bom); err != nil {
		return nil, false, err
	}
	if !utf16 {
		return in, false, nil
	}
	// Byte order was settled above; a further mark is text, which header names shed anyway.
	decoder := unicode.UTF16(order, unicode.IgnoreBOM).NewDecoder()
	return bufio.NewReaderSize(transform.NewReader(in, decoder), MaxHeaderBytes), true, nil
}

// utf16Prompt returns where the word prompt stands in UTF-16 without a byte order mark, or -1. Its letters are at even
// offsets in little-endian text and at odd ones in big-endian text.
func utf16Prompt(head []byte) int {
	return bytes.Index(bytes.ToLower(head), []byte("p\x00r\x00o\x00m\x00p\x00t"))
}

// cellEncoding returns what is wrong with the characters of a cell and how an error may show it, or "".
func cellEncoding(cell []byte, utf16 bool) (message, shown string) {
	shown = string(bytes.ToValidUTF8(cell, []byte("�")))
	switch {
	case bytes.IndexByte(cell, 0) >= 0:
		return "holds a NUL character; remove it" + saveAs, string(bytes.ReplaceAll([]byte(shown), []byte{0}, []byte("␀")))
	case !utf8.Valid(cell):
		return fmt.Sprintf("is not UTF-8: it holds %s", badByte(cell)) + saveAs, shown
	case utf16 && bytes.ContainsRune(cell, utf8.RuneError):
		return "holds a character that is no valid UTF-16" + saveAs, shown
	}
	return "", ""
}

// badByte describes the first byte of text that is not UTF-8, by what it means in the encoding that Excel's plain "CSV" has.
func badByte(text []byte) string {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		text = text[n:]
	}
	if r := charmap.Windows1252.DecodeByte(text[0]); r != utf8.RuneError {
		return fmt.Sprintf("the byte 0x%X (%c in Windows-1252)", text[0], r)
	}
	return fmt.Sprintf("the byte 0x%X", text[0])
}

// cleanText reports whether a record's text needs no look at its single cells.
func cleanText(data []byte, utf16 bool) bool {
	return bytes.IndexByte(data, 0) < 0 && utf8.Valid(data) && !(utf16 && bytes.ContainsRune(data, utf8.RuneError))
}
