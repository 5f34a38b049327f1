package workertest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// Invariants, as the design numbers them, that the checkers report.
const (
	conservation = "I1 conservation"
	payOnce      = "I2 pay once"
	ackLast      = "I3 ack last"
	rightRow     = "I4 right row"
	firstWrite   = "I5 first write wins"
	bounded      = "I6 bounded"
	residency    = "I7 residency"
	verbatim     = "I8 bytes verbatim"
	controlled   = "controls are obeyed"
)

// Cause is why a paid call did not end its job, so that another was paid.
type Cause uint8

// Causes.
const (
	noCause        Cause = iota
	ByKill               // its process was killed with the call, or its unstored answer, in hand
	ByFreeze             // its process was frozen until it was taken for dead
	ByPartition          // its process could not reach the ledger until it was taken for dead
	BySilence            // its process' signs of life failed, one by one, until it was taken for dead
	ByStop               // its process was told to stop, and the call outlasted the grace, or its image could not be stored in time
	ByNoAnswer           // the answer broke off or never came
	ByUselessImage       // the answer held no usable image
	ByLostRow            // a batch's output did not have the row
	ByDamagedRow         // a batch's output had it damaged
	BySecondRow          // a batch's output had it twice, and Vertex billed both
	// Swapped is no loss: the image went to a job of the same batch with an equal request, whose own row was lost.
	Swapped
	causes
)

var causeNames = [causes]string{
	"none", "kill", "freeze", "partition", "silence", "stop", "no answer", "useless answer", "lost row", "damaged row", "second row", "swapped",
}

// String returns the cause in a word or two.
func (c Cause) String() string { return causeNames[c] }

// call is one paid call, by the model's own account.
type call struct {
	process int32 // or, below 0, a batch
	earlier int32 // the call for the same job before it; -1: none
	crc     uint32
	fate    fate
	cause   Cause
	used    bool // whether its image is stored
}

// caller returns the process that made a call, or nil and the batch that did.
func (a *audit) caller(c *call) (*process, *simBatch) {
	if c.process < 0 {
		return nil, a.s.batches.byNumber(-c.process)
	}
	return a.s.processes[c.process], nil
}

// name is who made a call.
func (a *audit) name(c *call) string {
	p, b := a.caller(c)
	if p == nil {
		return "batch " + b.id
	}
	return p.name
}

// truth is what the checkers know of one job, from what they saw at the services. They never ask a worker.
type truth struct {
	last       int32 // call; -1: none
	requests   uint32
	rowHash    uint64
	rowCRC     uint32
	rows       uint16
	paid       uint8
	asked      uint8  // calls that count against the bound
	askedHold  uint8  // of these, in the present claim
	excused    uint8  // calls that nobody can have counted
	takenOver  bool   // whether the present claim was taken over
	adoptable  bool   // whether an image was there when it was
	claimedAt  uint32 // milliseconds: the present claim
	toldAt     uint32 // likewise: the latest answer to a paid call, or the news that there is none
	accepted   bool
	done       bool
	announced  bool
	dead       bool
	outcome    jobs.Outcome
	objectSeen bool
	batch      int32 // the latest sealed one
}

// life is what the checkers know of a process. Guarded by sim.mu.
type life struct {
	killed, left, stopping bool
	beat                   time.Duration // the last sign of life that took effect
	freezes                []span
	requests               uint64
	inFlight               int
	denied                 int    // calls that were denied
	alarmed                bool   // whether somebody is about to restart it
	permits                int    // to call
	pauses                 []span // that lanes asked for, by lane
	images                 map[*worker.Image]int64
	imageBytes             int64
	open                   map[int]struct{} // jobs with a paid call whose end is not recorded
	openAtKill             map[int]struct{}
	paidTwice              int
	confirmed              map[int]time.Time     // when p began to ask, by job
	lost                   map[int]Cause         // jobs taken over from it
	dead                   map[int]time.Duration // by job, when it found the holder dead: that one's last sign of life
}

// audit is the checkers. All methods are called with sim.mu held, at the instant of the effect they are told about.
type audit struct {
	s          *sim
	truth      []truth
	calls      []call
	invalid    map[string]invalidEnd // by the id under which a message that is no valid job is recorded
	buriedAs   map[int]jobs.Reason   // dead letters by message
	violations []string
	reported   map[string]int // by kind of violation
	broken     int
	enough     bool // whether what was looked for was reported
}

type invalidEnd struct{ row, event bool }

// maxViolations bounds what a failed run prints of one kind of violation.
const maxViolations = 3

func (a *audit) violate(invariant, format string, args ...any) {
	a.broken++
	a.enough = a.enough || a.s.cfg.until != "" && strings.Contains(fmt.Sprintf(format, args...), a.s.cfg.until)
	if a.reported[invariant+format]++; a.reported[invariant+format] <= maxViolations {
		a.violations = append(a.violations, fmt.Sprintf("%s at %s: %s", invariant, a.s.now().Round(time.Millisecond), fmt.Sprintf(format, args...)))
	}
}

func (a *audit) accepted(n int) {
	a.truth[n].accepted = true
}

// ---- processes

func (a *audit) beaten(p *process) { p.life.beat = a.s.now() }

func (a *audit) frozen(p *process, d time.Duration) {
	now := a.s.now()
	p.life.freezes = append(p.life.freezes, span{now, now + d})
	a.s.books.Freezes++
}

func (a *audit) killed(p *process) {
	p.life.killed = true
	p.life.openAtKill = maps.Clone(p.life.open)
	a.s.books.Kills++
	a.s.books.CutByKills += len(p.life.open)
	if n := len(p.life.open); n > a.s.cfg.Concurrency {
		a.violate(bounded, "%s was killed with %d paid jobs in hand, with room for %d", p.name, n, a.s.cfg.Concurrency)
	}
}

// ---- ledger

// claimGranted sees p get a claim, before it looks for what another may have left.
func (a *audit) claimGranted(p *process, n int) {
	delete(p.life.lost, n)
	if t := &a.truth[n]; t.takenOver && a.s.objects[n].generation != 0 {
		t.adoptable = true
	}
}

// confirmed sees p be told that it holds a job; held is whether it did when it began to ask.
func (a *audit) confirmed(p *process, n int, held bool, began time.Time) {
	if !held {
		a.violate(payOnce, "%s was told that it holds %s, which it had lost", p.name, jobID(n))
	}
	if p.life.confirmed == nil {
		p.life.confirmed = map[int]time.Time{}
	}
	p.life.confirmed[n] = began
}

// recorded sees every change of a record of the ledger.
func (a *audit) recorded(n int, old, next *record) {
	t := &a.truth[n]
	holder := a.s.processes[next.holder]
	if old.state == done {
		a.violate(conservation, "the recorded end of %s was overwritten by %s", jobID(n), holder.name)
	}
	switch next.state {
	case claimed:
		if b := a.s.batches.byNumber(old.batch); old.state == claimed && b != nil && !b.seal.Void {
			a.violate(payOnce, "%s took %s over from batch %s, which is not void", holder.name, jobID(n), b.id)
		}
		if old.state == claimed {
			a.takenOver(n, a.s.processes[old.holder], holder)
		}
		t.takenOver, t.askedHold, t.claimedAt = old.state == claimed, 0, a.s.millis()
	case released:
		delete(holder.life.open, n)
		a.freed(n, old, holder)
	case done:
		if old.state != claimed || old.holder != next.holder && !a.s.batches.sealed(old.batch) {
			a.violate(payOnce, "%s ended %s without holding it", holder.name, jobID(n))
		}
		t.done = true
		for c := t.last; c >= 0; c = a.calls[c].earlier {
			if p, _ := a.caller(&a.calls[c]); p != nil {
				delete(p.life.open, n)
			}
		}
	}
}

// takenOver judges a take-over: whether q was silent for long enough, and why.
func (a *audit) takenOver(n int, q, p *process) {
	cause := a.silence(n, q, p)
	a.s.books.TakenOver[cause]++
	t := &a.truth[n]
	if t.askedHold > 1 {
		t.excused += t.askedHold - 1
	}
	if q.life.lost == nil {
		q.life.lost = map[int]Cause{}
	}
	q.life.lost[n] = cause
	for i := t.last; i >= 0; i = a.calls[i].earlier {
		c := &a.calls[i]
		if c.process == int32(q.id) && c.cause == noCause && (c.fate == underway || c.fate == delivered || c.fate == refused) {
			a.excuse(c, n, cause)
		}
	}
	if !q.life.killed {
		delete(q.life.open, n)
	}
}

// foundDead sees p look whether q lives, just before it takes a job over from it.
func (a *audit) foundDead(p, q *process, n int) {
	if p.life.dead == nil {
		p.life.dead = map[int]time.Duration{}
	}
	p.life.dead[n] = q.life.beat
}

// shortestSilence is after how long a worker may be taken for dead. It is deadAfter less the longest time of a look, since a look counts
// from its beginning.
const shortestSilence = deadAfter - beatTime

func (a *audit) silence(n int, q, p *process) Cause {
	s, now := a.s, a.s.now()
	if q.life.left {
		return ByStop
	}
	// Between the look and the take-over lies one request, in which q may come back: it was silent when it was looked at.
	beat, looked := p.life.dead[n]
	if !looked {
		beat = q.life.beat
	}
	delete(p.life.dead, n)
	if silent := now - beat; silent < shortestSilence {
		a.violate(payOnce, "%s took %s over from %s, which had given a sign of life %s before", p.name, jobID(n), q.name, silent.Round(time.Millisecond))
	}
	if beat != q.life.beat {
		s.books.CameBack++
	}
	switch {
	case q.life.killed:
		return ByKill
	case meetsAny(q.life.freezes, beat, now):
		return ByFreeze
	}
	for _, c := range q.partitions {
		if c.svc == svcLedger && c.meets(beat, now) {
			return ByPartition
		}
	}
	if s.cfg.Faults&(Outage|SlowAnswer|FailBefore|LostAnswer) == 0 {
		a.violate(payOnce, "%s fell silent for %s with no fault at all", q.name, now-beat)
	}
	return BySilence
}

func meetsAny(all []span, from, to time.Duration) bool {
	for _, s := range all {
		if s.meets(from, to) {
			return true
		}
	}
	return false
}

// excuse names the cause of a paid call that did not end its job.
func (a *audit) excuse(c *call, n int, cause Cause) {
	c.cause = cause
	p, _ := a.caller(c)
	if cause != ByKill || p == nil {
		return
	}
	p.life.paidTwice++
	if _, open := p.life.openAtKill[n]; !open || p.life.paidTwice > len(p.life.openAtKill) {
		a.violate(payOnce, "%s was paid again for the kill of %s, which did not have it in hand", jobID(n), p.name)
	}
}

// ---- calls

// begin sees a paid call begin, and returns its number among the job's.
func (a *audit) begin(p *process, n int) int {
	t := &a.truth[n]
	i := int32(len(a.calls))
	a.calls = append(a.calls, call{process: int32(p.id), earlier: t.last})
	a.checkControl(p, n)
	a.checkClaim(p, n, &a.calls[i])
	t.last = i
	t.paid++
	a.asked(p, n)
	a.s.books.Paid++
	if p.life.inFlight++; p.life.inFlight > a.s.cfg.Concurrency {
		a.violate(bounded, "%s has %d calls in flight, with room for %d", p.name, p.life.inFlight, a.s.cfg.Concurrency)
	}
	return int(t.paid)
}

// asked counts a call, paid or not, against the bound on calls for a job.
func (a *audit) asked(p *process, n int) {
	t := &a.truth[n]
	t.asked++
	t.askedHold++
	delete(p.life.confirmed, n)
	if int(t.asked) > worker.MaxCalls+int(t.excused) {
		a.violate(bounded, "call number %d for %s, of at most %d and %d that nobody can have counted; paid before:%s",
			t.asked, jobID(n), worker.MaxCalls, t.excused, a.history(n))
	}
}

// history tells of the paid calls for a job, newest first.
func (a *audit) history(n int) string {
	text := ""
	for i := a.truth[n].last; i >= 0; i = a.calls[i].earlier {
		c := a.calls[i]
		text += fmt.Sprintf(" by %s, %s, %s;", a.name(&c), fateNames[c.fate], c.cause)
	}
	return text
}

// checkClaim decides whether p may spend on the job now, and why the calls before did not end it.
func (a *audit) checkClaim(p *process, n int, now *call) {
	r, t := &a.s.bucket.records[n], &a.truth[n]
	if _, ok := p.life.confirmed[n]; !ok {
		a.violate(payOnce, "%s calls for %s without asking whether it still holds it", p.name, jobID(n))
	}
	delete(p.life.confirmed, n)
	if r.state != claimed || int(r.holder) != p.id {
		cause, lost := p.life.lost[n]
		if !lost {
			a.violate(payOnce, "%s calls for %s, which is %s by %s", p.name, jobID(n), stateNames[r.state], a.s.processes[r.holder].name)
		}
		// Between its last look at the claim and the call, it stood still until others took it for dead.
		now.cause = cause
		t.excused++
		a.s.books.LateCalls++
		return
	}
	p.life.open[n] = struct{}{}
	if t.adoptable {
		a.violate(payOnce, "%s pays for %s although the image that a dead worker stored is there", p.name, jobID(n))
	}
	a.checkNothingThere(p, n)
	for i := t.last; i >= 0; i = a.calls[i].earlier {
		if c := &a.calls[i]; c.cause == noCause {
			a.excuse(c, n, a.superseded(p.name, n, c))
		}
	}
}

var stateNames = [...]string{none: "unclaimed", claimed: "claimed", released: "released", done: "done"}

// superseded says why a call did not end the job that by now calls for, and was not taken over.
func (a *audit) superseded(by string, n int, c *call) Cause {
	p, b := a.caller(c)
	switch {
	case c.fate == truncated || c.fate == hung:
		return ByNoAnswer
	case c.fate == useless || c.fate == unwritten:
		return ByUselessImage
	case c.fate == missingRow:
		return ByLostRow
	case c.fate == damagedRow:
		return ByDamagedRow
	case b == nil && (c.fate == cut || c.fate == delivered) && p.life.stopping:
		return ByStop
	case b != nil && a.swapped(n, b, c):
		return Swapped
	case c.fate == refused:
		a.violate(payOnce, "%s calls for %s, which was refused", by, jobID(n))
	case c.fate == underway:
		a.violate(payOnce, "%s calls for %s while %s does", by, jobID(n), a.name(c))
	default:
		a.violate(payOnce, "%s calls for %s, which %s was paid and answered for", by, jobID(n), a.name(c))
	}
	return noCause
}

// swapped reports whether the answer of a row went to the job with the equal request: lines without labels are anybody's.
func (a *audit) swapped(n int, b *simBatch, c *call) bool {
	twin := twinOf(n)
	if twin == n || twin >= a.s.cfg.Jobs || a.truth[twin].batch != b.number || !a.truth[twin].done {
		return false
	}
	return c.fate == refused || a.s.objects[twin].crc == c.crc
}

// checkNothingThere holds a call to what can be known when it begins: whether an image that is paid for is in the bucket. Who gets a claim
// for a job that was called before, or loses an answer, can look for it; so an image that was there by then need not be bought again.
func (a *audit) checkNothingThere(p *process, n int) {
	t := &a.truth[n]
	looked := max(t.claimedAt, t.toldAt)
	images := []object{a.s.objects[n]}
	for _, w := range a.s.written[n] {
		images = append(images, w.object)
	}
	beside := false
	for _, o := range images {
		if o.generation == 0 {
			continue
		}
		beside = true
		if t.last >= 0 && o.at < looked {
			a.violate(payOnce, "%s pays for %s although an image of it was in the bucket %d ms before it could look", p.name, jobID(n), looked-o.at)
			return
		}
	}
	if beside {
		a.s.books.PaidBesideStored++
	}
}

// checkControl holds a call to what the owner wanted when p asked, which was just before it asked whether it holds the job.
func (a *audit) checkControl(p *process, n int) {
	asked := p.life.confirmed[n].Sub(a.s.began)
	before, submission := asked-controlAge-longestAnswer, a.s.submission(n)
	switch wish := a.s.wish(submission, before); {
	case wish == worker.Cancel:
		a.violate(controlled, "%s calls for %s, whose submission was cancelled", p.name, jobID(n))
	case wish == worker.Pause && a.s.wish(submission, asked) == worker.Pause:
		a.violate(controlled, "%s calls for %s, whose submission is paused", p.name, jobID(n))
	}
}

// callOf returns the place of a job's call among all calls.
func (a *audit) callOf(n, number int) int32 {
	t := &a.truth[n]
	i := t.last
	for range int(t.paid) - number {
		i = a.calls[i].earlier
	}
	return i
}

// answered sees the answer of a paid call arrive in its process.
func (a *audit) answered(p *process, n, number int, end fate, image *worker.Image) {
	t := &a.truth[n]
	c := &a.calls[a.callOf(n, number)]
	c.fate = end
	a.s.books.Fates[end]++
	p.life.inFlight--
	t.toldAt = a.s.millis()
	if end != delivered && end != refused {
		delete(p.life.open, n)
	}
	if image == nil {
		return
	}
	c.crc = image.Blob.CRC32C()
	if p.life.images == nil {
		p.life.images = map[*worker.Image]int64{}
	}
	p.life.images[image] = image.Blob.Len()
	p.life.imageBytes += image.Blob.Len()
	if p.life.imageBytes > a.s.cfg.budgetBytes() {
		a.violate(bounded, "%s holds %d bytes of images, of at most %d", p.name, p.life.imageBytes, a.s.cfg.budgetBytes())
	}
}

func (a *audit) imageGone(p *process, image *worker.Image) {
	p.life.imageBytes -= p.life.images[image]
	delete(p.life.images, image)
}

// ---- assets

// stored sees every change of an object.
func (a *audit) stored(n int, o object, content []byte) {
	t := &a.truth[n]
	if t.objectSeen {
		a.violate(firstWrite, "the image of %s was overwritten", jobID(n))
	}
	t.objectSeen = true
	a.s.books.Stored++
	id, hash, ok := pictureOf(content)
	if want := sha256.Sum256([]byte(prompt(n))); !ok || !a.mayBeOf(n, id) || hash != hex.EncodeToString(want[:]) {
		a.violate(rightRow, "under the name of %s is stored an image of %q", jobID(n), id)
		return
	}
	if want := a.s.region(n); n < a.s.cfg.Jobs && o.place.region() != want {
		a.violate(residency, "the image of %s, which belongs in %s, is stored in %s", jobID(n), want, o.place.region())
	}
	if id != jobID(n) {
		n = twinOf(n)
	}
	for i := a.truth[n].last; i >= 0; i = a.calls[i].earlier {
		c := &a.calls[i]
		if c.crc != o.crc {
			continue
		}
		if c.used {
			a.violate(rightRow, "the image of one call for %s is stored for two jobs", jobID(n))
		}
		c.used = true
		return
	}
	a.violate(verbatim, "the stored bytes of %s are those of no answer that the model gave", jobID(n))
}

// mayBeOf reports whether an image that names a job may be stored for job n: it names n, or a job of the same batch with an equal request,
// whose answer had no labels to tell it from n's.
func (a *audit) mayBeOf(n int, id string) bool {
	if id == jobID(n) {
		return true
	}
	twin := twinOf(n)
	return id == jobID(twin) && twin < a.s.cfg.Jobs && a.truth[n].batch != 0 && a.truth[n].batch == a.truth[twin].batch
}

// ---- rows, events, verdicts

func (a *audit) rowAppended(row *schemas.GenerationRow, encoded []byte) {
	a.s.books.Rows++
	n, ours := jobNumber(row.GetJobId())
	if !ours {
		e := a.invalid[row.GetJobId()]
		e.row = true
		a.invalid[row.GetJobId()] = e
		return
	}
	t, hash := &a.truth[n], hash64(encoded)
	if t.rows > 0 && t.rowHash != hash {
		a.violate(conservation, "%s has two rows that differ", jobID(n))
	}
	if !t.done {
		a.violate(ackLast, "the row of %s came before its end was recorded in the ledger", jobID(n))
	}
	t.rows++
	t.rowHash, t.outcome = hash, jobs.Outcome(row.GetOutcome())
	if t.rows == 1 {
		a.endedBy(row)
		wait := &a.s.books.LongestWait[topicOf(a.s.mode(n))]
		*wait = max(*wait, a.s.now()-a.s.firstPublished(n))
	}
	if why := a.wrongRow(n, row); why != "" {
		a.violate(rightRow, "the row of %s, %s/%s: %s", jobID(n), row.GetOutcome(), row.GetReason(), why)
	}
	if row.GetAssetUri() == "" {
		return
	}
	o := a.s.objects[n]
	if placeOf(row.GetAssetUri()) != o.place {
		a.violate(firstWrite, "the row of %s says that its image is at %s, which is elsewhere", jobID(n), row.GetAssetUri())
	}
	if row.GetAssetCrc32C() != worker.EncodeCRC32C(o.crc) || row.GetAssetBytes() != int64(o.size) || row.GetAssetGeneration() != o.generation {
		a.violate(firstWrite, "the row of %s has generation %d with checksum %s, and stored is %d with %s", jobID(n),
			row.GetAssetGeneration(), row.GetAssetCrc32C(), o.generation, worker.EncodeCRC32C(o.crc))
	}
	t.rowCRC = o.crc
}

// wrongRow says what of a row does not fit its job.
func (a *audit) wrongRow(n int, row *schemas.GenerationRow) string {
	s, reason := a.s, jobs.Reason(row.GetReason())
	switch {
	case row.GetPrompt() != prompt(n):
		return "another job's prompt"
	case jobs.Outcome(row.GetOutcome()) != reason.Outcome():
		return "the reason is not of the outcome"
	case (reason == jobs.ReasonImage) != (row.GetAssetUri() != ""):
		return "an asset without success, or success without one"
	case reason == jobs.ReasonImage && s.refusal(n) != "":
		return "the model refuses this job"
	case reason.Outcome() == jobs.Refused && reason != s.refusal(n):
		return "the model refuses for another reason, or not at all"
	case reason == jobs.ReasonRejected && !s.rejected(n):
		return "the service does not reject it"
	case reason == jobs.ReasonCancelled && s.wish(s.submission(n), s.now()) != worker.Cancel && !s.dropped(row.GetBatchId()):
		return "nobody cancelled it"
	case reason == jobs.ReasonAttemptsExhausted && row.GetAttempts() < worker.MaxCalls:
		return fmt.Sprintf("only %d attempts", row.GetAttempts())
	case reason == jobs.ReasonDeadlinePassed && !s.hasDeadline(n):
		return "it has no deadline"
	}
	return ""
}

func (a *audit) announced(r *schemas.JobResult) {
	a.s.books.Events++
	n, ours := jobNumber(r.GetJobId())
	switch {
	case a.s.cfg.sabotage == silentResults && ours && a.s.pick(n):
	case ours:
		a.truth[n].announced = true
	default:
		e := a.invalid[r.GetJobId()]
		e.event = true
		a.invalid[r.GetJobId()] = e
	}
}

func (a *audit) buried(p *process, m int, reason jobs.Reason, d *jobs.Delivery) {
	a.s.books.DeadLetters++
	a.buriedAs[m] = reason
	msg := &a.s.queue.messages[m]
	if msg.kind == valid && reason == jobs.ReasonNoLane && !a.s.laneless(int(msg.job)) {
		a.turnedAway(p, msg)
	}
	if msg.kind != valid && string(d.Data) != string(a.s.data(msg, 0)) {
		a.violate(conservation, "the dead letter of %s is not its message", d.ID)
	}
}

// settled sees a verdict that lets a message go.
func (a *audit) settled(m int, msg *message, v jobs.Verdict) {
	if msg.topic == handoffs {
		a.handoffSettled(a.s.batches.handoffs[msg.job], v)
		return
	}
	if msg.kind != valid {
		e := a.invalid[a.s.invalidID(m, msg)]
		if _, buried := a.buriedAs[m]; v.Action != jobs.Dead || !buried || !e.row || !e.event {
			a.violate(ackLast, "message %s of kind %d was let go with %s %s: row %t, event %t, dead letter %t", messageID(m), msg.kind, v.Action, v.Reason, e.row, e.event, buried)
		}
		return
	}
	n := int(msg.job)
	t := &a.truth[n]
	switch {
	case v.Action == jobs.Dead && v.Reason == jobs.ReasonNoLane && a.s.laneless(n):
		if t.dead = true; !t.announced {
			a.violate(ackLast, "%s was given up before that was announced", jobID(n))
		}
	case v.Action == jobs.Dead && v.Reason == jobs.ReasonNoLane: // its owner sends it again
	case v.Action == jobs.Dead && v.Reason == jobs.ReasonRowRefused && a.s.rowRefused(n) && t.done:
		t.dead = true
	case v.Action == jobs.Dead:
		a.violate(conservation, "%s was given up for %s", jobID(n), v.Reason)
	case msg.topic == batchJobs && t.batch != 0: // the batch has it now, or has had it
	case !t.done && msg.topic == batchJobs && a.s.bucket.records[n].batch != 0:
		a.violate(ackLast, "%s was acknowledged before its batch was sealed", jobID(n))
	case !t.done:
		a.violate(ackLast, "%s was acknowledged before its end was in the ledger", jobID(n))
	case t.rows == 0:
		a.violate(ackLast, "%s was acknowledged before its row was durable", jobID(n))
	case !t.announced:
		a.violate(ackLast, "%s was acknowledged before its end was announced", jobID(n))
	case t.outcome == jobs.Succeeded && a.s.objects[n].generation == 0:
		a.violate(ackLast, "%s was acknowledged without an image", jobID(n))
	}
}

// close makes the last checks, when everything has come to rest, and fills in the books.
func (a *audit) close() {
	s := a.s
	for m := range s.queue.messages {
		if s.queue.messages[m].state == open {
			s.books.Pending++
			a.violate(conservation, "message %s of %s is still not settled", messageID(m), s.about(m))
		}
	}
	a.closeBatches()
	for n := range a.truth {
		t := &a.truth[n]
		switch {
		case !t.accepted:
		case t.rows > 0:
			s.books.Outcomes[t.outcome]++
			s.books.Jobs++
		case t.dead:
			s.books.Jobs++
			if s.laneless(n) {
				s.books.Laneless++
			} else {
				s.books.RowsRefused++
			}
		default:
			a.violate(conservation, "%s was accepted and has vanished", jobID(n))
		}
		if t.accepted && n < s.cfg.Jobs && s.mode(n) == jobs.Batch {
			s.books.BatchMode++
		}
		if t.rows > 0 && t.outcome == jobs.Succeeded && t.rowCRC != s.objects[n].crc {
			a.violate(firstWrite, "the stored image of %s is no longer the one in its row", jobID(n))
		}
		without := 0
		for i := t.last; i >= 0; i = a.calls[i].earlier {
			switch c := a.calls[i]; {
			case c.cause != noCause:
				s.books.PaidTwice[c.cause]++
			case t.done && (c.fate == missingRow || c.fate == damagedRow):
				s.books.PaidTwice[ByLostRow]++ // the job got an image that was made for another
			default:
				without++
			}
		}
		if without > 1 {
			a.violate(payOnce, "%d calls for %s were paid, and no cause is known", without, jobID(n))
		}
	}
}
