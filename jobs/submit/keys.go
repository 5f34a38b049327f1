package submit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/assetmill/assetmill/jobs"
)

// keySize is how much of a SHA-256 is compared: 128 bits keep two of a billion rows from meeting by chance.
const keySize = 16

// partitions is the number of temporary files that the keys of all rows are spread over. 1.2 million rows make 250 KB in each,
// a billion 207 MB.
const partitions = 256

// entrySize is a key, its file, its row, and the row's share: jobs, group, whether batch, two costs.
const entrySize = keySize + 4 + 8 + 4 + 4 + 1 + 8 + 8

type key [keySize]byte

// keys finds what repeats among all rows of a submission, in memory that does not grow with them: it writes each row's key to
// one of many temporary files and later sorts them one by one. It is not safe for concurrent use.
type keys struct {
	files   [partitions]*os.File
	writers [partitions]*bufio.Writer
	dir     string
}

// writerBuffer makes a megabyte for all partitions.
const writerBuffer = 4096

func newKeys() (*keys, error) {
	dir, err := os.MkdirTemp("", "assetmill-submit-")
	if err != nil {
		return nil, fmt.Errorf("temporary files: %w", err)
	}
	return &keys{dir: dir}, nil
}

// close removes the temporary files.
func (k *keys) close() {
	for _, f := range k.files {
		if f != nil {
			f.Close()
		}
	}
	os.RemoveAll(k.dir)
}

// entry is one row that a key was seen in.
type entry struct {
	place
	share share
}

// add remembers a row's key.
func (k *keys) add(id key, row entry) error {
	p := id[0]
	if k.files[p] == nil {
		f, err := os.CreateTemp(k.dir, "keys-")
		if err != nil {
			return fmt.Errorf("temporary files: %w", err)
		}
		k.files[p], k.writers[p] = f, bufio.NewWriterSize(f, writerBuffer)
	}
	var e [entrySize]byte
	copy(e[:], id[:])
	binary.BigEndian.PutUint32(e[keySize:], uint32(row.file))
	binary.BigEndian.PutUint64(e[keySize+4:], uint64(row.row))
	row.share.put(e[keySize+12:])
	_, err := k.writers[p].Write(e[:])
	return err
}

// put writes a share behind the row that it is of.
func (s share) put(to []byte) {
	binary.BigEndian.PutUint32(to, uint32(s.jobs))
	binary.BigEndian.PutUint32(to[4:], uint32(int32(s.group)))
	if s.fits {
		to[8] = 1
	}
	binary.BigEndian.PutUint64(to[9:], uint64(s.online))
	binary.BigEndian.PutUint64(to[17:], uint64(s.batched))
}

func getShare(from []byte) share {
	return share{
		jobs: int(binary.BigEndian.Uint32(from)), group: int(int32(binary.BigEndian.Uint32(from[4:]))), fits: from[8] == 1,
		online: jobs.USD(binary.BigEndian.Uint64(from[9:])), batched: jobs.USD(binary.BigEndian.Uint64(from[17:])),
	}
}

// repeats calls f for each key that several rows share, with the rows in the order of the files.
func (k *keys) repeats(f func(id key, rows []entry) error) error {
	for p := range partitions {
		if k.files[p] == nil {
			continue
		}
		if err := k.partition(p, f); err != nil {
			return err
		}
	}
	return nil
}

func (k *keys) partition(p int, f func(id key, rows []entry) error) error {
	if err := k.writers[p].Flush(); err != nil {
		return err
	}
	if _, err := k.files[p].Seek(0, io.SeekStart); err != nil {
		return err
	}
	data, err := io.ReadAll(k.files[p])
	if err != nil {
		return err
	}
	entries := make([][]byte, 0, len(data)/entrySize)
	for entry := range slices.Chunk(data, entrySize) {
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, bytes.Compare)
	for start := 0; start < len(entries); {
		end := start + 1
		for end < len(entries) && bytes.Equal(entries[end][:keySize], entries[start][:keySize]) {
			end++
		}
		if end-start > 1 {
			if err := f(key(entries[start][:keySize]), parse(entries[start:end])); err != nil {
				return err
			}
		}
		start = end
	}
	return nil
}

func parse(raw [][]byte) []entry {
	all := make([]entry, len(raw))
	for i, e := range raw {
		all[i] = entry{
			place: place{int(binary.BigEndian.Uint32(e[keySize:])), int64(binary.BigEndian.Uint64(e[keySize+4:]))},
			share: getShare(e[keySize+12:]),
		}
	}
	return all
}

// doneSet is the set of job ids that have ended, 16 bytes each: a re-run of 1.2 million jobs holds 19 MB. It grows with what
// was done before, not with the file.
type doneSet struct{ sorted []key }

// build sorts the set; has needs it.
func (d *doneSet) build() {
	slices.SortFunc(d.sorted, func(a, b key) int { return bytes.Compare(a[:], b[:]) })
}

func (d *doneSet) has(id key) bool {
	_, found := slices.BinarySearchFunc(d.sorted, id, func(a, b key) int { return bytes.Compare(a[:], b[:]) })
	return found
}
