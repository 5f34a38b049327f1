package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// A job's claim may belong to a batch. Until the batch is sealed, the claim is its gatherer's and goes the way of any claim when
// the gatherer is taken for dead; from then on it is the batch's and nobody takes it over. One object decides which: the batch's
// seal, created once. The gatherer creates it with the manifest as its content. Whoever wants to take over a claim of a gatherer
// that is taken for dead creates it empty of jobs, as a void: a gatherer that was only frozen can then never seal.

// maxSealBytes bounds a manifest. It names files; the jobs themselves are in one of them.
const maxSealBytes = 1 << 20

// void is the content of the seal of a batch that will never be.
type void struct {
	Void   bool      `json:"void"`
	Worker string    `json:"worker"` // that voided it
	At     time.Time `json:"at"`     // by its clock; for people only
}

func sealName(batch string) string { return "batches/" + batch + "/manifest.json" }

// ClaimFor is Claim for a job that is gathered into a batch. The holder of a claim whose batch is sealed is the batch.
func (l *Ledger) ClaimFor(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error) {
	return l.claimAs(ctx, jobID, digest, batch)
}

// Seal makes a batch durable. The manifest is a JSON object without a field `void`. It fails with [worker.ErrVoid] when the batch was
// voided meanwhile. Sealing again with the same id succeeds and changes nothing.
func (l *Ledger) Seal(ctx context.Context, batch string, manifest []byte) error {
	if len(manifest) > maxSealBytes {
		return fmt.Errorf("seal batch %s: the manifest has %d bytes, more than %d", batch, len(manifest), maxSealBytes)
	}
	return l.createSeal(ctx, batch, manifest, func(found worker.Seal) error {
		if found.Void {
			return worker.ErrVoid
		}
		return nil // by an earlier try whose answer was lost: only this worker knows the id
	})
}

// createSeal creates a batch's seal, or asks what to make of the one that is there.
func (l *Ledger) createSeal(ctx context.Context, batch string, content []byte, there func(worker.Seal) error) error {
	object := l.bucket.Object(sealName(batch))
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		_, err := gcs.Put(ctx, object.If(storage.Conditions{DoesNotExist: true}), "application/json", content)
		if !gcs.PreconditionFailed(err) {
			return err
		}
		found, err := l.readSeal(ctx, batch)
		if err != nil {
			return err
		}
		return there(found)
	})
	if err != nil {
		return fmt.Errorf("seal batch %s: %w", batch, err)
	}
	return nil
}

// ReadSeal returns what is known of a batch's seal.
func (l *Ledger) ReadSeal(ctx context.Context, batch string) (s worker.Seal, err error) {
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		s, err = l.readSeal(ctx, batch)
		return err
	})
	if err != nil {
		return worker.Seal{}, fmt.Errorf("read the seal of batch %s: %w", batch, err)
	}
	return s, nil
}

func (l *Ledger) readSeal(ctx context.Context, batch string) (worker.Seal, error) {
	r, err := l.bucket.Object(sealName(batch)).NewReader(ctx)
	if gcs.NotFound(err) {
		return worker.Seal{}, nil
	}
	if err != nil {
		return worker.Seal{}, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxSealBytes+1))
	if err != nil {
		return worker.Seal{}, err
	}
	var v void
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		return worker.Seal{}, fmt.Errorf("gs://%s/%s: %w", l.name, sealName(batch), err)
	}
	if v.Void {
		return worker.Seal{Void: true}, nil
	}
	return worker.Seal{Sealed: true, Manifest: data}, nil
}

// VoidIfAbandoned voids a batch whose gatherer is taken for dead, unless it is sealed. It reports whether the batch is void.
func (l *Ledger) VoidIfAbandoned(ctx context.Context, batch, gatherer string) (bool, error) {
	var isVoid bool
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		gone, err := l.gone(ctx, gatherer)
		if err != nil || !gone {
			return err
		}
		isVoid, err = l.void(ctx, batch)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("void batch %s: %w", batch, err)
	}
	return isVoid, nil
}

// void voids a batch, and reports false if it is sealed.
func (l *Ledger) void(ctx context.Context, batch string) (bool, error) {
	content, err := json.Marshal(void{Void: true, Worker: l.worker, At: time.Now().UTC()})
	if err != nil {
		return false, err
	}
	sealed := false
	err = l.createSeal(ctx, batch, content, func(found worker.Seal) error {
		sealed = found.Sealed
		return nil
	})
	return err == nil && !sealed, err
}

// Look returns how a job ended, if it has. It claims nothing.
func (l *Ledger) Look(ctx context.Context, jobID string) (end worker.Record, ended bool, err error) {
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		found, _, err := l.read(ctx, jobID)
		if gcs.NotFound(err) || err == nil && found.State != done {
			return nil
		}
		if err == nil {
			end, err = found.end()
			ended = err == nil
		}
		return err
	})
	if err != nil {
		return worker.Record{}, false, fmt.Errorf("look at %s: %w", jobID, err)
	}
	return end, ended, nil
}
