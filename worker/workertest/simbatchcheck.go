package workertest

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
)

// The checkers of batches. All of them are called with sim.mu held.

// sealMade sees a batch be sealed or voided. From a seal on, the batch holds its jobs.
func (a *audit) sealMade(p *process, b *simBatch) {
	s := a.s
	if b.seal.Void {
		s.books.Voided++
		return
	}
	s.books.Batches++
	if !b.handed {
		a.violate(conservation, "%s sealed %s before its hand-off was published", p.name, b.id)
	}
	input, entries := b.files[inputFile], b.files[jobsFile]
	if input == nil || entries == nil {
		a.violate(conservation, "%s sealed %s, which has no files", p.name, b.id)
		return
	}
	b.rows = b.rows[:0]
	seen := map[int]bool{}
	next := bytes.Lines(entries.data)
	var ids []string
	for line := range next {
		_, id, _ := strings.Cut(string(line), `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		ids = append(ids, id)
	}
	for line := range bytes.Lines(input.data) {
		row, err := parseRequest(strings.Fields(string(line)))
		if err != nil || len(b.rows) >= len(ids) || ids[len(b.rows)] != jobID(row.n) {
			a.violate(rightRow, "row %d of %s: %q in the input, and another job in the list of jobs; %v", len(b.rows), b.id, line, err)
			continue
		}
		r := &s.bucket.records[row.n]
		if r.state != claimed || r.batch != b.number || int(r.holder) != p.id {
			a.violate(payOnce, "%s sealed %s with %s, which is %s by %s", p.name, b.id, jobID(row.n), stateNames[r.state], s.processes[r.holder].name)
		}
		if seen[row.n] {
			a.violate(payOnce, "%s has %s twice", b.id, jobID(row.n))
		}
		seen[row.n] = true
		s.audit.truth[row.n].batch = b.number
		b.rows = append(b.rows, int32(row.n))
	}
	s.books.BatchJobs += len(b.rows)
	a.planWish(b)
}

// planWish lets the owner of some batches want their end.
func (a *audit) planWish(b *simBatch) {
	s := a.s
	if len(b.rows) == 0 || !s.may(BatchWish) {
		return
	}
	about := uint64(b.rows[0])
	if s.dice.roll(saltBatch, about, 2) >= 0.04 {
		return
	}
	wish := []batch.Then{batch.ThenDrop, batch.ThenOnline, batch.ThenBatch}[s.dice.bits(saltBatch, about, 3)%3]
	time.AfterFunc(s.dice.between(saltBatch, about, 4, 0, 20*time.Minute), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if b.phase != batch.Closed && b.files[cancelFile] == nil {
			b.wish = wish
			s.put(b, cancelFile, fmt.Appendf(nil, `{"then":%q}`, wish))
		}
	})
}

// dropped reports whether the owner of a batch wanted its jobs dropped.
func (s *sim) dropped(id string) bool {
	b := s.batches.byNumber(s.batches.byID[id])
	return b != nil && b.wish == batch.ThenDrop
}

// phase sees a batch's state change.
func (a *audit) phase(b *simBatch, state *batch.State) {
	if b.phase == batch.Closed && state.Phase != batch.Closed {
		a.violate(conservation, "%s was closed and is %s again", b.id, state.Phase)
	}
	if state.Phase != batch.Closed || b.phase == batch.Closed {
		b.phase = state.Phase
		return
	}
	b.phase, b.reason = batch.Closed, state.Reason
	for _, n := range b.rows {
		if r := &a.s.bucket.records[n]; r.state == claimed && r.batch == b.number {
			a.violate(conservation, "%s was closed while it held %s", b.id, jobID(int(n)))
		}
	}
	for _, v := range b.vertex {
		if !v.state(a.s.now()).Terminal() {
			a.violate(payOnce, "%s was closed while %s went on", b.id, v.name)
		}
	}
}

// created sees a Vertex job be created, which will cost money.
func (a *audit) created(p *process, v *vertexJob, lane worker.Lane) {
	s, b := a.s, v.batch
	r := &s.bucket.records[b.key]
	if !b.seal.Sealed {
		a.violate(payOnce, "%s created a job for %s, which is not sealed", p.name, b.id)
	}
	if _, ok := p.life.confirmed[b.key]; !ok {
		a.violate(payOnce, "%s created a job for %s without asking whether it still holds it", p.name, b.id)
	}
	delete(p.life.confirmed, b.key)
	if r.state != claimed || int(r.holder) != p.id {
		if _, lost := p.life.lost[b.key]; !lost {
			a.violate(payOnce, "%s created a job for %s, which it does not hold", p.name, b.id)
		}
		s.books.LateCalls++
	}
	if len(b.vertex) > 0 {
		a.violate(payOnce, "%s created a second job for %s, %s after the first", p.name, b.id, s.now()-b.vertex[0].created)
	}
	if len(v.rows) != len(b.rows) {
		a.violate(conservation, "the input of %s has %d rows, and the batch %d", b.id, len(v.rows), len(b.rows))
	}
	for _, row := range v.rows {
		a.checkRow(b, row.n, lane)
	}
}

// checkRow decides whether a batch may spend on a job, and why the calls before did not end it.
func (a *audit) checkRow(b *simBatch, n int, lane worker.Lane) {
	r, t := &a.s.bucket.records[n], &a.truth[n]
	if r.state != claimed || r.batch != b.number {
		a.violate(payOnce, "a job was created for %s with %s, which is %s by %s", b.id, jobID(n), stateNames[r.state], a.s.processes[r.holder].name)
	}
	switch want := a.s.region(n); {
	case want != jobs.GlobalRegion && lane.Location != want:
		a.violate(residency, "%s goes to %s with %s, which must stay in %s", b.id, lane.Location, jobID(n), want)
	case lane.Model != a.s.modelOf(n):
		a.violate(rightRow, "%s goes to %s with %s, which asks for %s", b.id, lane.Model, jobID(n), a.s.modelOf(n))
	}
	for i := t.last; i >= 0; i = a.calls[i].earlier {
		if c := &a.calls[i]; c.cause == noCause {
			a.excuse(c, n, a.superseded("batch "+b.id, n, c))
		}
	}
}

// batchCall sees Vertex bill a row, and returns the number of the call among the job's.
func (a *audit) batchCall(v *vertexJob, n int, end fate) int {
	s, b, t := a.s, v.batch, &a.truth[n]
	if r := &s.bucket.records[n]; r.batch != b.number || r.state != claimed {
		a.violate(payOnce, "%s is billed for %s, which it does not hold: it is %s", b.id, jobID(n), stateNames[r.state])
	}
	i := int32(len(a.calls))
	t.paid++
	c := call{process: -b.number, earlier: t.last, fate: end}
	if end != refused && end != useless {
		c.crc = checksum(s.picture(n, int(t.paid)))
	}
	switch state := v.state(s.now()); {
	case end == secondRow:
		c.cause = BySecondRow
	case end == missingRow && state != worker.BatchSucceeded && state != worker.BatchPartly:
		t.excused++ // a job that did not come to its end says nothing of what it has made and not shown
		a.rowAsked(n)
	default:
		a.rowAsked(n)
	}
	a.calls = append(a.calls, c)
	t.last = i
	s.books.Paid++
	s.books.BatchPaid++
	s.books.Fates[end]++
	return int(t.paid)
}

// rowAsked counts a row that Vertex answered, paid or not, against the bound on calls for a job.
func (a *audit) rowAsked(n int) {
	t := &a.truth[n]
	if t.asked++; int(t.asked) > worker.MaxCalls+int(t.excused) {
		a.violate(bounded, "row number %d for %s, of at most %d calls and %d that nobody can have counted; paid before:%s",
			t.asked, jobID(n), worker.MaxCalls, t.excused, a.history(n))
	}
}

// freed sees a job be given back.
func (a *audit) freed(n int, old *record, by *process) {
	b := a.s.batches.byNumber(old.batch)
	if b == nil || !b.seal.Sealed || old.state != claimed {
		return
	}
	b.freed++
	for _, v := range b.vertex {
		if !v.state(a.s.now()).Terminal() {
			a.violate(payOnce, "%s gave %s of %s back while %s may still make it", by.name, jobID(n), b.id, v.name)
		}
	}
}

// republished sees a batch publish a job's message again.
func (a *audit) republished(p *process, n int, j *jobs.Job) {
	s := a.s
	s.books.Republished++
	m := &schemas.Job{}
	if err := schemas.Unmarshal(s.data(&message{job: uint32(n), topic: topicOf(j.Mode)}, 0), m); err != nil {
		a.violate(rightRow, "%s published %s again: %v", p.name, j.ID, err)
		return
	}
	want, err := s.catalogue.Parse(m)
	if err != nil || want.Digest() != j.Digest() || want.Submission != j.Submission || want.Mode != j.Mode {
		a.violate(rightRow, "%s published %s again as another job: %v", p.name, j.ID, err)
	}
	// Only the message holds the job from now on.
	if t := &a.truth[n]; t.batch == 0 {
		a.violate(conservation, "%s published %s again, which is in no batch", p.name, j.ID)
	}
}

// endedBy counts the end of a job for the books of its batch.
func (a *audit) endedBy(row *schemas.GenerationRow) {
	if b := a.s.batches.byNumber(a.s.batches.byID[row.GetBatchId()]); b != nil {
		b.ended[jobs.Outcome(row.GetOutcome())]++
	}
}

// batchRow sees a row of the table of batches.
func (a *audit) batchRow(b *simBatch, row *schemas.BatchRow) {
	s := a.s
	s.books.BatchRows++
	if row.GetState() != "closed" {
		return
	}
	if b.phase != batch.Closed {
		a.violate(ackLast, "the table says that %s is closed, and its state %s", b.id, b.phase)
	}
	done, refused := b.ended[jobs.Succeeded], b.ended[jobs.Refused]
	failed := b.ended[jobs.Failed] + b.ended[jobs.Cancelled]
	unrecorded := 0 // rows that lineage can't store
	for _, n := range b.rows {
		if a.s.rowRefused(int(n)) {
			unrecorded++
		}
	}
	told := []int64{row.GetDone(), row.GetRefused(), row.GetFailed(), row.GetRequeued()}
	for i, seen := range []int{done, refused, failed, b.freed} {
		if told[i] < int64(seen) || told[i] > int64(seen+unrecorded) {
			a.violate(conservation, "the table says of %s (%s, %d jobs) %d done, %d refused, %d failed, %d given back; it was %d, %d, %d and %d, and %d whose rows are refused",
				b.id, row.GetReason(), len(b.rows), told[0], told[1], told[2], told[3], done, refused, failed, b.freed, unrecorded)
			break
		}
	}
	if told[0]+told[1]+told[2]+told[3] != int64(len(b.rows)) || row.GetJobs() != int64(len(b.rows)) {
		a.violate(conservation, "the books of %s don't balance: %d jobs, of them %d done, %d refused, %d failed, %d given back",
			b.id, row.GetJobs(), told[0], told[1], told[2], told[3])
	}
	if lines := row.GetJobs() - row.GetMissing() + row.GetDuplicated() + row.GetOrphans(); lines != int64(b.lines) {
		a.violate(conservation, "the table accounts for %d lines of %s, and its output has %d: %d jobs, %d missing, %d duplicated, %d orphans",
			lines, b.id, b.lines, row.GetJobs(), row.GetMissing(), row.GetDuplicated(), row.GetOrphans())
	}
	if !b.books {
		s.books.addBatch(row)
	}
	b.books = true
}

// handoffSettled sees a verdict that lets a hand-off go.
func (a *audit) handoffSettled(h handoff, v jobs.Verdict) {
	b := h.batch
	checkpoint := b.files[fmt.Sprintf("%s%05d.json", rangesDir, h.span)] != nil
	switch {
	case v.Action == jobs.Dead:
		a.violate(conservation, "the hand-off of %s, range %d, was given up for %s: %s", b.id, h.span, v.Reason, v.Detail)
	case b.seal.Void, b.phase == batch.Closed, h.span > 0 && checkpoint:
	default:
		a.violate(ackLast, "the hand-off of %s, range %d, was let go while the batch is %s", b.id, h.span, b.phase)
	}
}

// closeBatches makes the last checks of batches.
func (a *audit) closeBatches() {
	s := a.s
	for _, b := range s.batches.all {
		switch {
		case b == nil || !b.seal.Sealed:
			continue
		case b.phase != batch.Closed:
			a.violate(conservation, "%s is still %s", b.id, b.phase)
		case !b.books:
			a.violate(conservation, "the table does not say that %s is closed", b.id)
		}
		for _, v := range b.vertex {
			s.books.VertexJobs++
			s.books.VertexEnds[v.state(s.now())]++
		}
	}
}

// hashOfLabels is the hash of the request that a line's labels name.
func (s *sim) hashOfLabels(r request, own [32]byte) [32]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.batches.byNumber(s.audit.truth[r.n].batch)
	var hi, lo int
	if _, err := fmt.Sscan(r.hi, &hi); err != nil || b == nil {
		return own
	}
	if _, err := fmt.Sscan(r.lo, &lo); err != nil || hi*1000+lo >= len(b.rows) {
		return own
	}
	n := int(b.rows[hi*1000+lo])
	return requestHash(s.modelOf(n), prompt(n))
}
