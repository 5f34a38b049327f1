package workertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// Times of the real ledger, which beat.go of package ledger explains.
const (
	beatEvery = 5 * time.Second
	beatTime  = 8 * time.Second
	deadAfter = 20 * time.Second
	watchGap  = beatEvery + beatTime
	freshFor  = deadAfter / 2
	goneTime  = 5 * time.Second
)

type recordState uint8

const (
	none recordState = iota
	claimed
	released
	done
)

// record is what the ledger stores of one job. Rows are kept as bytes: a day has more than a million.
type record struct {
	generation int64
	nonce      uint64
	holder     int32 // process
	batch      int32 // claimed: the batch that the job is gathered into; 0: none
	state      recordState
	digest     uint64
	spent      *spentRecord // claimed, released
	end        []byte       // done
}

type spentRecord struct {
	calls, throttled, abandoned int
	cost                        jobs.USD
	fallback                    bool
	attempts                    []byte
}

// bucket is what Cloud Storage holds of the ledger: small objects that change only by generation. Guarded by sim.mu.
type bucket struct {
	generation int64
	nonces     uint64
	records    []record // by job
	beats      []int64  // by process: the generation of its object; 0: none
}

// ledgerPort follows the real ledger step by step, request by request; only what lies beneath, Cloud Storage, is simulated.
type ledgerPort struct {
	p *process

	mu     sync.Mutex
	last   time.Time
	beaten chan struct{} // closed, and replaced, at each sign of life
	series int64         // of signs of life without a gap in which others could take this process for dead
	looked time.Time
	seen   []sighting // by process
}

type sighting struct {
	generation int64
	since      time.Time
}

func newLedgerPort(p *process) *ledgerPort { return &ledgerPort{p: p, beaten: make(chan struct{})} }

// write is a conditional write of a record: it takes effect if the record's generation is still the one expected, 0 for none.
func (l *ledgerPort) write(ctx context.Context, n int, expected int64, next record) (generation int64, err error) {
	s := l.p.sim
	err = l.p.request(ctx, svcLedger, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		r := &s.bucket.records[n]
		if r.generation != expected && !(s.cfg.sabotage == unfencedFinish && next.state == done) {
			return errPrecond
		}
		s.audit.recorded(n, r, &next)
		s.bucket.generation++
		next.generation = s.bucket.generation
		*r = next
		generation = next.generation
		return nil
	})
	return generation, err
}

func (l *ledgerPort) read(ctx context.Context, n int) (found record, err error) {
	s := l.p.sim
	err = l.p.request(ctx, svcLedger, aboutJob(n), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		found = s.bucket.records[n]
		return nil
	})
	return found, err
}

func (l *ledgerPort) next(state recordState, digest uint64) record {
	s := l.p.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bucket.nonces++
	return record{state: state, holder: int32(l.p.id), nonce: s.bucket.nonces, digest: digest}
}

func shortDigest(d jobs.Digest) uint64 { return binary.BigEndian.Uint64(d[:]) }

// Claim implements worker.Ledger.
func (l *ledgerPort) Claim(ctx context.Context, jobID string, digest jobs.Digest) (standing worker.Standing, err error) {
	return l.claimAs(ctx, jobID, digest, 0)
}

// claimAs claims a job, for a batch if there is one.
func (l *ledgerPort) claimAs(ctx context.Context, jobID string, digest jobs.Digest, batch int32) (standing worker.Standing, err error) {
	series, err := l.awaitFresh(ctx)
	if err != nil {
		return worker.Standing{}, err
	}
	n := l.p.sim.number(jobID)
	mine := l.next(claimed, shortDigest(digest))
	mine.batch = batch
	err = retry.Do(ctx, transient, func(ctx context.Context) error {
		var err error
		standing, err = l.claim(ctx, n, digest, mine)
		return err
	})
	standing.Ticket.Series = series
	return standing, err
}

// awaitFresh returns when this process has just given a sign of life, with the series that it belongs to.
func (l *ledgerPort) awaitFresh(ctx context.Context) (series int64, err error) {
	for {
		if err := l.p.gate(); err != nil {
			return 0, err
		}
		l.mu.Lock()
		fresh, series, next := l.fresh(), l.series, l.beaten
		l.mu.Unlock()
		if fresh {
			return series, nil
		}
		select {
		case <-next:
		case <-l.p.killed:
			return 0, errKilled
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// fresh reports whether nobody can have taken this process for dead. The caller holds mu.
func (l *ledgerPort) fresh() bool { return !l.last.IsZero() && time.Since(l.last) < freshFor }

func (l *ledgerPort) claim(ctx context.Context, n int, digest jobs.Digest, mine record) (worker.Standing, error) {
	generation, err := l.write(ctx, n, 0, mine)
	if err == nil {
		return l.granted(n, digest, generation, worker.Spent{}), nil
	}
	if err != errPrecond {
		return worker.Standing{}, err
	}
	found, err := l.read(ctx, n)
	if err != nil {
		return worker.Standing{}, err
	}
	sabotage := l.p.sim.cfg.sabotage
	switch {
	case found.digest != mine.digest:
		return worker.Standing{State: worker.Conflict}, nil
	case found.state == done && sabotage == amnesia && l.p.sim.pick(n):
		return l.granted(n, digest, found.generation, worker.Spent{}), nil
	case found.state == done:
		end, err := decodeEnd(found.end)
		return worker.Standing{State: worker.Done, Record: end}, err
	case found.state == claimed && found.nonce == mine.nonce:
		// An earlier try of this very claim was written although its answer was lost.
		spent, err := found.spent.decode()
		standing := l.granted(n, digest, found.generation, spent)
		standing.Abandoned = standing.Abandoned && sabotage != lostTakeOver
		return standing, err
	case found.state == claimed && sabotage == generousLedger:
		return l.granted(n, digest, found.generation, worker.Spent{}), nil
	case found.state == claimed:
		gone, err := l.gone(ctx, n, int(found.holder))
		if gone && found.batch != 0 && sabotage != carelessTakeOver {
			gone, err = l.void(ctx, found.batch)
		}
		if err != nil {
			return worker.Standing{}, err
		}
		if !gone && (sabotage != hastyLedger || found.batch != 0) {
			return worker.Standing{State: worker.Busy, Holder: l.p.sim.nameOf(int(found.holder))}, nil
		}
	}
	return l.reclaim(ctx, n, digest, mine, found)
}

func (l *ledgerPort) reclaim(ctx context.Context, n int, digest jobs.Digest, mine, found record) (worker.Standing, error) {
	if l.p.sim.cfg.sabotage == forgetfulLedger {
		found.spent = nil
	}
	spent, err := found.spent.decode()
	if err != nil {
		return worker.Standing{}, err
	}
	if found.state == claimed && found.batch == 0 {
		spent.Abandoned++
	}
	if mine.spent, err = encodeSpent(spent); err != nil {
		return worker.Standing{}, err
	}
	if l.p.sim.cfg.sabotage == forgottenDeaths {
		mine.spent.abandoned = min(mine.spent.abandoned, 1)
	}
	generation, err := l.write(ctx, n, found.generation, mine)
	switch {
	case err == errPrecond:
		return worker.Standing{State: worker.Busy, Holder: "another worker"}, nil
	case err != nil:
		return worker.Standing{}, err
	}
	return l.granted(n, digest, generation, spent), nil
}

func (l *ledgerPort) granted(n int, digest jobs.Digest, generation int64, spent worker.Spent) worker.Standing {
	return worker.Standing{
		State: worker.Granted, Ticket: worker.Ticket{JobID: l.p.sim.id(n), Digest: digest, Generation: generation},
		Spent: spent, Abandoned: spent.Abandoned > 0,
	}
}

// Confirm implements worker.Ledger.
func (l *ledgerPort) Confirm(ctx context.Context, t worker.Ticket) error {
	if err := l.p.gate(); err != nil {
		return err
	}
	l.mu.Lock()
	fresh := l.fresh()
	unbroken := t.Series == l.series || l.p.sim.cfg.sabotage == shortMemory
	l.mu.Unlock()
	if fresh && unbroken || l.p.sim.cfg.sabotage == yesSayer {
		return nil
	}
	n := l.p.sim.number(t.JobID)
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		found, err := l.read(ctx, n)
		if err == nil && found.generation != t.Generation {
			return worker.ErrFenced
		}
		return err
	})
}

// Finish implements worker.Ledger.
func (l *ledgerPort) Finish(ctx context.Context, t worker.Ticket, r worker.Record) error {
	next := l.next(done, shortDigest(t.Digest))
	end, err := encodeEnd(r)
	if err != nil {
		return err
	}
	next.end = end
	return l.swap(ctx, t, next)
}

// Release implements worker.Ledger.
func (l *ledgerPort) Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error {
	record, err := encodeSpent(spent)
	if err != nil {
		return err
	}
	if l.p.sim.cfg.sabotage == hastyRelease && l.p.sim.ofSealed(t.JobID) {
		return nil
	}
	next := l.next(released, shortDigest(t.Digest))
	next.spent = record
	return l.swap(ctx, t, next)
}

func (l *ledgerPort) swap(ctx context.Context, t worker.Ticket, next record) error {
	n := l.p.sim.number(t.JobID)
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		_, err := l.write(ctx, n, t.Generation, next)
		if err != errPrecond {
			return err
		}
		found, err := l.read(ctx, n)
		switch {
		case err != nil:
			return err
		case found.nonce == next.nonce:
			return nil
		}
		return worker.ErrFenced
	})
}

// Beat implements worker.Ledger.
func (l *ledgerPort) Beat(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { l.every(ctx, l.beat) })
	loops.Go(func() { l.every(ctx, l.lookAround) })
	loops.Wait()
	l.leave(context.WithoutCancel(ctx))
}

func (l *ledgerPort) every(ctx context.Context, f func(context.Context)) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-tick.C:
		case <-l.p.killed:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (l *ledgerPort) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	if l.p.gate() != nil {
		return
	}
	s, began := l.p.sim, time.Now()
	err := l.p.request(ctx, svcLedger, aboutProcess(l.p), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.bucket.generation++
		s.bucket.beats[l.p.id] = s.bucket.generation
		s.audit.beaten(l.p)
		return nil
	})
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.IsZero() || began.Sub(l.last) >= freshFor {
		l.series++ // meanwhile others may have taken over what this process holds
	}
	l.last = began
	close(l.beaten)
	l.beaten = make(chan struct{})
}

func (l *ledgerPort) lookAround(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	if l.p.gate() != nil {
		return
	}
	s, began := l.p.sim, time.Now()
	var found []int64
	err := l.p.request(ctx, svcLedger, aboutProcess(l.p), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		found = append(found[:0], s.bucket.beats...)
		return nil
	})
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := began.Sub(l.looked) > watchGap
	seen := make([]sighting, len(found))
	for id, generation := range found {
		switch {
		case generation == 0:
		case id < len(l.seen) && !gap && l.seen[id].generation == generation:
			seen[id] = l.seen[id]
		default:
			seen[id] = sighting{generation, began}
		}
	}
	l.seen, l.looked = seen, began
}

func (l *ledgerPort) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	s := l.p.sim
	_ = retry.Do(ctx, transient, func(ctx context.Context) error {
		return l.p.request(ctx, svcLedger, aboutProcess(l.p), func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.bucket.beats[l.p.id] = 0
			l.p.life.left = true
			return nil
		})
	})
}

// gone reports whether a process that holds a claim is taken for dead. That it was silent at the last look is not enough: it may have
// come back since.
func (l *ledgerPort) gone(ctx context.Context, n, id int) (gone bool, err error) {
	if id == l.p.id {
		return false, nil
	}
	l.mu.Lock()
	var seen sighting
	if id < len(l.seen) {
		seen = l.seen[id]
	}
	dead := seen.generation != 0 && l.looked.Sub(seen.since) >= deadAfter
	l.mu.Unlock()
	s := l.p.sim
	if dead && s.cfg.sabotage == staleLook {
		return true, nil
	}
	err = l.p.request(ctx, svcLedger, aboutProcess(l.p), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		generation := s.bucket.beats[id]
		gone = generation == 0 || dead && generation == seen.generation
		if gone {
			s.audit.foundDead(l.p, s.processes[id], n)
		}
		return nil
	})
	return gone, err
}

func encodeAttempts(b []byte, rows []*schemas.AttemptRow) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	for _, r := range rows {
		if _, err := protodelim.MarshalTo(buf, r); err != nil {
			return nil, err
		}
	}
	return bytes.Clone(buf.Bytes()), nil
}

func encodeSpent(s worker.Spent) (*spentRecord, error) {
	attempts, err := encodeAttempts(nil, s.Attempts)
	return &spentRecord{s.Calls, s.Throttled, s.Abandoned, s.Cost, s.Fallback, attempts}, err
}

func encodeEnd(r worker.Record) ([]byte, error) {
	var buf bytes.Buffer
	if _, err := protodelim.MarshalTo(&buf, r.Generation); err != nil {
		return nil, err
	}
	return encodeAttempts(buf.Bytes(), r.Attempts)
}

func decodeAttempts(in *bytes.Reader) (all []*schemas.AttemptRow, err error) {
	for in.Len() > 0 {
		row := &schemas.AttemptRow{}
		if err := protodelim.UnmarshalFrom(in, row); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}

func decodeEnd(data []byte) (worker.Record, error) {
	in := bytes.NewReader(data)
	row := &schemas.GenerationRow{}
	if err := protodelim.UnmarshalFrom(in, row); err != nil {
		return worker.Record{}, err
	}
	attempts, err := decodeAttempts(in)
	return worker.Record{Generation: row, Attempts: attempts}, err
}

func (r *spentRecord) decode() (worker.Spent, error) {
	if r == nil {
		return worker.Spent{}, nil
	}
	attempts, err := decodeAttempts(bytes.NewReader(r.attempts))
	return worker.Spent{
		Calls: r.calls, Throttled: r.throttled, Abandoned: r.abandoned, Cost: r.cost, Fallback: r.fallback, Attempts: attempts,
	}, err
}
