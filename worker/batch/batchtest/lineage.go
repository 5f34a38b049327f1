package batchtest

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
)

// Lineage implements batch.Lineage: the table of batches in memory. Rows are kept as often as they are appended.
type Lineage struct {
	mu   sync.Mutex
	rows []*schemas.BatchRow
}

// AppendBatch implements batch.Lineage.
func (l *Lineage) AppendBatch(ctx context.Context, row *schemas.BatchRow) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, proto.CloneOf(row))
	return nil
}

// Rows returns the rows of a batch, or all of them when batch is empty, in the order in which they were appended.
func (l *Lineage) Rows(batch string) []*schemas.BatchRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.rows), func(r *schemas.BatchRow) bool { return batch != "" && r.GetBatchId() != batch })
}
