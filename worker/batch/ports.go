package batch

import (
	"context"
	"errors"
	"io"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// The interfaces of this file are what the package calls. All of them are safe for concurrent use and honour their context.

// Ledger says who may spend money on a job, and on a batch.
type Ledger interface {
	Claim(ctx context.Context, id string, digest jobs.Digest) (worker.Standing, error)
	Confirm(ctx context.Context, t worker.Ticket) error
	Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error
	// ClaimFor is Claim for a job that is gathered into a batch.
	ClaimFor(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error)
	// Look returns how a job ended, if it has. It claims nothing.
	Look(ctx context.Context, jobID string) (end worker.Record, ended bool, err error)
	// Seal makes a batch durable. It fails with worker.ErrVoid when somebody took one of its jobs over first. Sealing again succeeds
	// and changes nothing.
	Seal(ctx context.Context, batch string, manifest []byte) error
	ReadSeal(ctx context.Context, batch string) (worker.Seal, error)
	// VoidIfAbandoned voids a batch whose gatherer is taken for dead, unless it is sealed, and reports whether it is void.
	VoidIfAbandoned(ctx context.Context, batch, gatherer string) (bool, error)
}

// Spine is the way of a job before and after its call. [worker.Worker] is one.
type Spine interface {
	Admit(ctx context.Context, d *jobs.Delivery, claim func(context.Context, *jobs.Job) (worker.Standing, error)) (*worker.Admitted, jobs.Verdict)
	Conclude(ctx context.Context, c worker.Conclusion) (ended bool, spent worker.Spent, err error)
	Repeat(ctx context.Context, c worker.Conclusion, end worker.Record) error
}

// Vertex runs batch prediction jobs. Errors are [*worker.CallError]; the kind Unanswered says that nobody knows whether it happened.
type Vertex interface {
	// Create begins a job, which will cost money.
	Create(ctx context.Context, r worker.BatchRequest) (worker.VertexBatch, error)
	// Find returns the jobs of a batch, found by label, oldest first.
	Find(ctx context.Context, lane worker.Lane, batch string) ([]worker.VertexBatch, error)
	Get(ctx context.Context, lane worker.Lane, name string) (worker.VertexBatch, error)
	// Cancel asks for a job's end. It has come when Get says so.
	Cancel(ctx context.Context, lane worker.Lane, name string) error
}

// Format is how requests and answers look in files.
type Format interface {
	// Line returns the line of a job's request, with a newline, and the hash of the request without the two labels.
	Line(j *jobs.Job, hi, lo string) (line []byte, hash [32]byte, err error)
	// Rows calls each for every line that begins in the first length bytes of r, in their order; the reader may give more. at is r's
	// place in its file. An error of each ends the reading and is returned. A row's answer belongs to each.
	Rows(ctx context.Context, r io.Reader, at, length int64, each func(worker.OutputRow) error) error
}

// Files are the batches' files, in the work bucket. Names begin with `batches/`.
type Files interface {
	// Write stores what write writes, in place of any file of that name. Nothing is stored when write fails, and its error is returned. When
	// storing fails, write may be called again, as often as it takes: it must begin anew and write the same each time.
	Write(ctx context.Context, name string, write func(io.Writer) error) error
	// Open reads a file from an offset to its end, or length bytes of it if that is not negative. The error wraps fs.ErrNotExist when
	// there is none.
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
	// List returns the files whose names begin with prefix, in the order of their names.
	List(ctx context.Context, prefix string) ([]File, error)
	// Read returns a small file with its generation; 0 and no data when there is none.
	Read(ctx context.Context, name string) (data []byte, generation int64, err error)
	// Swap replaces a small file of that generation, 0 for none, and returns its new one. It fails with ErrSwapped when it has another.
	Swap(ctx context.Context, name string, generation int64, data []byte) (next int64, err error)
	// URI returns a file's gs:// URI, and Name the name of a file of this bucket, or false.
	URI(name string) string
	Name(uri string) (name string, ok bool)
	// Serves reports whether the files are where data of a region may be.
	Serves(region string) bool
}

// ErrSwapped says that a file has another generation than was expected.
var ErrSwapped = errors.New("the file was changed by somebody else")

// File is a file in a list.
type File struct {
	Name string
	Size int64
}

// Queue is where jobs and hand-offs are published. Both return when the topic has accepted the message.
type Queue interface {
	PublishAgain(ctx context.Context, j *jobs.Job) error
	Handoffs
}

// Handoffs is where hand-offs are published. It returns when the topic has accepted the message.
type Handoffs interface {
	PublishHandoff(ctx context.Context, h *schemas.BatchHandoff) error
}

// Lineage takes the batches' rows.
type Lineage interface {
	AppendBatch(ctx context.Context, row *schemas.BatchRow) error
}
