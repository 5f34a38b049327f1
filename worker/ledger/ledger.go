// Package ledger records in Cloud Storage who may spend money on a job and how each job ended: one small object per job,
// changed only with generation preconditions.
//
//	(nothing) --create, if absent--> claimed --compare-and-swap--> done
//	                                 |  ^  ^ |
//	                compare-and-swap |  |  | | compare-and-swap by another worker,
//	                                 v  |  +-+ when the holder is taken for dead
//	                               released
//
// A claim carries a nonce, so that a writer that lost the answer to its own write can tell its own claim from another's. A
// writer whose swap fails has been fenced: what it has must be discarded.
//
// # Life and death
//
// Each worker gives signs of life (beat.go). Whoever finds a claim of a worker that is taken for dead takes the claim over.
// Being taken for dead is not being dead: a worker that was frozen, or cut off from Cloud Storage, may come back. What protects
// the job then is the swap: the late worker's Finish fails, its asset finds the name taken or is found there by the new holder,
// and only one row is ever recorded as the job's end. What is lost is at most the price of the calls that the worker had in flight
// when it froze, since before each further call it confirms that it still holds the job.
//
// Clocks may be minutes apart. Spans are measured by each worker's own monotonic clock, and the only times that one worker
// writes and another reads are for people.
//
// Objects of jobs are never deleted by this package. A lifecycle rule may delete them once no message of the job can come any
// more, which is after the longest retention of the topic; and the objects under workers/ after a day.
package ledger

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// maxRecordBytes bounds what is read back of one record: a lineage row with its prompt, and the rows of all calls. Job
// messages are far smaller.
const maxRecordBytes = 1 << 20

// workBucketSetting is the setting that chooses the bucket, for errors.
const workBucketSetting = "ASSETMILL_WORK_BUCKET"

// Ledger implements worker.Ledger on a bucket. It is safe for concurrent use.
type Ledger struct {
	bucket *storage.BucketHandle
	name   string
	worker string
	pulse  pulse
	peers  peers
	clock  clock
	// neighbours have something to tell the other workers; nil: nobody has.
	neighbours Neighbours
	// uploader writes the jobs' records; nil: the client does.
	uploader *gcs.Uploader
}

// Option changes how a ledger works.
type Option func(*Ledger)

// WriteBy has the jobs' records written by an uploader, which costs less than the client's own writer.
func WriteBy(u *gcs.Uploader) Option { return func(l *Ledger) { l.uploader = u } }

// New returns the ledger in a bucket, for the worker of that id. The client's own retries are switched off for the ledger's
// writes: a repeated conditional write needs to know of the first.
func New(client *storage.Client, bucket, workerID string, options ...Option) *Ledger {
	l := &Ledger{
		bucket: client.Bucket(bucket).Retryer(storage.WithPolicy(storage.RetryNever)),
		name:   bucket,
		worker: workerID,
		pulse:  newPulse(),
	}
	for _, o := range options {
		o(l)
	}
	return l
}

// Check returns an error that says what to do when the bucket is missing or may not be used.
func (l *Ledger) Check(ctx context.Context) error {
	return gcs.Check(ctx, l.bucket, l.name, workBucketSetting, "roles/storage.objectUser on it")
}

// objectName spreads jobs over 256 prefixes, since Cloud Storage splits its load by name.
func objectName(jobID string) string {
	sum := sha256.Sum256([]byte(jobID))
	return "ledger/" + hex.EncodeToString(sum[:1]) + "/" + jobID
}

// Claim implements worker.Ledger.
func (l *Ledger) Claim(ctx context.Context, jobID string, digest jobs.Digest) (worker.Standing, error) {
	return l.claimAs(ctx, jobID, digest, "")
}

// claimAs claims a job, for a batch if that has a name.
func (l *Ledger) claimAs(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error) {
	// A claim without a fresh sign of life could be taken over at once, while its call is on its way.
	series, err := l.pulse.await(ctx)
	if err != nil {
		return worker.Standing{}, fmt.Errorf("claim %s: %w", jobID, err)
	}
	mine := &record{State: claimed, Worker: l.worker, Batch: batch, Nonce: rand.Text(), Digest: digest.String(), At: time.Now().UTC()}
	var standing worker.Standing
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		var err error
		standing, err = l.claim(ctx, jobID, digest, mine)
		return err
	})
	if err != nil {
		return worker.Standing{}, fmt.Errorf("claim %s: %w", jobID, err)
	}
	standing.Ticket.Series = series
	return standing, nil
}

// claim makes one round: create; if there is a record, judge it; if it is released, swap it. A round that loses a race ends
// as Busy: the winner is at work.
func (l *Ledger) claim(ctx context.Context, jobID string, digest jobs.Digest, mine *record) (worker.Standing, error) {
	generation, err := l.write(ctx, jobID, mine, storage.Conditions{DoesNotExist: true})
	if err == nil {
		return granted(jobID, digest, generation, worker.Spent{}), nil
	}
	if !gcs.PreconditionFailed(err) {
		return worker.Standing{}, err
	}
	found, generation, err := l.read(ctx, jobID)
	if err != nil {
		return worker.Standing{}, err
	}
	switch {
	case found.Digest != digest.String():
		return worker.Standing{State: worker.Conflict}, nil
	case found.State == done:
		end, err := found.end()
		return worker.Standing{State: worker.Done, Record: end}, err
	case found.State == claimed && found.Nonce == mine.Nonce:
		// An earlier try of this very claim was written although its answer was lost.
		spent, err := worker.DecodeSpent(found.Spent)
		return granted(jobID, digest, generation, spent), err
	case found.State == claimed:
		gone, err := l.gone(ctx, found.Worker)
		if err != nil {
			return worker.Standing{}, err
		}
		if gone && found.Batch != "" {
			gone, err = l.void(ctx, found.Batch)
		}
		if err != nil || !gone {
			return worker.Standing{State: worker.Busy, Holder: found.holder()}, err
		}
	}
	return l.reclaim(ctx, jobID, digest, mine, found, generation)
}

// reclaim swaps a released record, or the claim of a worker that is taken for dead, for a claim that carries on with what was
// spent.
func (l *Ledger) reclaim(ctx context.Context, jobID string, digest jobs.Digest, mine, found *record, generation int64) (worker.Standing, error) {
	spent, err := worker.DecodeSpent(found.Spent)
	if err != nil {
		return worker.Standing{}, err
	}
	if found.State == claimed && found.Batch == "" { // a batch that is not sealed has spent nothing
		spent.Abandoned++ // written with the claim: this worker may die as well before it accounts for it
	}
	next := *mine
	if err := next.setSpent(spent); err != nil {
		return worker.Standing{}, err
	}
	generation, err = l.write(ctx, jobID, &next, storage.Conditions{GenerationMatch: generation})
	switch {
	case gcs.PreconditionFailed(err):
		return worker.Standing{State: worker.Busy, Holder: "another worker"}, nil
	case err != nil:
		return worker.Standing{}, err
	}
	return granted(jobID, digest, generation, spent), nil
}

func granted(jobID string, digest jobs.Digest, generation int64, spent worker.Spent) worker.Standing {
	return worker.Standing{
		State:     worker.Granted,
		Ticket:    worker.Ticket{JobID: jobID, Digest: digest, Generation: generation},
		Spent:     spent,
		Abandoned: spent.Abandoned > 0,
	}
}

// Confirm implements worker.Ledger.
func (l *Ledger) Confirm(ctx context.Context, t worker.Ticket) error {
	if l.pulse.unbroken(t.Series) {
		return nil
	}
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		attrs, err := l.bucket.Object(objectName(t.JobID)).Attrs(ctx)
		if err == nil && attrs.Generation != t.Generation {
			return worker.ErrFenced
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("confirm %s: %w", t.JobID, err)
	}
	return nil
}

// Finish implements worker.Ledger.
func (l *Ledger) Finish(ctx context.Context, t worker.Ticket, end worker.Record) error {
	next := l.newRecord(done, t)
	if err := next.setEnd(end); err != nil {
		return fmt.Errorf("finish %s: %w", t.JobID, err)
	}
	if err := l.swap(ctx, t, next); err != nil {
		return fmt.Errorf("finish %s: %w", t.JobID, err)
	}
	return nil
}

// Release implements worker.Ledger.
func (l *Ledger) Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error {
	next := l.newRecord(released, t)
	if err := next.setSpent(spent); err != nil {
		return fmt.Errorf("release %s: %w", t.JobID, err)
	}
	if err := l.swap(ctx, t, next); err != nil {
		return fmt.Errorf("release %s: %w", t.JobID, err)
	}
	return nil
}

func (l *Ledger) newRecord(s state, t worker.Ticket) *record {
	return &record{State: s, Worker: l.worker, Nonce: rand.Text(), Digest: t.Digest.String(), At: time.Now().UTC()}
}

// swap replaces the ticket's claim. A failed precondition after a lost answer may be this very write; the nonce tells.
func (l *Ledger) swap(ctx context.Context, t worker.Ticket, next *record) error {
	return retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		_, err := l.write(ctx, t.JobID, next, storage.Conditions{GenerationMatch: t.Generation})
		if !gcs.PreconditionFailed(err) {
			return err
		}
		found, _, err := l.read(ctx, t.JobID)
		switch {
		case err != nil:
			return err
		case found.Nonce == next.Nonce:
			return nil
		}
		return fmt.Errorf("%w: it is %s by %s", worker.ErrFenced, found.State, found.Worker)
	})
}

func (l *Ledger) write(ctx context.Context, jobID string, r *record, cond storage.Conditions) (generation int64, err error) {
	data, err := r.encode()
	if err != nil {
		return 0, err
	}
	attrs, err := l.uploader.Write(ctx, l.bucket.Object(objectName(jobID)), cond, gcs.Upload{
		ContentType: "application/json", Size: int64(len(data)), Open: func() io.Reader { return bytes.NewReader(data) },
	})
	if err != nil {
		return 0, err
	}
	return attrs.Generation, nil
}

func (l *Ledger) read(ctx context.Context, jobID string) (*record, int64, error) {
	r, err := l.bucket.Object(objectName(jobID)).NewReader(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxRecordBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxRecordBytes {
		return nil, 0, fmt.Errorf("record gs://%s/%s is over %d bytes", l.name, objectName(jobID), maxRecordBytes)
	}
	rec, err := decode(bytes.NewReader(data))
	if err != nil {
		return nil, 0, fmt.Errorf("record gs://%s/%s: %w", l.name, objectName(jobID), err)
	}
	return rec, r.Attrs.Generation, nil
}
