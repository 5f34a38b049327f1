package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// The interfaces in this file are what the spine calls, in the order in which it calls them. Implementations live in
// worker/{ledger,vertex,assets,lineage} and jobs/queue; the spine imports none of them. All of them are safe for concurrent
// use, honour their context, and do not keep or change what they are handed.

// Ledger says who may spend money on a job, and remembers how each job ended.
type Ledger interface {
	// Claim asks for the right to spend money on a job. Four things might happen:
	//  1. Granted: nobody else may call the model for the job until the ticket is finished or released, or this worker is
	//     taken for dead. Abandoned says that the job was taken over from a worker that is taken for dead.
	//  2. Done: the job has ended; Record says how. It must not be called again.
	//  3. Busy: a worker that is alive, as far as anybody knows, holds the job. Come back later.
	//  4. Conflict: the id belongs to a job with another digest.
	// An error means that the ledger could not be asked; nothing was granted.
	Claim(ctx context.Context, jobID string, digest jobs.Digest) (Standing, error)
	// Confirm reports whether the ticket still holds its job, just before money is spent on it: a worker that was frozen may
	// have been taken for dead meanwhile. It costs nothing while the worker's signs of life arrive. It fails with
	// [ErrFenced] when the job is lost; after any other error nobody knows, and nothing may be spent.
	Confirm(ctx context.Context, t Ticket) error
	// Finish records the job's end. It fails with [ErrFenced] when the ticket no longer holds the job; what the caller has
	// must then be discarded. After any other error the record may or may not be written.
	Finish(ctx context.Context, t Ticket, r Record) error
	// Release gives the job up, keeping what was spent, so that any worker may claim it at once. It fails as Finish does.
	Release(ctx context.Context, t Ticket, spent Spent) error
	// Beat gives signs of life for this worker until ctx ends, and then takes it off the list of the living, so that what it
	// still holds can be taken over at once. Without Beat, what the worker claims can be taken over as soon as others have
	// watched it for a while.
	Beat(ctx context.Context)
}

// State is the answer to a claim.
type State int

// States.
const (
	Granted State = iota + 1
	Done
	Busy
	Conflict
)

// Standing is where a job stands for the worker that asked.
type Standing struct {
	State  State
	Ticket Ticket // Granted
	Spent  Spent  // Granted: what earlier claims spent
	// Abandoned says, for Granted, that a worker that is taken for dead held the job. It may have stored an asset, and it may
	// have made a call that nobody has counted; Spent.Abandoned says how many such workers there were.
	Abandoned bool
	Record    Record // Done
	Holder    string // Busy: the worker that holds the job
}

// Ticket is the right to spend money on one job. It is a value; only the ledger that made it reads it.
type Ticket struct {
	JobID      string
	Digest     jobs.Digest
	Generation int64 // of the claim in the ledger
	Series     int64 // of the worker's signs of life, without a gap, in which the job was claimed
}

// Spent is what has been spent on a job so far.
type Spent struct {
	Calls     int                   // calls made, throttled answers not counted
	Throttled int                   // answers of 429 and 503
	Cost      jobs.USD              // of all calls
	Fallback  bool                  // whether part of Cost is a guess
	Attempts  []*schemas.AttemptRow // the calls, oldest first, at most MaxCalls
	// Abandoned counts the claims that were taken over from workers that are taken for dead and that nobody has accounted for: each may
	// have made a call that is not in Calls. Whoever is granted the job accounts for them and sets it to 0.
	Abandoned int
}

// Record is how a job ended: the rows that lineage holds about it.
type Record struct {
	Generation *schemas.GenerationRow
	Attempts   []*schemas.AttemptRow
}

// Lanes decides by which lane a job's next call goes, and when.
type Lanes interface {
	// Next waits until a call for the job may begin, and returns the right to make it. Three things may go wrong; the error
	//  1. wraps [ErrLanesShut]: no lane of this worker is left, so no job can be served;
	//  2. wraps [ErrNoLane]: no lane of this worker serves what the job asks for, or those that did are shut. Its text says
	//     which and why;
	//  3. is ctx's cause: ctx ended first.
	Next(ctx context.Context, j *jobs.Job) (Permit, error)
}

// Permit is the right to begin one call. Its holder calls End or Drop, once.
type Permit interface {
	Lane() Lane
	// End says how the call ended: nil, or what Generate returned.
	End(err error)
	// Drop says that the call was not made.
	Drop()
}

// Lane is one way to get a call served. It is a value, and its name is unique in a worker.
type Lane struct {
	Name     string
	Project  string
	Location string // Vertex location
	Model    string // the catalogue's id
	Tier     string // as in the catalogue
	// Host takes calls instead of the location's own: host[:port], of a dedicated endpoint or a private one.
	Host string
	// Endpoint is the id of a dedicated endpoint, which takes predict calls. Empty for the models that Google serves.
	Endpoint string
	// ImagePrice is what an image costs here, where the catalogue's list price does not hold. Nil: it holds.
	ImagePrice *jobs.USD
}

// Model makes calls.
type Model interface {
	// Generate makes one call and waits for its answer. The error is a [*CallError]. An answer whose Image is not nil must be
	// released by the caller.
	Generate(ctx context.Context, c Call) (*Answer, error)
}

// Call is what is asked of a model.
type Call struct {
	Job  *jobs.Job
	Lane Lane
	// Attempt is the number of the call for the job, from 1. Throttled calls are not counted.
	Attempt int
	// Prefix is where the model may write the image itself, if it can: `gs://bucket/folder/`, of this job alone. Empty: the
	// image comes with the answer.
	Prefix string
}

// Answer is what a model said. Reason is one of the image and refusal reasons, or jobs.ReasonBadAnswer for an answer that is
// complete, well formed and useless. Either Image or Written is set if and only if Reason is jobs.ReasonImage.
type Answer struct {
	Reason       jobs.Reason
	Image        *Image
	Written      string // gs:// URI of an image that the model wrote itself, below Call.Prefix
	Detail       string // the model's words on a refusal, shortened; never the prompt
	FinishReason string // as the model named it
	Ratings      []*schemas.SafetyRating
	Usage        jobs.Usage
	UsageMissing bool // Usage is an estimate
	ModelVersion string
	TrafficType  string
	ResponseID   string
}

// Image is a picture as the model returned it, byte for byte.
type Image struct {
	Blob          *blob.Blob
	MimeType      string
	Width, Height int // pixels, read from the image's own header; 0 when it can't be read
}

// Kind says what an error of a call means for the job. The set is closed.
type Kind int

// Kinds.
const (
	// Throttled: the service had no capacity (429, 503). Nothing was made and nothing is paid. Wait, then try again.
	Throttled Kind = iota + 1
	// Failing: the service answered that it failed (500, 502, 504 and the like). Nothing is paid. Try again, within bounds.
	Failing
	// Unanswered: the request was sent and no complete answer came. It may be paid. Try again, within bounds.
	Unanswered
	// Rejected: the service will never serve this request. The job ends as failed.
	Rejected
	// Denied: this worker may not call this model by this lane (401, 403, 404). Nothing is paid. Try another lane.
	Denied
	// Interrupted: the context ended before the request was sent. Nothing is paid.
	Interrupted
	// Unreached: the service could not be reached, and no request was sent. Nothing is paid. Wait, then try again.
	Unreached
)

var kindNames = map[Kind]string{
	Throttled: "throttled", Failing: "failing", Unanswered: "unanswered", Rejected: "rejected", Denied: "denied", Interrupted: "interrupted", Unreached: "unreached",
}

// String returns the kind's name in lower case.
func (k Kind) String() string { return kindNames[k] }

// CallError is a call that yielded no answer from the model.
type CallError struct {
	Kind       Kind
	Reason     jobs.Reason   // Rejected: why the job fails
	Status     int           // HTTP status; 0 when no answer came
	Detail     string        // the service's message, shortened; never the prompt
	RetryAfter time.Duration // as the service asked; 0 when it did not
	Lane       Lane
	Err        error // the cause; may be nil
}

// Error returns the kind, the status and the service's message.
func (e *CallError) Error() string {
	text := fmt.Sprintf("%s on lane %s", e.Kind, e.Lane.Name)
	if e.Status != 0 {
		text += fmt.Sprintf(": HTTP %d", e.Status)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	} else if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// Assets stores images.
type Assets interface {
	// Store writes the image under the job's name unless there is one already, and returns what is stored. The first
	// write wins: when Asset.Existing is true, the image given was discarded and Asset describes the stored one. Store
	// retries by itself until ctx ends.
	Store(ctx context.Context, j *jobs.Job, image *Image) (Asset, error)
	// Prefix returns where the model may write the job's image itself, as Call.Prefix says; empty when it may not.
	Prefix(j *jobs.Job) string
	// Take makes an image that the model wrote itself, below Prefix, the job's asset. It is Store for an image that never
	// came here. It fails with [ErrUnusable] when there is no image.
	Take(ctx context.Context, j *jobs.Job, uri string) (Asset, error)
	// Find returns the asset that is stored for the job, if there is one, whatever its media type. An image that a model wrote
	// itself and that nobody has taken counts: it is taken.
	Find(ctx context.Context, j *jobs.Job) (asset Asset, found bool, err error)
}

// Asset is an image in Cloud Storage.
type Asset struct {
	URI           string
	Generation    int64
	Bytes         int64
	CRC32C        uint32
	MimeType      string
	Width, Height int
	Existing      bool
}

// Controls knows what the owners of submissions want.
type Controls interface {
	// Control returns what is to become of the submission's jobs that have not been called yet. The answer may be some
	// seconds old.
	Control(ctx context.Context, submission string) (Control, error)
}

// Control is what is to become of a submission's jobs.
type Control int

// Controls.
const (
	Proceed Control = iota // as usual
	Pause                  // not called for now
	Cancel                 // not called at all
)

// Lineage appends rows. Both methods return when the row is durable. An error that wraps [ErrRowRefused] is final; after any other
// the row may be stored, and appending it again is right.
type Lineage interface {
	AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error
	AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error
}

// Results announces ends.
type Results interface {
	// Publish returns when the topic has accepted the event.
	Publish(ctx context.Context, r *schemas.JobResult) error
}

// Queue delivers messages.
type Queue interface {
	// Receive calls handle for each message, concurrently, and carries out its verdict. When ctx ends, no further message is
	// delivered, and Receive returns after every handle has returned and its verdict is sent. The context that handle
	// gets does not end with ctx. A nil error means that ctx ended.
	Receive(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error
}
