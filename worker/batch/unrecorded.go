package batch

import (
	"context"
	"errors"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// unrecorded deals with a job that has ended and whose row lineage can never store: its message is published again, and becomes a dead
// letter with the reason, as an online job's does. Other errors are returned.
func (r *Runner) unrecorded(ctx context.Context, j *jobs.Job, err error) error {
	if !errors.Is(err, worker.ErrRowRefused) {
		return err
	}
	return r.ports.Queue.PublishAgain(ctx, j)
}
