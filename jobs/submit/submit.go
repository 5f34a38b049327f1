// Package submit turns files of prompts into published jobs, with an exact receipt.
//
// It reads the files twice. The first reading checks every row, and nothing is published while a row is wrong, unless the
// caller asks to skip such rows. The second publishes. Running it again with the same files publishes nothing that has
// already ended and finishes what is missing: job ids follow from the content, so the ledger recognises what was published
// before, and the ids that lineage knows are not even published.
//
// Rows may leave it to the submission whether their jobs are called online or go to a batch, at half the price: see [MinBatchJobs].
//
// Memory does not grow with the files: rows are streamed, and keys that must be compared across all rows go through
// temporary files. What does grow is named where it is kept, and bounded.
package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

// Publisher sends jobs on their way.
type Publisher interface {
	// PublishJob queues a job, blocking while too much is on its way. The function that it returns waits until the topic has
	// accepted the job.
	PublishJob(ctx context.Context, j *jobs.Job) (wait func(context.Context) error, err error)
}

// Lineage knows which jobs have ended and keeps receipts as rows.
type Lineage interface {
	// DoneIDs yields the id of each job of the submission that has ended since then.
	DoneIDs(ctx context.Context, submission string, since time.Time) iter.Seq2[string, error]
	// Ended returns how many of the submission's jobs have ended since then, those included whose id turned out to be another's.
	Ended(ctx context.Context, submission string, since time.Time) (int64, error)
	AppendSubmission(ctx context.Context, row *schemas.SubmissionRow) error
}

// Receipts keeps the newest receipt of each submission.
type Receipts interface {
	// Receipt returns the newest receipt of a submission, or nil when there is none.
	Receipt(ctx context.Context, submission string) (*schemas.SubmissionRow, error)
	PutReceipt(ctx context.Context, r *schemas.SubmissionRow) error
}

// References looks up reference images.
type References interface {
	// Exists reports whether the object at a gs:// URI exists. An error means that it could not be found out.
	Exists(ctx context.Context, uri string) (bool, error)
}

// Ports are the connections that a submission needs. For a dry run all but References may be nil; nil References are not
// looked up.
type Ports struct {
	Publisher  Publisher
	Lineage    Lineage
	Receipts   Receipts
	References References
}

// File is one file of prompts. It is opened twice.
type File struct {
	Name string // without folders
	Size int64  // bytes; 0 when unknown
	Open func() (io.ReadCloser, error)
}

// Options say how to submit.
type Options struct {
	// Submission is the id of the submission; empty: derived from the files and the defaults.
	Submission string
	// Defaults are the fields of jobs whose rows leave them empty.
	Defaults *schemas.Job
	// Variants is the number of images for a row that does not say; 0 stands for 1.
	Variants    int
	Catalogue   *jobs.Catalogue
	SkipInvalid bool // publish the good rows although others are wrong
	DryRun      bool // check and count only
	Submitter   string
	// OnlineRate is the number of online calls a minute that the time of online jobs is estimated with; 0 stands for
	// [DefaultOnlineRate].
	OnlineRate int
	// Planned is told of the receipt with its plans and its estimate before anything is published, in a dry run too; nil: nobody. An
	// error ends the submission.
	Planned func(*schemas.SubmissionRow) error
	// Reject is told of every row that is wrong. It is called from one goroutine at a time.
	Reject func(*csvfile.RowError) error
	// Progress is told how far the submission is, from one goroutine at a time; nil: nobody.
	Progress func(Progress)
}

// Phase is a step of a submission.
type Phase string

// Phases, in their order.
const (
	Checking   Phase = "checking"
	Publishing Phase = "publishing"
)

// Progress is how far a submission is. Totals are 0 until they are known.
type Progress struct {
	Phase     Phase
	Bytes     int64 // read in this phase
	Total     int64 // bytes of all files
	Rows      int64
	Rejected  int64
	Jobs      int64 // accepted
	Published int64
}

// ErrInvalidRows says that rows are wrong and nothing was published because of them.
var ErrInvalidRows = errors.New("rows are invalid; nothing was published")

// ErrBrokenRows says that a row's end could not be found, so that the rows after it may be cut wrong. Nothing was published, not
// even with SkipInvalid.
var ErrBrokenRows = errors.New("the quoting of a row is broken, so the rows after it may be cut wrong; nothing was published")

// ErrNoJobs says that not a single row could be submitted.
var ErrNoJobs = errors.New("there is no job to submit")

// Run submits the files and returns the receipt, also beside an error as far as it got. The receipt's counts are exact: a job
// counts as published only when the topic has accepted it.
func Run(ctx context.Context, files []File, opts Options, ports Ports) (*schemas.SubmissionRow, error) {
	s, err := newSubmission(files, opts, ports)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.check(ctx); err != nil {
		return s.receipt, err
	}
	switch {
	case s.receipt.GetRowsRejected() > 0 && !opts.SkipInvalid:
		return s.receipt, ErrInvalidRows
	case s.broken:
		return s.receipt, ErrBrokenRows
	case s.receipt.GetJobs() == 0:
		return s.receipt, ErrNoJobs
	case opts.DryRun:
		return s.receipt, s.planned()
	}
	done, err := s.continueEarlier(ctx)
	if err != nil {
		return s.receipt, err
	}
	if err := s.planned(); err != nil {
		return s.receipt, err
	}
	// A receipt without an end comes first: whoever asks for the submission's status while it is being published, or after
	// this process was killed, must find how many jobs there are to be.
	if err := ports.Receipts.PutReceipt(ctx, s.receipt); err != nil {
		return s.receipt, fmt.Errorf("store the receipt: %w", err)
	}
	if err := s.publish(ctx, done); err != nil {
		return s.receipt, fmt.Errorf("publish: %w", errors.Join(err, s.file(context.WithoutCancel(ctx))))
	}
	s.receipt.CompletedAt = time.Now().UnixMicro()
	if err := s.file(ctx); err != nil {
		return s.receipt, fmt.Errorf("store the receipt: %w", err)
	}
	return s.receipt, nil
}

// planned tells the caller of the plan.
func (s *submission) planned() error {
	if s.opts.Planned == nil {
		return nil
	}
	return s.opts.Planned(s.receipt)
}

// receiptTime bounds the storing of a receipt after a failure, when the caller may already want to leave.
const receiptTime = 30 * time.Second

// file stores the receipt in both places.
func (s *submission) file(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	return errors.Join(s.ports.Receipts.PutReceipt(ctx, s.receipt), s.ports.Lineage.AppendSubmission(ctx, s.receipt))
}
