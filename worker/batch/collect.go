package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const (
	// DefaultRangeBytes is the part of an output that one worker collects at a time: some hundred images, a minute's work.
	DefaultRangeBytes = 256 << 20
	// maxRanges bounds the ranges of one batch, so that its state stays small: 200,000 rows of 8 MB are 1.6 TB.
	maxRanges = 4096
	// DefaultConcurrency is how many rows of a range are on their way to the bucket at a time.
	DefaultConcurrency = 16
	// askAgain is after how many looks the ranges that are still missing are asked for again. Their messages come back by themselves; this
	// is for those that somebody purged.
	askAgain = 40
)

// startCollecting cuts the output of a Vertex job, if there was one, into ranges, and asks for them.
func (b *run) startCollecting(ctx context.Context, job *worker.VertexBatch) error {
	b.state.Ranges = nil
	if job != nil {
		if err := b.cancelSurplus(ctx); err != nil {
			return err
		}
		if err := b.cut(ctx); err != nil {
			return err
		}
	}
	b.state.Phase, b.state.Looks, b.state.Passed, b.state.Totals = Collecting, 0, 0, nil
	return b.save(ctx)
}

// cancelSurplus looks for jobs that a frozen worker may have created after this batch had one.
func (b *run) cancelSurplus(ctx context.Context) error {
	found, err := b.vertex.Find(ctx, b.m.Lane, b.m.ID)
	if err != nil {
		return fmt.Errorf("look for the batch's jobs: %w", err)
	}
	for _, extra := range found {
		if extra.Name == b.state.Job || slices.Contains(b.state.Surplus, extra.Name) {
			continue
		}
		b.log.Error("a batch has more than one Vertex job; the other is cancelled", zap.String("job", b.state.Job), zap.String("other", extra.Name))
		if err := b.vertex.Cancel(ctx, b.m.Lane, extra.Name); err != nil {
			return err
		}
		b.state.Surplus = append(b.state.Surplus, extra.Name)
	}
	return nil
}

// cut plans the ranges.
func (b *run) cut(ctx context.Context) error {
	folder := outputDir(b.m.ID)
	if b.state.Output != "" {
		name, ok := b.files.Name(b.state.Output)
		if !ok {
			return fmt.Errorf("Vertex says that the output is at %s, which is not in this bucket", b.state.Output)
		}
		folder = name
	}
	files, err := b.files.List(ctx, folder)
	if err != nil {
		return fmt.Errorf("list the output: %w", err)
	}
	var total int64
	for _, f := range files {
		if isOutput(f) {
			total += f.Size
		}
	}
	length := max(b.cfg.RangeBytes, total/maxRanges+1)
	for _, f := range files {
		for from := int64(0); isOutput(f) && from < f.Size; from += length {
			b.state.Ranges = append(b.state.Ranges, Range{File: f.Name, From: from, Length: min(length, f.Size-from)})
		}
	}
	return nil
}

// isOutput tells rows from what else Vertex may put there.
func isOutput(f File) bool { return strings.HasSuffix(f.Name, ".jsonl") }

func rangeName(batch string, n int) string { return fmt.Sprintf("%s%05d.json", rangeDir(batch), n) }

// ask publishes the messages of ranges.
func (b *run) ask(ctx context.Context, missing []int) error {
	var group errgroup.Group
	group.SetLimit(b.cfg.Concurrency)
	for _, n := range missing {
		group.Go(func() error {
			return b.queue.PublishHandoff(ctx, &schemas.BatchHandoff{BatchId: b.m.ID, Gatherer: b.m.Gatherer, Range: int32(n)})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("ask for the ranges: %w", err)
	}
	return nil
}

// Found is what became of the rows of one range: its checkpoint.
type Found struct {
	Range Range `json:"range"`
	// Rows are the rows of the batch that the range holds, a row as often as it occurs, and Fates what became of each, a letter each.
	Rows  []int32 `json:"rows"`
	Fates string  `json:"fates"`
	// Failed says of each row whose fate is fateFailed how its call failed, in their order.
	Failed  []Failure `json:"failed,omitempty"`
	Orphans int       `json:"orphans,omitempty"` // lines of no job of the batch; kept under orphans/
	Damaged int       `json:"damaged,omitempty"` // lines that can't be read
	Cost    jobs.USD  `json:"cost"`              // of all lines
	Worker  string    `json:"worker"`
}

// Fates of a row.
const (
	fateSucceeded = 's'
	fateRefused   = 'r'
	fateRejected  = 'f' // ended as failed
	fateRepeated  = 'd' // the job had ended, or is not the batch's any more: the row is a duplicate
	fateFailed    = 'x' // the job needs another call
)

// Failure is how a row failed.
type Failure struct {
	Kind   worker.Kind `json:"kind"`
	Status int         `json:"status,omitempty"`
	Detail string      `json:"detail,omitempty"`
}

// collect collects one range, and reports whether nothing is left to do about it.
func (r *Runner) collect(ctx context.Context, m *Manifest, n int) (over bool, err error) {
	s, err := readState(ctx, r.files, m.ID)
	if err != nil {
		return false, err
	}
	if s.Phase == Closed || n > len(s.Ranges) {
		return true, nil
	}
	id := fmt.Sprintf("%s-range-%d", m.ID, n)
	standing, err := r.ledger.Claim(ctx, id, jobs.Digest{})
	if err != nil || standing.State != worker.Granted {
		return false, err
	}
	defer func() {
		free := context.WithoutCancel(ctx)
		if e := r.ledger.Release(free, standing.Ticket, worker.Spent{}); e != nil && !errors.Is(e, worker.ErrFenced) {
			err = errors.Join(err, e)
		}
	}()
	_, generation, err := r.files.Read(ctx, rangeName(m.ID, n))
	if err != nil || generation != 0 {
		return err == nil, err // collected before
	}
	x, err := readIndex(ctx, r.files, m)
	if err != nil {
		return false, err
	}
	c := &collecting{Runner: r, m: m, state: s, index: x, span: s.Ranges[n-1], ended: map[int32]bool{}, reserved: map[int32]bool{}}
	found, err := c.run(ctx)
	if err != nil {
		return false, fmt.Errorf("collect range %d of %d: %w", n, len(s.Ranges), err)
	}
	data, err := json.Marshal(found)
	if err != nil {
		return false, err
	}
	_, err = r.files.Swap(ctx, rangeName(m.ID, n), 0, data)
	return err == nil || errors.Is(err, ErrSwapped), err
}

// collecting is the collection of one range.
type collecting struct {
	*Runner
	m     *Manifest
	state *State
	index *index
	span  Range

	mu       sync.Mutex
	ended    map[int32]bool // rows whose jobs this collection has ended
	reserved map[int32]bool // rows that lines without labels were given
	found    Found
	fates    []byte // of found.Rows
}

// run reads the range's lines and takes each to its job.
func (c *collecting) run(ctx context.Context) (*Found, error) {
	in, err := c.files.Open(ctx, c.span.File, c.span.From, -1)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c.found = Found{Range: c.span, Worker: c.cfg.Worker}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(c.cfg.Concurrency)
	readErr := c.format.Rows(gctx, in, c.span.From, c.span.Length, func(row worker.OutputRow) error {
		if gctx.Err() != nil {
			release(row)
			return context.Cause(gctx)
		}
		group.Go(func() error { return c.take(gctx, row) })
		return nil
	})
	// What went wrong with a row ends the reading too; it is the cause.
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if readErr != nil {
		return nil, readErr
	}
	c.found.Fates = string(c.fates)
	return &c.found, nil
}

func release(row worker.OutputRow) {
	if row.Answer != nil && row.Answer.Image != nil {
		row.Answer.Image.Blob.Release()
	}
}

// take takes a line to its job.
func (c *collecting) take(ctx context.Context, line worker.OutputRow) error {
	if line.Damaged != nil {
		c.note(func(f *Found) { f.Damaged++ })
	}
	number, err := c.match(ctx, line)
	if err != nil {
		release(line)
		return err
	}
	if number == nobody {
		release(line)
		return c.keepOrphan(ctx, line)
	}
	fate, cost, err := c.conclude(ctx, line, number)
	if err != nil {
		return fmt.Errorf("row %d, at byte %d of %s: %w", number, line.Offset, c.span.File, err)
	}
	c.note(func(f *Found) {
		f.Rows, c.fates, f.Cost = append(f.Rows, number), append(c.fates, fate), f.Cost+cost
		switch fate {
		case fateFailed:
			f.Failed = append(f.Failed, failureOf(line))
		case fateSucceeded, fateRefused, fateRejected:
			c.ended[number] = true
		}
	})
	return nil
}

// nobody is the number of no row.
const nobody = int32(-1)

// match returns the row whose request the line echoes. The request decides, since it made the image; the labels tell equal requests apart.
func (c *collecting) match(ctx context.Context, line worker.OutputRow) (int32, error) {
	equals := c.index.byHash[line.Hash]
	if number := numberOf(line.Hi, line.Lo); slices.Contains(equals, number) {
		return number, nil
	}
	if len(equals) == 0 {
		return nobody, nil
	}
	// Equal requests are interchangeable: the first whose job has not ended gets the image.
	for _, number := range equals {
		free, err := c.reserve(ctx, number)
		if err != nil || free {
			return number, err
		}
	}
	return equals[len(equals)-1], nil
}

// reserve sets a row aside for a line without labels, unless its job has ended or it is set aside already.
func (c *collecting) reserve(ctx context.Context, number int32) (bool, error) {
	c.mu.Lock()
	taken := c.reserved[number] || c.ended[number]
	if !taken {
		c.reserved[number] = true
	}
	c.mu.Unlock()
	if taken {
		return false, nil
	}
	row, err := entryOf(ctx, c.files, c.m, c.index, int(number), c.cfg.Catalogue)
	if err != nil {
		return false, err
	}
	_, ended, err := c.ledger.Look(ctx, row.Job.ID)
	return !ended, err
}

// numberOf returns the row of two labels, or nobody.
func numberOf(hi, lo string) int32 {
	h, err := strconv.Atoi(hi)
	l, err2 := strconv.Atoi(lo)
	if err != nil || err2 != nil || h < 0 || h > HardRows/rowsPerLabel || l < 0 || l >= rowsPerLabel {
		return nobody
	}
	return int32(h*rowsPerLabel + l)
}

// conclude ends a row's job with a line, or finds that it needs another call.
func (c *collecting) conclude(ctx context.Context, line worker.OutputRow, number int32) (fate byte, cost jobs.USD, err error) {
	row, err := entryOf(ctx, c.files, c.m, c.index, int(number), c.cfg.Catalogue)
	if err != nil {
		release(line)
		return 0, 0, err
	}
	if c.wasEnded(number) {
		release(line)
		return fateRepeated, c.priceOf(line, row), nil
	}
	end := conclusion(c.m, c.state, row)
	end.Answer, end.Err = line.Answer, line.Err
	if line.Damaged != nil {
		end.Err = &worker.CallError{Kind: worker.Unanswered, Lane: c.m.Lane, Detail: "the output's line can't be read", Err: line.Damaged}
	}
	ended, spent, err := c.spine.Conclude(ctx, end)
	switch {
	case errors.Is(err, worker.ErrFenced):
		return c.fenced(ctx, line, row, end)
	case err != nil:
		return 0, 0, err
	case !ended:
		return fateFailed, spent.Cost - row.Spent.Cost, nil
	default:
		return fateOf(line), spent.Cost - row.Spent.Cost, nil
	}
}

func (c *collecting) wasEnded(number int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[number]
}

// fenced decides what a line is whose job had ended before. An earlier collection of this very range may have ended it without coming to
// the checkpoint; then its end may not be known yet.
func (c *collecting) fenced(ctx context.Context, line worker.OutputRow, row *row, end worker.Conclusion) (fate byte, cost jobs.USD, err error) {
	record, ended, err := c.ledger.Look(ctx, row.Job.ID)
	switch {
	case err != nil:
		return 0, 0, err
	case !ended || record.Generation.GetBatchId() != c.m.ID:
		return fateRepeated, c.priceOf(line, row), nil
	}
	if err := c.spine.Repeat(ctx, end, record); err != nil {
		return 0, 0, err
	}
	return fateOfOutcome(jobs.Outcome(record.Generation.GetOutcome())), c.priceOf(line, row), nil
}

// priceOf is what a line costs that nobody has counted.
func (c *collecting) priceOf(line worker.OutputRow, row *row) jobs.USD {
	if line.Answer == nil || line.Answer.Reason != jobs.ReasonImage {
		return 0
	}
	return c.cfg.Catalogue.Cost(row.Job.Model, c.m.Lane.Tier, line.Answer.Usage)
}

func fateOf(line worker.OutputRow) byte {
	if line.Answer == nil {
		return fateRejected
	}
	return fateOfOutcome(line.Answer.Reason.Outcome())
}

func fateOfOutcome(o jobs.Outcome) byte {
	switch o {
	case jobs.Succeeded:
		return fateSucceeded
	case jobs.Refused:
		return fateRefused
	default:
		return fateRejected
	}
}

func failureOf(line worker.OutputRow) Failure {
	if line.Err == nil {
		return Failure{Kind: worker.Unanswered, Detail: "the output's line can't be used"}
	}
	return Failure{Kind: line.Err.Kind, Status: line.Err.Status, Detail: jobs.Cut(line.Err.Error(), maxFailure)}
}

// maxFailure bounds what a checkpoint keeps of an error's text.
const maxFailure = 300

// conclusion begins the conclusion of a row's job.
func conclusion(m *Manifest, s *State, row *row) worker.Conclusion {
	called, answered := s.Started, s.Ended
	if called.IsZero() {
		called = s.Queued
	}
	if answered.IsZero() {
		answered = time.Now()
	}
	return worker.Conclusion{
		Lane: m.Lane, Batch: m.ID, Job: row.Job, Ticket: row.Ticket, Spent: row.Spent,
		MessageID: row.MessageID, Published: row.Published, Received: row.Received, Called: called, Answered: answered,
	}
}

// keepOrphan keeps a line that belongs to no job of the batch.
func (c *collecting) keepOrphan(ctx context.Context, line worker.OutputRow) error {
	name := fmt.Sprintf("%s%s-%d.json", orphanDir(c.m.ID), path.Base(c.span.File), line.Offset)
	err := c.files.Write(ctx, name, func(w io.Writer) error {
		in, err := c.files.Open(ctx, c.span.File, line.Offset, line.Length)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep a line of no job: %w", err)
	}
	c.cfg.Log.Warn("a batch's output has a line of no job; it is kept", zap.String("batch", c.m.ID), zap.String("file", name))
	c.note(func(f *Found) { f.Orphans++ })
	return nil
}

func (c *collecting) note(f func(*Found)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.found)
}
