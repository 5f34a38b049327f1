package vertextest

import (
	"errors"
	"fmt"
	"time"
)

// Limits and times of batch prediction, as documented.
const (
	maxBatchRows        = 200_000
	maxBatchInputBytes  = 1 << 30
	defaultPendingLimit = 72 * time.Hour
	defaultRunningLimit = 24 * time.Hour

	// maxPartialFailures bounds partialFailures of a job.
	maxPartialFailures = 20

	// maxCopies bounds how often a row comes in an output: 20 for one key were reported.
	maxCopies = 20
)

// Batch is how batch prediction jobs run. With the zero value a job runs as
// soon and as fast as it can, makes no mistakes and writes one file, with its
// rows in an order of its own: the service keeps none.
type Batch struct {
	// Queued, Pending and Running are how long a job stays in each state. The
	// rows are spread over Running. Cancelling is how long a cancelled one takes
	// to stop.
	Queued, Pending, Running, Cancelling time.Duration
	// PendingLimit and RunningLimit are when a job expires. Default 72 h and 24 h.
	PendingLimit, RunningLimit time.Duration
	// Manual stops the clock: jobs advance by [Server.StepBatch] only.
	Manual bool

	// ShardRows is how many rows one output file takes. Each file becomes visible
	// when it is full, while the job still runs, and outputInfo is told from the
	// start. 0: one file, visible when the job ends, as observed.
	ShardRows int
	// GrowRows replaces the one file by a longer one each time so many rows more
	// are done, so that a reader of a running job finds its file changed under its
	// hands. Each copy reads the file before. 0: never. Excludes ShardRows.
	GrowRows int
	// KeepOrder exports the rows in the order of the input.
	KeepOrder bool
	// ExportIncomplete also exports the rows that a job did not get to, with a
	// status and without a response, so that a job that resumes from the output
	// has all requests. Whether the service does is not documented.
	ExportIncomplete bool
	// HideGaps makes a job with missing rows claim success for all of them.
	// Otherwise it is PARTIALLY_SUCCEEDED and counts them as incomplete.
	HideGaps bool
	// SilentSize makes 1K images of requests for a size that batch does not make.
	// Otherwise such rows fail with 400. Which it is, is not documented.
	SilentSize bool

	// ListLag is how long a new job stays out of lists. Get finds it at once.
	ListLag time.Duration
	// CreatesPerMinute and ReadsPerMinute are quotas for each project and
	// location; documented are 60 and 600. 0: none.
	CreatesPerMinute, ReadsPerMinute float64
	// SpoolDir holds a copy of a job's input while the job runs. Default [os.TempDir].
	SpoolDir string

	Faults BatchFaults
	// JobHook sees each new job, with the fate that the faults chose, and returns
	// the fate it gets. It must be safe for concurrent use.
	JobHook func(j BatchJob, f JobFate) JobFate
	// RowHook does the same for each row that passed validation, and must not
	// keep the call.
	RowHook func(c *Call, f RowFate) RowFate
}

// BatchFaults are shares, 0 to 1. Those of jobs are of all jobs; those of rows
// are of all rows, before duplicates.
type BatchFaults struct {
	// What becomes of the creation of a job: an UNAVAILABLE although it was
	// created, silence although it was created, an UNAVAILABLE without it, a 429.
	CreateLost, CreateHang, CreateUnavailable, CreateThrottled float64
	// Stuck jobs stay PENDING until they expire or are cancelled. Expired and
	// Failed jobs end so after a random part of their rows.
	Stuck, Expired, Failed float64

	// Rows that fail, with a status for each: 400, 429, 500.
	BadRequest, Throttled, Internal float64
	// Missing rows were never made. Lost rows were made, and billed, but are not
	// in the output.
	Missing, Lost float64
	// Rows that are damaged in the output, and billed: cut in the middle, base64
	// with a character that it has not, no JSON at all.
	Cut, BadBase64, Garbage float64

	// Duplicated rows come again, as answers of their own, each billed: once, or
	// up to MaxCopies times (default 1, at most 19), small numbers more often.
	Duplicated float64
	MaxCopies  int
	// Orphans are rows with a request that nobody sent, billed, as a share of all rows.
	Orphans float64
	// NoLabels echoes a request without its labels, Nulls with nulls for what it
	// left out. ResponseFirst puts the response before the request, Escaped spells
	// base64 with \/ and other escapes, TwoImages answers with two images.
	NoLabels, Nulls, ResponseFirst, Escaped, TwoImages float64
}

// CreateFault is a kind of failure of the creation of a job.
type CreateFault int

// The kinds of failure of a creation.
const (
	CreateOK CreateFault = iota
	// CreateLost answers UNAVAILABLE although the job exists.
	CreateLost
	// CreateHang answers nothing although the job exists.
	CreateHang
	CreateUnavailable
	CreateThrottled
)

// JobEnd is how a job ends that was let run.
type JobEnd int

// The ends of a job.
const (
	EndDone JobEnd = iota
	EndExpired
	EndFailed
)

// JobFate is what happens to one job.
type JobFate struct {
	Create CreateFault
	// Stuck jobs stay PENDING.
	Stuck bool
	// End, and the share of the rows that are done before an end other than EndDone.
	End      JobEnd
	EndShare float64
}

// Damage is what is wrong with a row of an output.
type Damage int

// The kinds of damage.
const (
	DamageNone Damage = iota
	DamageCut
	DamageBase64
	DamageGarbage
)

// RowFate is what happens to one row. Of Fate, Latency, Fault and Status play no role.
type RowFate struct {
	Fate
	// FailStatus is the HTTP status of a row that fails; 0: it does not.
	FailStatus int
	// Missing rows are not made. Lost rows are made and not exported.
	Missing, Lost bool
	// Copies are more answers to the same request, at most 19. A copy has a fate
	// of its own but no copies.
	Copies int
	Damage Damage
	// Orphan adds a row with a request that nobody sent.
	Orphan                         bool
	NoLabels, Nulls, ResponseFirst bool
}

func (b *Batch) setDefaults() {
	if b.PendingLimit == 0 {
		b.PendingLimit = defaultPendingLimit
	}
	if b.RunningLimit == 0 {
		b.RunningLimit = defaultRunningLimit
	}
	if b.Faults.MaxCopies == 0 {
		b.Faults.MaxCopies = 1
	}
}

func (b *Batch) validate(share func(name string, parts ...float64)) (errs []error) {
	f := b.Faults
	share("Batch.Faults of creations", f.CreateLost, f.CreateHang, f.CreateUnavailable, f.CreateThrottled)
	share("Batch.Faults of jobs", f.Stuck, f.Expired, f.Failed)
	share("Batch.Faults of rows", f.BadRequest, f.Throttled, f.Internal, f.Missing, f.Lost, f.Cut, f.BadBase64, f.Garbage)
	for name, part := range map[string]float64{
		"Duplicated": f.Duplicated, "Orphans": f.Orphans, "NoLabels": f.NoLabels, "Nulls": f.Nulls,
		"ResponseFirst": f.ResponseFirst, "Escaped": f.Escaped, "TwoImages": f.TwoImages,
	} {
		share("Batch.Faults."+name, part)
	}
	if f.MaxCopies < 0 || f.MaxCopies > maxCopies-1 {
		errs = append(errs, fmt.Errorf("Batch.Faults.MaxCopies %d is not within 0 to %d", f.MaxCopies, maxCopies-1))
	}
	for _, d := range []time.Duration{b.Queued, b.Pending, b.Running, b.Cancelling, b.PendingLimit, b.RunningLimit, b.ListLag} {
		if d < 0 {
			errs = append(errs, errors.New("times of Batch cannot be negative"))
		}
	}
	if b.GrowRows < 0 || b.GrowRows > 0 && b.ShardRows > 0 {
		errs = append(errs, errors.New("Batch.GrowRows is negative, or used together with ShardRows"))
	}
	if b.ShardRows < 0 || b.CreatesPerMinute < 0 || b.ReadsPerMinute < 0 {
		errs = append(errs, errors.New("Batch.ShardRows, CreatesPerMinute and ReadsPerMinute cannot be negative"))
	}
	return errs
}
