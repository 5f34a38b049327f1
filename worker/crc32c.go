package worker

import (
	"encoding/base64"
	"encoding/binary"
)

// EncodeCRC32C returns a checksum as Cloud Storage shows it: big endian, base64.
func EncodeCRC32C(crc uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc)
	return base64.StdEncoding.EncodeToString(b[:])
}
