package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// states are the phases as lineage names them.
var states = map[Phase]string{Gathered: "gathered", Running: "running", Collecting: "collecting", Reconciling: "collecting", Closed: "closed"}

// tell appends a row to lineage when the batch has come further.
func (b *run) tell(ctx context.Context) error {
	row := b.row(time.Now())
	if b.state.Told == row.GetState() {
		return nil
	}
	switch err := b.ports.Lineage.AppendBatch(ctx, row); {
	case errors.Is(err, worker.ErrRowRefused):
		b.log.Error("lineage refuses the row of a batch", zap.Error(err)) // the batch goes on: its jobs have rows of their own
	case err != nil:
		return fmt.Errorf("record the batch's state: %w", err)
	}
	b.state.Told = row.GetState()
	return b.save(ctx)
}

func (b *run) row(now time.Time) *schemas.BatchRow {
	s, m := b.state, b.m
	rows := int64(m.Rows)
	row := &schemas.BatchRow{
		BatchId: m.ID, Model: m.Lane.Model, Location: m.Lane.Location, Region: m.Region, Lane: m.Lane.Name,
		VertexJob: s.Job, State: states[s.Phase], Reason: s.Reason, Detail: s.Detail, Jobs: &rows, InputBytes: &m.InputBytes,
		InputUri: b.ports.Files.URI(inputName(m.ID)), OutputUri: s.Output, PriceVersion: b.cfg.Catalogue.Version(),
		GatheredAt: m.SealedAt.UnixMicro(), CreatedAt: micros(s.Queued), StartedAt: micros(s.Started), EndedAt: micros(s.Ended),
		ChangedAt: now.UnixMicro(), Worker: b.cfg.Worker, WorkerVersion: b.cfg.Version,
		QueueMs: between(s.Queued, s.Started), RunMs: between(s.Started, s.Ended),
	}
	if s.Phase == Running && s.Started.IsZero() {
		row.State = "created"
	}
	if s.JobState != "" {
		row.VertexState = "JOB_STATE_" + s.JobState
	}
	if t := s.Totals; t != nil && s.Phase == Closed {
		row.ClosedAt, row.CollectMs = now.UnixMicro(), between(s.Ended, now)
		row.Done, row.Refused, row.Failed, row.Requeued = count(t.Done), count(t.Refused), count(t.Failed), count(t.Requeued)
		row.Missing, row.Duplicated, row.Orphans, row.Damaged = count(t.Missing), count(t.Duplicated), count(t.Orphans), count(t.Damaged)
		row.OutputBytes, row.CostUsd, row.SavedUsd = &t.Bytes, t.Cost.String(), (t.Online - t.Cost).String()
	}
	return row
}

func count(n int) *int64 {
	wide := int64(n)
	return &wide
}

// micros is a time as TIMESTAMP columns take it; 0, which they store as NULL, for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// between is the milliseconds from one moment to a later one, or nil when either has not come.
func between(from, to time.Time) *int64 {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	ms := max(to.Sub(from).Milliseconds(), 0)
	return &ms
}
