package batch

import (
	"context"
	"fmt"

	"github.com/assetmill/assetmill/schemas"
)

// Resume publishes the hand-off of a batch once more, so that a worker takes up the step that is due, and reports whether it did: a batch that is
// closed has none. It is for a batch whose hand-off was lost, which nothing else continues, and whose jobs are claimed until something does.
//
// A batch whose hand-off is not lost has two from then on. They take turns in the batch's claim, and nothing is done or paid twice; the
// second costs one more look at the batch, some small requests, each time that it is delivered, until the batch is closed. Messages of
// ranges that were lost as well are asked for by the batch itself, within askAgain looks.
func Resume(ctx context.Context, q Handoffs, s *Status) (resumed bool, err error) {
	if s.Phase == Closed {
		return false, nil
	}
	if err := q.PublishHandoff(ctx, &schemas.BatchHandoff{BatchId: s.ID, Gatherer: s.Gatherer}); err != nil {
		return false, fmt.Errorf("resume: %w", err)
	}
	return true, nil
}
