package batch

import (
	"slices"
	"sync"

	"github.com/assetmill/assetmill/worker"
)

// met is what a collection has met of each row's answers. The first one ends the row's job. The others are counted, with one exception. The job may
// have been ended by an earlier try of this collection, which was interrupted before the end was known to lineage; and since lines are
// taken side by side, that try may have begun with another line than this one. So whichever line holds the answer that the job has ended
// with makes the end known again, whenever it comes. An end by a line of another range is that range's to make known.
type met struct {
	mu   sync.Mutex
	rows map[int32]*metRow
}

type metRow struct {
	later []string // checksums of the answers after the first
	other bool     // the first found that the job has ended otherwise
	end   string   // then: the checksum of its asset, empty without one
}

// add notes an answer of a row, and reports whether it is the first, and else whether the job has ended with it.
func (m *met) add(number int32, sum string) (first, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := m.rows[number]
	if row == nil {
		if m.rows == nil {
			m.rows = map[int32]*metRow{}
		}
		m.rows[number] = &metRow{}
		return true, false
	}
	row.later = append(row.later, sum)
	return false, row.other && row.end == sum
}

// endedOtherwise notes that a row's job has ended, but not with the first answer, and reports whether it was with a later one that has come already.
func (m *met) endedOtherwise(number int32, end string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := m.rows[number]
	row.other, row.end = true, end
	return slices.Contains(row.later, end)
}

// sumOf is the checksum of an answer's image as rows have it, empty without one.
func sumOf(line worker.OutputRow) string {
	if line.Answer.Image == nil {
		return ""
	}
	return worker.EncodeCRC32C(line.Answer.Image.Blob.CRC32C())
}
