package workertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker/batch"
)

// file is a file of the work bucket. Its content never changes in place.
type file struct {
	data       []byte
	generation int64
}

// workBucket is where batches are kept.
const workBucket = "gs://work/"

// Names of files that mean something to the services here.
const (
	inputFile  = "input.jsonl"
	jobsFile   = "jobs.jsonl"
	stateFile  = "state.json"
	cancelFile = "cancel.json"
	rangesDir  = "ranges/"
)

func (b *simBatch) dir() string { return "batches/" + b.id + "/" }

// files is the work bucket as one process sees it.
type files struct{ *process }

// of returns the batch that a file belongs to, and its name there.
func (p files) of(name string) (b *simBatch, within string) {
	id, within, ok := strings.Cut(strings.TrimPrefix(name, "batches/"), "/")
	if !ok || !strings.HasPrefix(name, "batches/") {
		panic("workertest: no file of a batch: " + name)
	}
	return p.sim.batch(id), within
}

// do is a request about a batch's files, tried until it works.
func (p files) do(ctx context.Context, b *simBatch, effect func() error) error {
	return retry.Do(ctx, transient, func(ctx context.Context) error { return p.once(ctx, b, effect) })
}

func (p files) once(ctx context.Context, b *simBatch, effect func() error) error {
	return p.request(ctx, svcLedger, aboutBatch(b), func() error {
		p.sim.mu.Lock()
		defer p.sim.mu.Unlock()
		return effect()
	})
}

// put stores a file. The caller holds mu.
func (s *sim) put(b *simBatch, name string, data []byte) int64 {
	s.batches.generation++
	b.files[name] = &file{data, s.batches.generation}
	return s.batches.generation
}

// Write implements batch.Files. Each try asks for the content anew, which must be the same.
func (p files) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	b, within := p.of(name)
	var unwritten error
	var before []byte
	err := retry.Do(ctx, transient, func(ctx context.Context) error {
		var buf bytes.Buffer
		if unwritten = write(&buf); unwritten != nil {
			return nil
		}
		if p.sim.cfg.sabotage == lostFiles && p.sim.pick(int(b.number)) {
			return nil
		}
		data := bytes.Clone(buf.Bytes())
		first := before == nil
		if first {
			before = data
		}
		return p.once(ctx, b, func() error {
			if !first && !bytes.Equal(before, data) {
				p.sim.audit.violate(conservation, "%s wrote %s with another content at a second try", p.name, name)
			}
			p.sim.put(b, within, data)
			return nil
		})
	})
	return errors.Join(unwritten, err)
}

// Open implements batch.Files.
func (p files) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	b, within := p.of(name)
	var data []byte
	err := p.do(ctx, b, func() error {
		f := b.files[within]
		if f == nil {
			return fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
		}
		data = f.data
		return nil
	})
	if err != nil {
		return nil, err
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return p.reader(data, b), nil
}

// longRead is how much is read without a fault: what comes with the first answer.
const longRead = 1 << 10

// reader reads a file. Now and then a long one breaks off.
func (p files) reader(data []byte, b *simBatch) io.ReadCloser {
	s := p.sim
	s.mu.Lock()
	n := s.countRequest(aboutBatch(b))
	s.mu.Unlock()
	var in io.Reader = bytes.NewReader(data)
	if len(data) > longRead && s.may(FailBefore) && s.dice.roll(saltBefore, aboutBatch(b), n) < 0.01 {
		in = io.MultiReader(bytes.NewReader(data[:len(data)/2]), brokenReader{})
	}
	return io.NopCloser(in)
}

type brokenReader struct{}

// Read implements io.Reader.
func (brokenReader) Read([]byte) (int, error) { return 0, errUnavailable }

// List implements batch.Files.
func (p files) List(ctx context.Context, prefix string) (list []batch.File, err error) {
	b, within := p.of(prefix)
	err = p.do(ctx, b, func() error {
		list = nil
		for name, f := range b.files {
			if hidden := p.sim.cfg.sabotage == hiddenOutput && strings.Contains(name, "predictions-00001"); strings.HasPrefix(name, within) && !hidden {
				list = append(list, batch.File{Name: b.dir() + name, Size: int64(len(f.data))})
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b batch.File) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// Read implements batch.Files.
func (p files) Read(ctx context.Context, name string) (data []byte, generation int64, err error) {
	b, within := p.of(name)
	err = p.do(ctx, b, func() error {
		if f := b.files[within]; f != nil {
			data, generation = f.data, f.generation
		}
		return nil
	})
	return data, generation, err
}

// Swap implements batch.Files. A write whose answer was lost is known again by its content.
func (p files) Swap(ctx context.Context, name string, generation int64, data []byte) (next int64, err error) {
	b, within := p.of(name)
	unclear := false
	err = retry.Do(ctx, transient, func(ctx context.Context) error {
		err := p.once(ctx, b, func() error {
			f := b.files[within]
			switch {
			case f == nil && generation == 0, f != nil && f.generation == generation:
				next = p.sim.put(b, within, data)
				p.sim.swapped(b, within, data)
				return nil
			case f != nil && unclear && bytes.Equal(f.data, data):
				next = f.generation
				return nil
			}
			return batch.ErrSwapped
		})
		unclear = unclear || transient(err)
		return err
	})
	return next, err
}

// keptClosed is how long the files of a closed batch are kept here, for whoever is late.
const keptClosed = time.Hour

// swapped sees a small file change. The caller holds mu.
func (s *sim) swapped(b *simBatch, within string, data []byte) {
	if within != stateFile {
		return
	}
	var state batch.State
	if err := json.Unmarshal(data, &state); err != nil {
		s.audit.violate(conservation, "the state of %s can't be read: %v", b.id, err)
		return
	}
	s.audit.phase(b, &state)
	if state.Phase != batch.Closed {
		return
	}
	time.AfterFunc(keptClosed, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name := range b.files {
			if name != stateFile {
				delete(b.files, name)
			}
		}
	})
}

// URI implements batch.Files.
func (files) URI(name string) string { return workBucket + name }

// Name implements batch.Files.
func (files) Name(uri string) (string, bool) { return strings.CutPrefix(uri, workBucket) }

// Serves implements batch.Files: the work bucket is in Europe.
func (files) Serves(region string) bool { return region == jobs.GlobalRegion || region == europe }
