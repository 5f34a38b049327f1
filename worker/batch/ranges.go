package batch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/schemas"
)

const (
	// DefaultRangeBytes is the part of an output that one worker collects at a time: some hundred images, a minute's work.
	DefaultRangeBytes = 256 << 20
	// maxRanges bounds the ranges that an output is cut into, so that the batch's state stays small: 200,000 rows of 8 MB are 1.6 TB.
	maxRanges = 4096
	// askAgain is after how many looks the ranges that are still missing are asked for again. Their messages come back by themselves; this
	// is for those that somebody purged.
	askAgain = 40
	// emptyLooks is for how many looks an output is waited for that Vertex says it has written and that is not there. Beyond that its rows
	// are called, and paid for, again.
	emptyLooks = 40
	// fileRequests bounds the small files that are read, and the messages that are sent, at a time by one step.
	fileRequests = 16
)

// startCollecting turns from the Vertex job, if there was one, to its output.
func (b *run) startCollecting(ctx context.Context) error {
	b.unclear.forget(b.m.ID)
	b.state.Phase = Collecting
	return b.save(ctx)
}

// gatherRanges cuts the output into ranges, asks for them, and looks whether all are collected.
func (b *run) gatherRanges(ctx context.Context) error {
	if running, err := b.endOthers(ctx); running || err != nil {
		return err
	}
	if wait, err := b.cut(ctx); wait || err != nil {
		return err
	}
	missing, err := b.missingRanges(ctx)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		if missing, err = b.placeUndecided(ctx); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		b.state.Phase = Reconciling
		return b.save(ctx)
	}
	if b.countLook() && b.state.Looks%askAgain == 1 {
		if err := b.ask(ctx, missing); err != nil {
			return err
		}
	}
	return b.save(ctx)
}

// countLook counts a look at what the batch waits for, and reports whether it counts. Looks that follow each other sooner than Poll are one: a batch
// may have several hand-offs at a time, and how long it waits before it pays for rows again must not depend on their number. Where the
// workers' clocks differ, some looks don't count, and the wait is longer by the difference.
func (b *run) countLook() bool {
	now := time.Now().UTC()
	if b.state.Looks > 0 && now.Sub(b.state.Looked) < b.cfg.Poll {
		return false
	}
	b.state.Looks++
	b.state.Looked = now
	return true
}

// cut plans the ranges of files that are not planned for yet: Vertex writes no file any more when its job has ended, but a job that was one too
// many may end later. It reports whether to wait for files that should be there.
func (b *run) cut(ctx context.Context) (wait bool, _ error) {
	folder := outputDir(b.m.ID)
	if said := b.state.Output; said != "" {
		if name, ok := b.ports.Files.Name(said); !ok || !strings.HasPrefix(name+"/", folder) {
			return false, fmt.Errorf("Vertex says that it wrote to %s, not below %s as it was asked to", said, b.ports.Files.URI(folder))
		}
	}
	files, err := b.ports.Files.List(ctx, folder)
	if err != nil {
		return false, fmt.Errorf("list the output: %w", err)
	}
	// Whatever Vertex may put there besides, rows are in files of this name.
	files = slices.DeleteFunc(files, func(f File) bool { return !strings.HasSuffix(f.Name, ".jsonl") || f.Size == 0 })
	if len(files) == 0 && b.state.Made > 0 && b.state.Looks < emptyLooks {
		b.log.Warn("Vertex says that it made rows, and there is no output; waiting for it", zap.Int64("rows", b.state.Made))
		b.countLook()
		return true, b.save(ctx)
	}
	known := map[string]bool{}
	for _, r := range b.state.Ranges {
		known[r.File] = true
	}
	var total int64
	for _, f := range files {
		total += f.Size
	}
	length := max(b.cfg.RangeBytes, total/maxRanges+1)
	for _, f := range files {
		for from := int64(0); !known[f.Name] && from < f.Size; from += length {
			b.state.Ranges = append(b.state.Ranges, Range{File: f.Name, From: from, Length: min(length, f.Size-from)})
			b.state.Looks = 0
		}
	}
	return false, nil
}

// missingRanges returns the numbers of the ranges without a checkpoint.
func (b *run) missingRanges(ctx context.Context) ([]int, error) {
	files, err := b.ports.Files.List(ctx, rangeDir(b.m.ID))
	if err != nil {
		return nil, fmt.Errorf("list the ranges: %w", err)
	}
	there := make(map[string]bool, len(files))
	for _, f := range files {
		there[f.Name] = true
	}
	var missing []int
	for n := 1; n <= len(b.state.Ranges); n++ {
		if !there[rangeName(b.m.ID, n)] {
			missing = append(missing, n)
		}
	}
	return missing, nil
}

// ask publishes the messages of ranges. The state that has them must be written before they arrive.
func (b *run) ask(ctx context.Context, missing []int) error {
	if err := b.save(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fileRequests)
	for _, n := range missing {
		group.Go(func() error {
			return b.ports.Queue.PublishHandoff(ctx, &schemas.BatchHandoff{BatchId: b.m.ID, Gatherer: b.m.Gatherer, Range: int32(n)})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("ask for the ranges: %w", err)
	}
	return nil
}

// checkpoints reads what all ranges found, in their order.
func (b *run) checkpoints(ctx context.Context) ([]*Found, error) {
	all := make([]*Found, len(b.state.Ranges))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fileRequests)
	for i := range all {
		group.Go(func() error {
			data, _, err := b.ports.Files.Read(ctx, rangeName(b.m.ID, i+1))
			if err == nil {
				err = json.Unmarshal(data, &all[i])
			}
			if err == nil && len(all[i].Rows) != len(all[i].Fates) {
				err = fmt.Errorf("%d rows have %d fates", len(all[i].Rows), len(all[i].Fates))
			}
			if err != nil {
				return fmt.Errorf("read what range %d found: %w", i+1, err)
			}
			return nil
		})
	}
	return all, group.Wait()
}

// placeUndecided gives the lines that could be of any of several rows to those of the rows that have none, once all other lines are collected, and
// plans their ranges anew. It returns the numbers of these. The same checkpoints always lead to the same placements.
func (b *run) placeUndecided(ctx context.Context) (missing []int, _ error) {
	found, err := b.checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range b.state.Ranges {
		if r.Placed != 0 {
			found[r.Placed-1].Undecided = nil // by now they are
		}
	}
	if !slices.ContainsFunc(found, func(f *Found) bool { return len(f.Undecided) > 0 }) {
		return nil, nil
	}
	index, err := readIndex(ctx, b.ports.Files, b.m)
	if err != nil {
		return nil, err
	}
	for i, placement := range placeLines(found, index) {
		if len(placement) == 0 {
			continue
		}
		if err := writePlacement(ctx, b.ports.Files, b.m.ID, i+1, placement); err != nil {
			return nil, err
		}
		again := b.state.Ranges[i]
		again.Placed = i + 1
		b.state.Ranges = append(b.state.Ranges, again)
		missing = append(missing, len(b.state.Ranges))
	}
	b.state.Looks = 0
	return missing, nil
}

// placement is the rows of lines by their offsets in a file.
type placement map[int64]int32

// placeLines returns for each range the rows of its undecided lines. Lines with an answer come first; lines for which no row is left are
// duplicates.
func placeLines(found []*Found, x *index) []placement {
	served := map[int32]bool{}
	for _, f := range found {
		for _, row := range f.Rows {
			served[row] = true
		}
		slices.SortFunc(f.Undecided, func(a, b Undecided) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	free := map[int32][]int32{} // rows without a line, by the first of their equals
	placed := make([]placement, len(found))
	for _, answered := range []bool{true, false} {
		for i, f := range found {
			for _, u := range f.Undecided {
				if u.Answered != answered {
					continue
				}
				rows, known := free[u.Like]
				if !known {
					rows = slices.DeleteFunc(slices.Clone(x.equals([32]byte(x.hash(int(u.Like))))), func(row int32) bool { return served[row] })
				}
				if len(rows) > 0 {
					if placed[i] == nil {
						placed[i] = placement{}
					}
					placed[i][u.Offset], rows = rows[0], rows[1:]
				}
				free[u.Like] = rows
			}
		}
	}
	return placed
}

func writePlacement(ctx context.Context, files Files, batch string, n int, p placement) error {
	err := files.Write(ctx, placementName(batch, n), func(w io.Writer) error { return json.NewEncoder(w).Encode(p) })
	if err != nil {
		return fmt.Errorf("write the placement of range %d: %w", n, err)
	}
	return nil
}

func readPlacement(ctx context.Context, files Files, batch string, n int) (p placement, err error) {
	data, generation, err := files.Read(ctx, placementName(batch, n))
	if err == nil && generation == 0 {
		err = errors.New("there is none")
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("read the placement of range %d: %w", n, err)
	}
	return p, nil
}
