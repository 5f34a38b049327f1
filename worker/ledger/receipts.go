package ledger

import (
	"context"
	"fmt"
	"io"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/schemas"
)

// Receipts keeps the newest receipt of each submission, beside the ledger, as `submissions/<id>.json`. It is safe for concurrent
// use.
type Receipts struct {
	bucket *storage.BucketHandle
	name   string
}

// NewReceipts returns the receipts in a bucket.
func NewReceipts(client *storage.Client, bucket string) *Receipts {
	return &Receipts{bucket: client.Bucket(bucket), name: bucket}
}

// receiptGrants are what whoever submits needs: to list the bucket, and to write what is theirs.
const receiptGrants = "roles/storage.legacyBucketReader on it, and roles/storage.objectUser on its managed folders submissions/ and control/"

// Check returns an error that says what to do when the bucket is missing or may not be used.
func (r *Receipts) Check(ctx context.Context) error {
	return gcs.Check(ctx, r.bucket, r.name, workBucketSetting, receiptGrants)
}

func receiptName(submission string) string { return "submissions/" + submission + ".json" }

// PutReceipt stores a receipt in place of the submission's older one.
func (r *Receipts) PutReceipt(ctx context.Context, row *schemas.SubmissionRow) error {
	data, err := schemas.Marshal(row)
	if err != nil {
		return fmt.Errorf("receipt of %s: %w", row.GetSubmission(), err)
	}
	err = retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		_, err := gcs.Put(ctx, r.bucket.Object(receiptName(row.GetSubmission())), "application/json", data)
		return err
	})
	if err != nil {
		return fmt.Errorf("receipt of %s: %w", row.GetSubmission(), err)
	}
	return nil
}

// Receipt returns the newest receipt of a submission, or nil when there is none.
func (r *Receipts) Receipt(ctx context.Context, submission string) (*schemas.SubmissionRow, error) {
	row := &schemas.SubmissionRow{}
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		in, err := r.bucket.Object(receiptName(submission)).NewReader(ctx)
		if err != nil {
			return err
		}
		defer in.Close()
		data, err := io.ReadAll(io.LimitReader(in, maxRecordBytes))
		if err != nil {
			return err
		}
		return schemas.Unmarshal(data, row)
	})
	switch {
	case gcs.NotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("receipt of %s: %w", submission, err)
	}
	return row, nil
}
