package workertest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// written is an image that a model wrote itself and that nobody has taken yet.
type written struct {
	uri  string
	call int
	object
	content []byte
}

const straightFolder = "straight/"

// appearTime is how long the real adapter waits for an image of which a model says that it wrote it.
const appearTime = 10 * time.Second

var errNotFound = errors.New("not found")

// writeStraight is a model writing the image of a call.
func (s *sim) writeStraight(n, call int, uri string) {
	content := s.picture(n, call)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	o := object{generation: s.generation, crc: checksum(content), at: s.millis(), size: uint32(len(content)), width: side, height: side, place: placeOf(uri)}
	s.audit.wrote(n, call, o)
	s.written[n] = append(s.written[n], written{uri: uri, call: call, object: o, content: content})
}

func checksum(content []byte) uint32 { return crc32.Checksum(content, castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Prefix implements worker.Assets.
func (p assets) Prefix(j *jobs.Job) string {
	b, ok := bucketOf(j.Region)
	if !ok {
		return ""
	}
	return folderOf(b, j)
}

func folderOf(bucket string, j *jobs.Job) string {
	return "gs://" + bucket + "/" + straightFolder + j.ID + "/"
}

// Take implements worker.Assets, step by step as package assets does.
func (p assets) Take(ctx context.Context, j *jobs.Job, uri string) (asset worker.Asset, err error) {
	n := p.sim.number(j.ID)
	b, ok := bucketOf(j.Region)
	if !ok || !strings.HasPrefix(uri, folderOf(b, j)) {
		return worker.Asset{}, worker.ErrUnusable
	}
	appears := time.Now().Add(appearTime)
	again := func(err error) bool {
		return storable(err) || errors.Is(err, errNotFound) && time.Now().Before(appears)
	}
	err = retry.Do(ctx, again, func(ctx context.Context) error {
		asset, err = p.takeOrFind(ctx, j, n, uri)
		return err
	})
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("%w: %w", worker.ErrUnusable, err)
	}
	return asset, err
}

func (p assets) takeOrFind(ctx context.Context, j *jobs.Job, n int, uri string) (asset worker.Asset, err error) {
	w, err := p.lookFor(ctx, n, uri)
	if err == nil {
		return p.takeWritten(ctx, j, n, w)
	}
	if errors.Is(err, errNotFound) {
		if asset, found, findErr := p.stored(ctx, j, n); found || findErr != nil {
			asset.Existing = true
			return asset, findErr
		}
	}
	return worker.Asset{}, err
}

// lookFor looks for an image that a model wrote: the one of that name, or the first if that is empty.
func (p assets) lookFor(ctx context.Context, n int, uri string) (w written, err error) {
	s := p.sim
	err = p.request(ctx, svcAssets, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, candidate := range s.written[n] {
			if uri == "" || candidate.uri == uri {
				w = candidate
				return nil
			}
		}
		return errNotFound
	})
	return w, err
}

// takeWritten makes an image that a model wrote the job's asset, and deletes it.
func (p assets) takeWritten(ctx context.Context, j *jobs.Job, n int, w written) (worker.Asset, error) {
	o, err := p.create(ctx, n, w.content, w.object)
	if err != nil && err != errPrecond {
		return worker.Asset{}, err
	}
	asset := o.asset(j)
	asset.Existing = err == errPrecond && (o.crc != w.crc || o.size != w.size)
	s := p.sim
	_ = p.request(ctx, svcAssets, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forgetWritten(n, w.uri)
		return nil
	})
	return asset, nil
}

// forgetWritten deletes an image. The caller holds mu.
func (s *sim) forgetWritten(n int, uri string) {
	left := s.written[n][:0]
	for _, w := range s.written[n] {
		if w.uri != uri {
			left = append(left, w)
		}
	}
	if s.written[n] = left; len(left) == 0 {
		delete(s.written, n)
	}
}

// Find implements worker.Assets, step by step as package assets does.
func (p assets) Find(ctx context.Context, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	n := p.sim.number(j.ID)
	err = retry.Do(ctx, storable, func(ctx context.Context) error {
		if asset, found, err = p.stored(ctx, j, n); err != nil || found || p.sim.cfg.sabotage == blindToWritten {
			return err
		}
		w, err := p.lookFor(ctx, n, "")
		if err == nil {
			asset, err = p.takeWritten(ctx, j, n, w)
			found = err == nil
		}
		if found {
			p.sim.mu.Lock()
			p.sim.books.FoundWritten++
			p.sim.mu.Unlock()
		}
		if errors.Is(err, errNotFound) {
			return nil
		}
		return err
	})
	return asset, found, err
}

// stored returns the job's asset.
func (p assets) stored(ctx context.Context, j *jobs.Job, n int) (asset worker.Asset, found bool, err error) {
	s := p.sim
	err = p.request(ctx, svcAssets, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if o := s.objects[n]; o.generation != 0 && s.cfg.sabotage != blindFinder {
			asset, found = o.asset(j), true
		}
		return nil
	})
	return asset, found, err
}

// wrote sees a model write an image itself. The caller holds sim.mu.
func (a *audit) wrote(n, call int, o object) {
	a.s.books.Written++
	if want := a.s.region(n); o.place.region() != want {
		a.violate(residency, "the image of %s, which belongs in %s, is written to %s", jobID(n), want, o.place.region())
	}
	i := a.callOf(n, call)
	a.calls[i].crc = o.crc
}
