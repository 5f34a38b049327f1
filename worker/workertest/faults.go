package workertest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Faults is a set of kinds of faults that a simulated day may have.
type Faults uint32

// Kinds of faults.
const (
	FailBefore       Faults = 1 << iota // a request fails without effect
	LostAnswer                          // a request takes effect and its answer is lost
	SlowAnswer                          // an answer takes up to 25 s
	Outage                              // each service is down for a while, an hour of a day
	LostAck                             // an acknowledgement is lost
	DuplicateDeliver                    // a message is delivered again although it is being handled, or was acknowledged
	Reorder                             // messages come in another order
	DuplicatePublish                    // a producer publishes a job twice
	Reupload                            // a file is uploaded again, hours later
	BadMessage                          // messages that are no valid job, or whose id belongs to another
	Kill                                // SIGKILL, then a restart under a new id
	Freeze                              // SIGSTOP, then SIGCONT seconds or minutes later
	Stop                                // SIGTERM, sometimes twice, then a restart
	Partition                           // one worker can't reach one service for a while
	Skew                                // each worker's clock is minutes off
	Throttle                            // hidden quota: 429, in storms
	ModelError                          // 500 and 503
	Hang                                // a paid call never answers
	Truncate                            // a paid answer breaks off
	UselessAnswer                       // a paid answer holds no usable image
	Damage                              // an upload arrives damaged and is refused
	Denied                              // a worker's permission to call the model is gone: it stops by itself
	RowRefused                          // lineage can never store some row
	Control                             // submissions are paused, resumed and cancelled
	LaneDenied                          // one lane is denied to everybody for a while
	LaneDown                            // one lane fails, or can't be reached, for a while
	LateWrite                           // a model that writes its image itself does so only after its answer
	BatchRows                           // rows of a batch's output are missing, twice there, failed, damaged, mislabelled, or of no job of it
	BatchEnds                           // batches hang in Vertex's queue, expire, fail, or end in part
	BatchCreate                         // Vertex refuses batches, or creates them without an answer
	BatchWish                           // batches are cancelled, by their owners or by others

	lastFault = BatchWish
)

// AllFaults has every kind.
const AllFaults = lastFault<<1 - 1

var faultNames = []string{
	"fail-before", "lost-answer", "slow-answer", "outage", "lost-ack", "duplicate-delivery", "reorder", "duplicate-publish", "reupload",
	"bad-message", "kill", "freeze", "stop", "partition", "skew", "throttle", "model-error", "hang", "truncate", "useless-answer", "damage",
	"denied", "row-refused", "control", "lane-denied", "lane-down", "late-write", "batch-rows", "batch-ends", "batch-create", "batch-wish",
}

// String returns the kinds' names.
func (f Faults) String() string {
	if f == AllFaults {
		return "all"
	}
	var names []string
	for i, n := range faultNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// Swarm returns the kinds of faults of a short run: the seed switches about a third of them off. Faults hide each other; a run without
// kills, say, shows what a kill would have excused.
func Swarm(seed uint64) Faults {
	var f Faults
	for i := range faultNames {
		if dice(seed).roll(saltSwarm, uint64(i), 0) >= 1.0/3 {
			f |= 1 << i
		}
	}
	return f
}

// dice decides by hashing the seed with what the decision is about, so that a decision does not depend on what was decided before, on
// another goroutine's turn, or on which worker asks.
type dice uint64

type salt uint64

const (
	saltSwarm salt = iota
	saltPlan
	saltJob
	saltFate
	saltLatency
	saltSlow
	saltBefore
	saltLost
	saltWire
	saltDown
	saltAck
	saltLate
	saltLease
	saltDuplicate
	saltOrder
	saltPublish
	saltCall
	saltQuota
	saltRestart
	saltImage
	saltPause
	saltSkew
	saltWrite
	saltBatch
	saltRow
)

// bits is SplitMix64's finaliser over the words.
func (d dice) bits(s salt, a, b uint64) uint64 {
	x := uint64(d)
	for _, w := range [...]uint64{uint64(s), a, b} {
		x += w*0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

// roll returns a number in [0, 1).
func (d dice) roll(s salt, a, b uint64) float64 { return float64(d.bits(s, a, b)>>11) / (1 << 53) }

// between returns a duration in [from, to).
func (d dice) between(s salt, a, b uint64, from, to time.Duration) time.Duration {
	return from + time.Duration(d.roll(s, a, b)*float64(to-from))
}

// service is what a request goes to. The ledger, the controls and the assets are buckets of one Cloud Storage, and may fail apart.
type service int

const (
	svcQueue service = iota
	svcLedger
	svcAssets
	svcRows
	svcModel
	svcBatch // of Vertex
	services
)

// span is a time with a beginning and an end, as offsets from the day's beginning.
type span struct{ from, to time.Duration }

func (s span) has(t time.Duration) bool          { return s.from <= t && t < s.to }
func (s span) meets(from, to time.Duration) bool { return s.from < to && from < s.to }

// event is what happens to whichever process is in a slot.
type event struct {
	at   time.Duration
	kind Faults        // Kill, Freeze, Stop, Partition or Denied
	span time.Duration // of a Freeze, a Partition, or a Denied
	svc  service       // of a Partition
	hard bool          // of a Stop: a second signal follows
}

// plan is everything that is fixed before the day begins.
type plan struct {
	outages [services][]span
	lanes   []lanePlan
	slots   [][]event
	uploads []upload
	paused  []wish
}

// upload is a file: the jobs from a number to another, published at a time and perhaps again.
type upload struct {
	from, to int
	at       time.Duration
	again    time.Duration // 0: never
}

// wish is what the owner of an upload wants during a span: to pause it, or from then on to cancel it.
type wish struct {
	upload int
	span   span
	cancel bool
}

// Shares of a day and bounds of what happens in it.
const (
	uploadShare   = 0.4 // of all jobs come in files, the rest one by one
	eventsPerSlot = 6   // of each kind in a day, on average
	stormsPerDay  = 10
)

func (cfg Config) plan() *plan {
	r := rand.New(rand.NewPCG(cfg.Seed, uint64(saltPlan)))
	p := &plan{slots: make([][]event, cfg.Workers)}
	day := cfg.day()
	// All numbers are drawn whether they are used or not, so that switching a fault off leaves the others where they were.
	for svc := range services {
		from := time.Duration(r.Float64() * 0.8 * float64(day))
		length := min(time.Hour, day/10)
		if cfg.Faults&Outage != 0 {
			p.outages[svc] = []span{{from, from + length}}
		}
	}
	cfg.planLanes(r, p)
	for slot := range p.slots {
		p.slots[slot] = cfg.slotEvents(r)
	}
	cfg.planUploads(r, p)
	return p
}

// slotEvents draws what happens to one slot's processes, in the order of time.
func (cfg Config) slotEvents(r *rand.Rand) []event {
	var all []event
	for _, kind := range []Faults{Kill, Freeze, Stop, Partition, Denied} {
		mean := float64(cfg.day()) / eventsPerSlot
		if kind == Denied {
			mean *= 4
		}
		if cfg.harsh {
			mean /= 8
		}
		for at := r.ExpFloat64() * mean; at < float64(cfg.day()); at += r.ExpFloat64() * mean {
			e := event{at: time.Duration(at), kind: kind, hard: r.IntN(3) == 0, svc: []service{svcLedger, svcLedger, svcAssets, svcRows, svcQueue}[r.IntN(5)]}
			// Half of all freezes and partitions are too short for anybody to be taken for dead.
			e.span = time.Duration(r.Float64() * float64(20*time.Second))
			if r.IntN(2) == 0 {
				e.span = 20*time.Second + time.Duration(r.Float64()*float64(4*time.Minute))
			}
			if cfg.Faults&kind != 0 {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b event) int { return int(a.at - b.at) })
	return all
}

func (cfg Config) planUploads(r *rand.Rand, p *plan) {
	day := cfg.day()
	files := max(2, min(24, cfg.Jobs/500))
	inFiles := int(uploadShare * float64(cfg.Jobs))
	first := cfg.Jobs - inFiles
	for i := range files {
		u := upload{from: first + i*inFiles/files, to: first + (i+1)*inFiles/files, at: time.Duration(r.Float64() * 0.7 * float64(day))}
		again := u.at + time.Duration((0.02+0.2*r.Float64())*float64(day))
		if r.IntN(4) == 0 && cfg.Faults&Reupload != 0 {
			u.again = again
		}
		p.uploads = append(p.uploads, u)
		from := u.at + time.Duration(r.Float64()*0.02*float64(day))
		w := wish{upload: i, span: span{from, from + day/20}, cancel: r.IntN(2) == 0}
		if r.IntN(6) == 0 && cfg.Faults&Control != 0 {
			p.paused = append(p.paused, w)
		}
	}
}
