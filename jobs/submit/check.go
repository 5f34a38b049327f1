package submit

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

// maxRemembered bounds the rows that must be remembered between the two readings: those that repeat others, and those that
// are wrong only by comparison or look-up. A file beyond it has another problem than single rows.
const maxRemembered = 1_000_000

// errTooMany says that the bound was passed.
var errTooMany = fmt.Errorf("more than %d rows repeat others or are wrong: split the file, or look at how it was made", maxRemembered)

// check is the first reading: every row is validated and counted, ids are compared, references looked up.
func (s *submission) check(ctx context.Context) error {
	s.progress.Phase = Checking
	refs := newLookups(ctx, s.ports.References)
	defer refs.wait()
	for i, f := range s.files {
		rows := *s.receipt.RowsRead
		sum, size, err := s.read(ctx, f, s.defaults(), func(row *csvfile.Row, bad *csvfile.RowError) error {
			return s.checkRow(i, row, bad, refs)
		})
		if err != nil {
			return err
		}
		rows = *s.receipt.RowsRead - rows
		s.sums = append(s.sums, sum)
		s.receipt.Files = append(s.receipt.Files, &schemas.SubmissionFile{Name: f.Name, Bytes: &size, Sha256: hexSum(sum), RowsRead: &rows})
	}
	s.resolveID()
	if err := s.rejectRepeatedIDs(); err != nil {
		return err
	}
	for _, m := range refs.wait() {
		if err := s.rejectLate(m.entry, m.column, m.uri, "does not exist in Cloud Storage"); err != nil {
			return err
		}
	}
	if err := s.countRepeatedContent(); err != nil {
		return err
	}
	s.plan.settle(nil, s.receipt)
	s.report(true)
	return nil
}

// checkRow takes one row into the books.
func (s *submission) checkRow(file int, row *csvfile.Row, bad *csvfile.RowError, refs *lookups) error {
	*s.receipt.RowsRead++
	s.progress.Rows++
	defer s.report(false)
	if bad != nil {
		return s.reject(bad)
	}
	e := entry{place{file, row.Number}, s.plan.share(row)}
	s.plan.add(e.share, 1)
	*s.receipt.Jobs += int64(len(row.Jobs))
	s.progress.Jobs = *s.receipt.Jobs
	for _, j := range row.Jobs {
		if row.HasID {
			if err := s.ids.add(idKey(j.ID), e); err != nil {
				return err
			}
		}
	}
	// The variants of a row differ from each other in any case, so the first stands for the row.
	if !row.HasID {
		if err := s.contents.add(contentKey(row.Jobs[0]), e); err != nil {
			return err
		}
	}
	refs.checkRow(e, row.Jobs[0])
	return nil
}

func contentKey(j *jobs.Job) key {
	digest := j.Digest()
	return key(digest[:keySize])
}

func idKey(id string) key {
	sum := sha256.Sum256([]byte(id))
	return key(sum[:keySize])
}

// rejectRepeatedIDs rejects every row whose id an earlier row has.
func (s *submission) rejectRepeatedIDs() error {
	return s.ids.repeats(func(_ key, rows []entry) error {
		first := rows[0]
		for _, e := range rows[1:] {
			message := fmt.Sprintf("is already the id of row %d of %s; ids must differ", first.row, s.files[first.file].Name)
			if err := s.rejectLate(e, "id", "", message); err != nil {
				return err
			}
		}
		return nil
	})
}

// countRepeatedContent notes which content several rows share. Their jobs get ids of their own, by their order.
func (s *submission) countRepeatedContent() error {
	return s.contents.repeats(func(id key, _ []entry) error {
		if len(s.repeated) >= maxRemembered {
			return errTooMany
		}
		s.repeated[id] = 0
		return nil
	})
}

// rejectLate rejects a row that its own reading found good.
func (s *submission) rejectLate(e entry, column, value, message string) error {
	if s.rejected[e.place] {
		return nil
	}
	if len(s.rejected) >= maxRemembered {
		return errTooMany
	}
	s.rejected[e.place] = true
	*s.receipt.Jobs -= int64(e.share.jobs)
	s.plan.add(e.share, -1)
	s.progress.Jobs = *s.receipt.Jobs
	return s.reject(&csvfile.RowError{
		File: s.files[e.file].Name, Row: e.row,
		Problems: []csvfile.CellProblem{{Column: column, Value: jobs.Shorten(value), Message: message}},
	})
}
