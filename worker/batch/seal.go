package batch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const (
	// rowsPerLabel is how many values each of the two labels has at most, so that a row's number is hi*1000+lo and no billing label has
	// more than a thousand values.
	rowsPerLabel = 1000
	// writeBuffer gathers lines on their way to Cloud Storage.
	writeBuffer = 256 << 10
	// sealTime bounds the writing of a batch's files. A gigabyte is written in a minute or two; beyond this the storage is as good as down, and
	// the jobs go back.
	sealTime = 10 * time.Minute
	// commitPause spaces the tries to create a seal. The ledger tries by itself as long as that can help.
	commitPause = 10 * time.Second
)

// labels returns the values of a row's two labels.
func labels(row int) (hi, lo string) {
	return fmt.Sprintf("%03d", row/rowsPerLabel), fmt.Sprintf("%03d", row%rowsPerLabel)
}

// errUnsure says that nobody knows whether a batch is sealed.
var errUnsure = errors.New("nobody knows whether the batch is sealed")

// seal makes a batch durable, in the order that package doc explains: files, hand-off, manifest.
func (g *Gatherer) seal(ctx context.Context, b *gathering) error {
	m := &Manifest{ID: b.id, Gatherer: g.cfg.Worker, Lane: b.lane, Region: b.key.region, Rows: len(b.rows)}
	if err := g.prepare(ctx, b, m); err != nil {
		return err
	}
	if err := g.commit(ctx, m); err != nil {
		return err
	}
	g.cfg.Log.Info("a batch is sealed", zap.String("batch", b.id), zap.Int("jobs", m.Rows), zap.Int64("input_bytes", m.InputBytes),
		zap.String("lane", b.lane.Name), zap.String("region", m.Region))
	return nil
}

// prepare does what comes before the seal, and harms nobody if that never comes.
func (g *Gatherer) prepare(ctx context.Context, b *gathering, m *Manifest) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sealTime)
	defer cancel()
	if m.InputBytes, err = g.writeInput(ctx, b); err != nil {
		return fmt.Errorf("write the batch's input: %w", err)
	}
	if err := g.writeJobs(ctx, b); err != nil {
		return fmt.Errorf("write the batch's jobs: %w", err)
	}
	// Before the manifest: a batch whose hand-off was lost would never run. A hand-off whose batch was never sealed is waited for, or voided.
	if err := g.queue.PublishHandoff(ctx, &schemas.BatchHandoff{BatchId: b.id, Gatherer: g.cfg.Worker}); err != nil {
		return fmt.Errorf("publish the hand-off: %w", err)
	}
	return nil
}

// commit creates the seal. Once it was tried, the batch may be sealed, and its jobs can't be given back before somebody knows: so it is tried
// until that is so, or this worker's time is over.
func (g *Gatherer) commit(ctx context.Context, m *Manifest) error {
	m.SealedAt = time.Now().UTC()
	content, err := json.Marshal(m)
	if err != nil {
		return err
	}
	for {
		err := g.ledger.Seal(ctx, m.ID, content)
		if err == nil || errors.Is(err, worker.ErrVoid) {
			return err
		}
		g.cfg.Log.Warn("nobody knows whether a batch is sealed; sealing is tried again", zap.String("batch", m.ID), zap.Error(err))
		if !sleep(ctx, commitPause) {
			return fmt.Errorf("%w: %w", errUnsure, err)
		}
	}
}

// writeInput writes the requests, with the labels that tell their rows.
func (g *Gatherer) writeInput(ctx context.Context, b *gathering) (written int64, err error) {
	err = g.files.Write(ctx, inputName(b.id), func(w io.Writer) error {
		written = 0
		out := bufio.NewWriterSize(w, writeBuffer)
		for i, r := range b.rows {
			hi, lo := labels(i)
			line, _, err := g.format.Line(r.Job, hi, lo)
			if err != nil {
				return fmt.Errorf("job %s: %w", r.Job.ID, err)
			}
			written += int64(len(line))
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	return written, err
}

// writeJobs writes the jobs, and the index of them.
func (g *Gatherer) writeJobs(ctx context.Context, b *gathering) error {
	var places []byte
	err := g.files.Write(ctx, jobsName(b.id), func(w io.Writer) error {
		places = make([]byte, 0, (len(b.rows)+1)*indexItem)
		counted := &counter{w: w}
		out := bufio.NewWriterSize(counted, writeBuffer)
		for i, r := range b.rows {
			places = appendIndex(places, counted.n+int64(out.Buffered()), r.hash)
			if err := encodeEntry(out, i, r.Admitted); err != nil {
				return fmt.Errorf("job %s: %w", r.Job.ID, err)
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		places = appendIndex(places, counted.n, [32]byte{})
		return nil
	})
	if err != nil {
		return err
	}
	return g.files.Write(ctx, indexName(b.id), func(w io.Writer) error {
		_, err := w.Write(places)
		return err
	})
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
