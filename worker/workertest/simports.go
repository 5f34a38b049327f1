package workertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

var errDamaged = errors.New("the upload's checksum does not match its bytes")

// place is a bucket for images, by its number.
type place uint8

// buckets are the names of the buckets, and the data regions that they serve, by place.
var buckets = []struct{ name, region string }{
	{"assets", jobs.GlobalRegion}, {"assets-europe-west4", europe}, {"assets-us-central1", america},
}

// bucketOf returns the bucket for jobs of a data region.
func bucketOf(region string) (name string, ok bool) {
	for _, b := range buckets {
		if b.region == region {
			return b.name, true
		}
	}
	return "", false
}

// placeOf returns the bucket that a URI is in.
func placeOf(uri string) place {
	for i, b := range buckets {
		if strings.HasPrefix(uri, "gs://"+b.name+"/") {
			return place(i)
		}
	}
	return place(len(buckets))
}

// region returns the data region of a bucket.
func (b place) region() string {
	if int(b) < len(buckets) {
		return buckets[b].region
	}
	return "nowhere"
}

// object is a stored image, without its bytes: the checkers looked at them when they were stored.
type object struct {
	generation    int64
	crc           uint32
	at            uint32 // milliseconds after the day's beginning
	size          uint32
	width, height uint16
	place         place
}

// assets is the buckets of images as one process sees them.
type assets struct{ *process }

// storable reports whether a write of an image that failed with err may work at the next try.
func storable(err error) bool { return transient(err) || errors.Is(err, errDamaged) }

// Store implements worker.Assets, step by step as package assets does.
func (p assets) Store(ctx context.Context, j *jobs.Job, image *worker.Image) (asset worker.Asset, err error) {
	n := p.sim.number(j.ID)
	content, err := io.ReadAll(image.Blob.NewReader())
	if err != nil {
		return worker.Asset{}, err
	}
	name, _ := bucketOf(j.Region)
	made := object{width: uint16(image.Width), height: uint16(image.Height), place: placeOf("gs://" + name + "/")}
	sabotage := p.sim.cfg.sabotage
	if sabotage == mixer && p.sim.pick(n) {
		n ^= 1
	}
	if sabotage == damager && p.sim.pick(n) {
		content[len(content)-1] ^= 1
	}
	if sabotage == oneBucket {
		made.place = 0
	}
	err = retry.Do(ctx, storable, func(ctx context.Context) error {
		o, err := p.create(ctx, n, content, made)
		if err == nil || err == errPrecond {
			asset = o.asset(j)
			asset.Existing = err == errPrecond && (o.crc != image.Blob.CRC32C() || int64(o.size) != image.Blob.Len())
			if sabotage == mixedChecksums {
				asset.CRC32C, asset.Bytes = image.Blob.CRC32C(), image.Blob.Len()
			}
			return nil
		}
		return err
	})
	if err == nil || ctx.Err() != nil { // otherwise the worker keeps the image and tries again
		p.sim.mu.Lock()
		defer p.sim.mu.Unlock()
		p.sim.audit.imageGone(p.process, image)
	}
	return asset, err
}

// create writes an object where there is none, and returns what is stored in any case. made says where, and what the image is like.
func (p assets) create(ctx context.Context, n int, content []byte, made object) (o object, err error) {
	s := p.sim
	made.crc, made.size = checksum(content), uint32(len(content))
	err = p.request(ctx, svcAssets, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		stored := &s.objects[n]
		if stored.generation != 0 && s.cfg.sabotage != overwriter {
			o = *stored
			return errPrecond
		}
		if s.may(Damage) && s.dice.roll(saltFate, uint64(n), uint64(s.audit.truth[n].requests)) < 0.005 {
			s.books.Damaged++
			return errDamaged
		}
		s.generation++
		made.generation, made.at = s.generation, s.millis()
		*stored, o = made, made
		s.audit.stored(n, o, content)
		return nil
	})
	return o, err
}

func (o object) asset(j *jobs.Job) worker.Asset {
	bucket := "nowhere"
	if int(o.place) < len(buckets) {
		bucket = buckets[o.place].name
	}
	return worker.Asset{
		URI:        "gs://" + bucket + "/" + j.Retention + "/" + j.Campaign + "/" + j.ID + ".png",
		Generation: o.generation, Bytes: int64(o.size), CRC32C: o.crc, MimeType: "image/png", Width: int(o.width), Height: int(o.height),
	}
}

// rows is lineage as one process sees it.
type rows struct{ *process }

// AppendGeneration implements worker.Lineage.
func (p rows) AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error {
	n, ours := jobNumber(row.GetJobId())
	if ours && p.sim.rowRefused(n) {
		return fmt.Errorf("append: %w", worker.ErrRowRefused)
	}
	row = p.sim.skewed(row)
	if p.sim.cfg.sabotage == rewriter && p.sim.pick(n) {
		row.FinishedAt, row.Detail = time.Now().UnixMicro(), "appended at "+time.Now().String()
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(row)
	if err != nil {
		return err
	}
	about := aboutID(row.GetJobId())
	return p.append(ctx, about, func() {
		if p.sim.cfg.sabotage != leakyLineage || !p.sim.pick(n) {
			p.sim.audit.rowAppended(row, encoded)
		}
	})
}

// AppendAttempt implements worker.Lineage.
func (p rows) AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error {
	about := aboutID(row.GetJobId())
	return p.append(ctx, about, func() { p.sim.books.AttemptRows++ })
}

func (p rows) append(ctx context.Context, about uint64, effect func()) error {
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		return p.request(ctx, svcRows, about, func() error {
			p.sim.mu.Lock()
			defer p.sim.mu.Unlock()
			effect()
			return nil
		})
	})
}

// skewed returns the row with its times by the clock of the worker that made it, whoever appends it. Nothing reads the times that a
// worker writes but lineage, so that is where a clock that is off shows.
func (s *sim) skewed(row *schemas.GenerationRow) *schemas.GenerationRow {
	by := s.processNamed(row.GetWorker())
	row = proto.CloneOf(row)
	if by == nil || by.skew == 0 {
		return row
	}
	for _, at := range []*int64{&row.ReceivedAt, &row.CalledAt, &row.AnsweredAt, &row.StoredAt, &row.FinishedAt, &row.Deadline} {
		if *at != 0 {
			*at += by.skew.Microseconds()
		}
	}
	return row
}

// results is the topic of results as one process sees it.
type results struct{ *process }

// publishTimeout is when the real adapter gives up.
const publishTimeout = 60 * time.Second

// Publish implements worker.Results.
func (p results) Publish(ctx context.Context, r *schemas.JobResult) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	about := aboutID(r.GetJobId())
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		return p.request(ctx, svcQueue, about, func() error {
			p.sim.mu.Lock()
			defer p.sim.mu.Unlock()
			p.sim.audit.announced(r)
			return nil
		})
	})
}

// controls is what the owners want, as one process sees it: asked for at most every five seconds.
type controls struct{ *process }

const controlAge = 5 * time.Second

// Control implements worker.Controls.
func (p controls) Control(ctx context.Context, submission string) (worker.Control, error) {
	if err := p.gate(); err != nil {
		return worker.Proceed, err
	}
	if p.sim.cfg.sabotage == deafControls {
		return worker.Proceed, nil
	}
	if err := p.ports.asking.lock(ctx); err != nil {
		return worker.Proceed, err
	}
	defer p.ports.asking.unlock()
	// A frozen process may have got the lock while it stood still.
	if err := p.gate(); err != nil {
		return worker.Proceed, err
	}
	if k, ok := p.ports.known[submission]; ok && time.Since(k.at) < controlAge {
		return k.control, nil
	}
	began := time.Now()
	var control worker.Control
	err := retry.Do(ctx, transient, func(ctx context.Context) error {
		return p.request(ctx, svcLedger, aboutProcess(p.process), func() error {
			control = p.sim.wish(submission, p.sim.now())
			return nil
		})
	})
	if err == nil {
		p.ports.known[submission] = known{control, began}
	}
	return control, err
}

// wish is what the owner of a submission wants at a time, by the plan.
func (s *sim) wish(submission string, at time.Duration) worker.Control {
	for _, w := range s.plan.paused {
		switch {
		case submission != fmt.Sprintf("file-%d", w.upload):
		case w.cancel && at >= w.span.from:
			return worker.Cancel
		case w.span.has(at):
			return worker.Pause
		}
	}
	return worker.Proceed
}

// watched is a process's ledger, with the checkers looking on.
type watched struct{ *ledgerPort }

// Confirm implements worker.Ledger.
func (w watched) Confirm(ctx context.Context, t worker.Ticket) error {
	if err := w.p.gate(); err != nil {
		return err
	}
	s := w.p.sim
	n := s.number(t.JobID)
	s.mu.Lock()
	held := s.bucket.records[n].generation == t.Generation
	s.mu.Unlock()
	began := time.Now()
	err := w.ledgerPort.Confirm(ctx, t)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.audit.confirmed(w.p, n, held, began)
	}
	return err
}

// Claim implements worker.Ledger.
func (w watched) Claim(ctx context.Context, jobID string, digest jobs.Digest) (worker.Standing, error) {
	return w.seen(jobID)(w.ledgerPort.Claim(ctx, jobID, digest))
}

// ClaimFor implements batch.Ledger.
func (w watched) ClaimFor(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error) {
	return w.seen(jobID)(w.ledgerPort.ClaimFor(ctx, jobID, digest, batch))
}

// seen tells the checkers of a claim that is granted.
func (w watched) seen(jobID string) func(worker.Standing, error) (worker.Standing, error) {
	return func(standing worker.Standing, err error) (worker.Standing, error) {
		if err == nil && w.p.gate() == nil && standing.State == worker.Granted {
			n := w.p.sim.number(jobID)
			w.p.sim.mu.Lock()
			defer w.p.sim.mu.Unlock()
			w.p.sim.audit.claimGranted(w.p, n)
		}
		return standing, err
	}
}
