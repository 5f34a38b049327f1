package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// DefaultConcurrency is how many rows of a range are on their way to the bucket at a time.
const DefaultConcurrency = 16

// fate is what became of a line, or of a job.
type fate byte

// Fates.
const (
	fateSucceeded fate = 's'
	fateRefused   fate = 'r'
	fateUnmade    fate = 'x' // of a line: it holds no answer that counts
	fateRepeated  fate = 'd' // of a line: its job had ended by another line
	fateFailed    fate = 'f' // of a job, also when it was cancelled
	fateRequeued  fate = 'q' // of a job
)

// Found is what became of the lines of one range: its checkpoint.
type Found struct {
	Range Range `json:"range"`
	// Rows are the rows of the batch that the lines belong to, a row as often as it occurs, and Fates what became of each line, a letter each.
	Rows  []int32 `json:"rows"`
	Fates string  `json:"fates"`
	// Unmade says how the calls went of the lines whose fate is fateUnmade, in their order.
	Unmade []Unmade `json:"unmade,omitempty"`
	// Undecided are lines that could be of any of several rows.
	Undecided []Undecided `json:"undecided,omitempty"`
	Orphans   int         `json:"orphans,omitempty"` // lines of no job of the batch; kept under orphans/
	Damaged   int         `json:"damaged,omitempty"` // lines that can't be read
	Cost      jobs.USD    `json:"cost"`              // of all lines but the undecided ones
	Worker    string      `json:"worker"`
}

// Unmade is how a call went that yielded no answer that counts: a useless answer, or an error.
type Unmade struct {
	Useless *worker.Answer `json:"useless,omitempty"`
	Kind    worker.Kind    `json:"kind,omitempty"`
	Reason  jobs.Reason    `json:"reason,omitempty"`
	Status  int            `json:"status,omitempty"`
	Detail  string         `json:"detail,omitempty"`
}

// Undecided is a line without labels that could be of any of several rows, whose requests are equal.
type Undecided struct {
	Offset   int64    `json:"offset"` // in its file
	Like     int32    `json:"like"`   // the first of those rows
	Answered bool     `json:"answered"`
	Cost     jobs.USD `json:"cost"`
}

// maxUnmade bounds what a checkpoint keeps of an error's text.
const maxUnmade = 300

// collect collects one range, and reports whether nothing is left to do about it.
func (r *Runner) collect(ctx context.Context, m *Manifest, n int, log *zap.Logger) (over bool, err error) {
	if !r.collections.TryAcquire(1) {
		return false, nil // it comes back, here or elsewhere
	}
	defer r.collections.Release(1)
	s, err := readState(ctx, r.ports.Files, m.ID)
	if err != nil {
		return false, err
	}
	if s.Phase != Collecting || n > len(s.Ranges) {
		return true, nil // collected before
	}
	return r.alone(ctx, fmt.Sprintf("%s-range-%d", m.ID, n), func(worker.Ticket) error {
		_, generation, err := r.ports.Files.Read(ctx, rangeName(m.ID, n))
		if err != nil || generation != 0 {
			return err // collected before
		}
		c := &collecting{Runner: r, m: m, state: s, span: s.Ranges[n-1], log: log}
		c.found = Found{Range: c.span, Worker: r.cfg.Worker}
		if err := c.run(ctx); err != nil {
			return fmt.Errorf("collect %s from byte %d: %w", c.span.File, c.span.From, err)
		}
		r.sweep(c.span.Length)
		data, err := json.Marshal(c.found)
		if err == nil {
			_, err = r.ports.Files.Swap(ctx, rangeName(m.ID, n), 0, data)
		}
		if errors.Is(err, ErrSwapped) {
			return nil // by a worker that takes this one for dead
		}
		return err
	})
}

// sweep collects garbage when so much of outputs was read that it is worth it. Collecting makes so little garbage that the heap, which is mostly
// images, grows to twice its size for many ranges before Go looks at it. With a look for each whole range, which takes some milliseconds of the
// second that a range takes, the memory stays what the first ranges needed. Of small ranges there may be many a second, and
// they have no such garbage.
func (r *Runner) sweep(read int64) {
	if r.unswept.Add(read) < DefaultRangeBytes {
		return
	}
	r.unswept.Store(0)
	runtime.GC()
}

// collecting is the collection of one range.
type collecting struct {
	*Runner
	m      *Manifest
	state  *State
	span   Range
	log    *zap.Logger
	index  *index
	placed placement // when only these lines are collected

	met met

	mu    sync.Mutex
	found Found
	fates []byte // of found.Rows
}

// run reads the range's lines and takes each to its job.
func (c *collecting) run(ctx context.Context) (err error) {
	if c.index, err = readIndex(ctx, c.ports.Files, c.m); err != nil {
		return err
	}
	if c.span.Placed != 0 {
		if c.placed, err = readPlacement(ctx, c.ports.Files, c.m.ID, c.span.Placed); err != nil {
			return err
		}
	}
	in, err := c.ports.Files.Open(ctx, c.span.File, c.span.From, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(c.cfg.Concurrency)
	readErr := c.ports.Format.Rows(gctx, in, c.span.From, c.span.Length, func(line worker.OutputRow) error {
		group.Go(func() error { return c.take(gctx, line) })
		return nil
	})
	// What went wrong with a line ends the reading too; it is the cause.
	if err := group.Wait(); err != nil {
		return err
	}
	c.found.Fates = string(c.fates)
	return readErr
}

// take takes a line to its job. Its image, if it has one, is released.
func (c *collecting) take(ctx context.Context, line worker.OutputRow) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			c.log.Error("panic while collecting a line", zap.Int64("offset", line.Offset), zap.String("panic", fmt.Sprint(fault)), zap.Stack("stack"))
			err = fmt.Errorf("panic: %v", fault)
		}
		release(line)
		if err != nil {
			err = fmt.Errorf("the line at byte %d: %w", line.Offset, err)
		}
	}()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.placed != nil {
		if number, ours := c.placed[line.Offset]; ours {
			return c.conclude(ctx, line, number)
		}
		return nil
	}
	number, equals := c.match(line)
	switch {
	case len(equals) == 0:
		release(line) // it is copied from the file
		return c.keepOrphan(ctx, line)
	case number == nobody:
		return c.leaveUndecided(ctx, line, equals[0])
	default:
		return c.conclude(ctx, line, number)
	}
}

func release(line worker.OutputRow) {
	if line.Answer != nil && line.Answer.Image != nil {
		line.Answer.Image.Blob.Release()
	}
}

// nobody is the number of no row.
const nobody = int32(-1)

// match returns the rows whose request the line echoes, and which of them it belongs to, if that can be told. The request decides, since
// it made the image; the labels only tell equal requests apart.
func (c *collecting) match(line worker.OutputRow) (number int32, equals []int32) {
	if line.Hash == ([32]byte{}) {
		return nobody, nil
	}
	equals = c.index.equals(line.Hash)
	if number = numberOf(line.Hi, line.Lo); c.index.has(number, line.Hash) {
		return number, equals
	}
	if len(equals) == 1 {
		return equals[0], equals
	}
	return nobody, equals
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

// conclude ends a line's job, or notes that it needs another call. Which it does is decided when all lines are known: another may hold
// an image.
func (c *collecting) conclude(ctx context.Context, line worker.OutputRow, number int32) error {
	r, err := entryOf(ctx, c.ports.Files, c.m, c.index, int(number), c.cfg.Catalogue)
	if err != nil {
		return err
	}
	c.complete(line, r)
	f := fateUnmade
	if counts(line) {
		if f, err = c.answered(ctx, line, r); err != nil {
			return fmt.Errorf("row %d: %w", number, err)
		}
	}
	c.note(func(found *Found) {
		found.Rows, c.fates = append(found.Rows, number), append(c.fates, byte(f))
		found.Cost += c.price(line, r.Job)
		if f == fateUnmade {
			found.Unmade = append(found.Unmade, unmadeOf(line))
		}
		if line.Damaged != nil && c.placed == nil {
			found.Damaged++
		}
	})
	return nil
}

// counts reports whether a line holds an answer that ends its job.
func counts(line worker.OutputRow) bool {
	return line.Answer != nil && line.Answer.Reason != jobs.ReasonBadAnswer
}

// answered takes an answer that counts: the first of its row ends the job.
func (c *collecting) answered(ctx context.Context, line worker.OutputRow, r *row) (fate, error) {
	switch first, ended := c.met.add(int32(r.number), sumOf(line)); {
	case first:
		return c.end(ctx, line, r)
	case ended:
		_, err := c.endedHere(ctx, conclusion(c.m, c.state, r), func(string) bool { return true })
		return fateRepeated, err
	default:
		return fateRepeated, nil
	}
}

// end ends a job with a line's answer.
func (c *collecting) end(ctx context.Context, line worker.OutputRow, r *row) (fate, error) {
	end := conclusion(c.m, c.state, r)
	end.Answer = line.Answer
	sum := sumOf(line)
	_, _, err := c.ports.Spine.Conclude(ctx, end)
	if err = c.unrecorded(ctx, end.Job, err); !errors.Is(err, worker.ErrFenced) {
		return fateOf(line.Answer.Reason.Outcome()), err
	}
	ended, err := c.endedHere(ctx, end, func(asset string) bool {
		return sum == "" || sum == asset || c.met.endedOtherwise(int32(r.number), asset)
	})
	if err == nil && ended == 0 {
		err = errors.New("its job is no longer the batch's: another worker takes this one for dead and has gone on")
	}
	return ended, err
}

// complete fills in what an answer costs that came without counts.
func (c *collecting) complete(line worker.OutputRow, r *row) {
	a := line.Answer
	if a == nil || !a.UsageMissing || a.Usage != (jobs.Usage{}) {
		return
	}
	a.Usage = r.Job.EstimatedUsage()
	switch a.Reason {
	case jobs.ReasonPromptFilter, jobs.ReasonModelDeclined, jobs.ReasonNoImage:
		a.Usage = a.Usage.WithoutImage()
	}
}

// price is what a line costs, whatever becomes of it. j is its job; nil: nobody knows.
func (c *collecting) price(line worker.OutputRow, j *jobs.Job) jobs.USD {
	a, lane, model := line.Answer, c.m.Lane, c.cfg.Catalogue.Model(c.m.Lane.Model)
	switch {
	case a == nil && (line.Damaged == nil || j == nil):
		return 0 // rows that failed are not billed
	case lane.ImagePrice != nil:
		if a == nil || a.Reason == jobs.ReasonImage {
			return *lane.ImagePrice
		}
		return 0
	case a == nil:
		return c.cfg.Catalogue.Estimate(j, lane.Tier)
	case model == nil:
		return 0 // a model that is no longer in the catalogue has no price
	case j != nil && a.Reason == jobs.ReasonImage:
		return c.cfg.Catalogue.Cost(model, lane.Tier, j.WithImage(a.Usage))
	default:
		return c.cfg.Catalogue.Cost(model, lane.Tier, a.Usage)
	}
}

func fateOf(o jobs.Outcome) fate {
	switch o {
	case jobs.Succeeded:
		return fateSucceeded
	case jobs.Refused:
		return fateRefused
	default:
		return fateFailed
	}
}

func unmadeOf(line worker.OutputRow) Unmade {
	switch {
	case line.Answer != nil:
		return Unmade{Useless: line.Answer}
	case line.Err != nil:
		return Unmade{Kind: line.Err.Kind, Reason: line.Err.Reason, Status: line.Err.Status, Detail: jobs.Cut(line.Err.Detail, maxUnmade)}
	default:
		// It may be paid for.
		return Unmade{Kind: worker.Unanswered, Detail: jobs.Cut(fmt.Sprintf("the output's line can't be read: %v", line.Damaged), maxUnmade)}
	}
}

// conclusion begins the conclusion of a row's job.
func conclusion(m *Manifest, s *State, r *row) worker.Conclusion {
	called, answered := s.Started, s.Ended
	if called.IsZero() {
		called = s.Queued
	}
	if answered.IsZero() {
		answered = time.Now()
	}
	return worker.Conclusion{
		Lane: m.Lane, Batch: m.ID, Job: r.Job, Ticket: r.Ticket, Spent: r.Spent,
		MessageID: r.MessageID, Published: r.Published, Received: r.Received, Trace: r.Trace, Called: called, Answered: answered,
	}
}

// endedHere says how the job of a conclusion ended, whose ticket no longer holds it, if it ended in this batch. An earlier try may have ended
// it that came no further: so the end is made known again, if that is this conclusion's to do, by the checksum of the asset.
func (r *Runner) endedHere(ctx context.Context, c worker.Conclusion, mine func(asset string) bool) (fate, error) {
	end, ended, err := r.ports.Ledger.Look(ctx, c.Job.ID)
	if err != nil || !ended || end.Generation.GetBatchId() != c.Batch {
		return 0, err
	}
	if mine(end.Generation.GetAssetCrc32C()) {
		if err := r.unrecorded(ctx, c.Job, r.ports.Spine.Repeat(ctx, c, end)); err != nil {
			return 0, err
		}
	}
	return fateOf(jobs.Outcome(end.Generation.GetOutcome())), nil
}

// leaveUndecided notes a line that could be of any of several rows.
func (c *collecting) leaveUndecided(ctx context.Context, line worker.OutputRow, like int32) error {
	r, err := entryOf(ctx, c.ports.Files, c.m, c.index, int(like), c.cfg.Catalogue)
	if err != nil {
		return err
	}
	c.complete(line, r)
	c.note(func(f *Found) {
		f.Undecided = append(f.Undecided, Undecided{Offset: line.Offset, Like: like, Answered: counts(line), Cost: c.price(line, r.Job)})
		if line.Damaged != nil {
			f.Damaged++
		}
	})
	return nil
}

// keepOrphan keeps a line that belongs to no job of the batch.
func (c *collecting) keepOrphan(ctx context.Context, line worker.OutputRow) error {
	file := strings.TrimPrefix(c.span.File, outputDir(c.m.ID))
	name := fmt.Sprintf("%s%s-%d.json", orphanDir(c.m.ID), strings.ReplaceAll(file, "/", "-"), line.Offset)
	err := c.ports.Files.Write(ctx, name, func(w io.Writer) error {
		in, err := c.ports.Files.Open(ctx, c.span.File, line.Offset, line.Length)
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
	c.log.Warn("a batch's output has a line of no job; it is kept", zap.String("file", name), zap.NamedError("damage", line.Damaged))
	c.note(func(f *Found) {
		f.Orphans++
		f.Cost += c.price(line, nil)
		if line.Damaged != nil {
			f.Damaged++
		}
	})
	return nil
}

func (c *collecting) note(f func(*Found)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.found)
}
