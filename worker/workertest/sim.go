package workertest

import (
	"context"
	"fmt"
	"hash/fnv"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
)

// Config says which day to simulate.
type Config struct {
	Seed        uint64
	Jobs        int // at least 100
	Hours       int // of the day, in which jobs come and faults happen; at least 1. Then the calm comes, until everything is settled
	Workers     int // processes at a time
	Concurrency int // messages that each handles at a time; at most 1,000
	Faults      Faults
	Batch       float64 // share of the jobs that are of mode batch, about

	// Progress is told of each hour of the day; nil: nobody is.
	Progress func(hour int, settled, accepted int)

	// Log gets what the workers log; nil: nobody. The clock is virtual.
	Log *zap.Logger

	sabotage sabotage // what is broken on purpose, for the tests of the checkers
	until    string   // a report that ends the day early, by a part of its text
	harsh    bool     // whether many more answers are lost or useless, and many more processes die, than on any real day
}

// Replay returns the flags that run the same day again.
func (cfg Config) Replay() string {
	return fmt.Sprintf("SEED=%d JOBS=%d HOURS=%d WORKERS=%d CONCURRENCY=%d FAULTS=%d BATCH=%g",
		cfg.Seed, cfg.Jobs, cfg.Hours, cfg.Workers, cfg.Concurrency, cfg.Faults, cfg.Batch)
}

func (cfg Config) day() time.Duration { return time.Duration(cfg.Hours) * time.Hour }

// meanImage is about the size of a simulated picture. Each process has room for half of what it may handle, so that images sometimes wait for
// room, as real ones do.
const meanImage = 400

func (cfg Config) budgetBytes() int64 { return int64(max(cfg.Concurrency/2, 2)) * meanImage }

// sabotage is a way to break a port, which one of the checkers must notice.
type sabotage string

const (
	droppingQueue    sabotage = "queue drops messages"
	eagerQueue       sabotage = "queue acknowledges at delivery"
	greedyQueue      sabotage = "queue delivers twice as many as asked for"
	generousLedger   sabotage = "ledger grants a claim twice"
	hastyLedger      sabotage = "ledger takes living workers for dead"
	forgetfulLedger  sabotage = "ledger forgets what was spent"
	amnesia          sabotage = "ledger grants jobs that have ended"
	yesSayer         sabotage = "confirm always says yes"
	shortMemory      sabotage = "confirm trusts a new sign of life after a gap"
	staleLook        sabotage = "a look that is old counts as watching"
	lostTakeOver     sabotage = "a take-over whose answer was lost is no take-over"
	forgottenDeaths  sabotage = "workers that die one after the other count once"
	unfencedFinish   sabotage = "finish ignores the fence"
	blindFinder      sabotage = "stored images are not found"
	overwriter       sabotage = "bucket overwrites images"
	mixedChecksums   sabotage = "lineage gets the second answer's checksum"
	mixer            sabotage = "images are stored under another job"
	damager          sabotage = "bucket damages images"
	leakyLineage     sabotage = "lineage loses rows"
	rewriter         sabotage = "repeated rows differ"
	silentResults    sabotage = "results are lost"
	boundlessImages  sabotage = "images have no budget"
	leakyWorker      sabotage = "images stay in memory"
	deafControls     sabotage = "controls are not asked"
	roamingLanes     sabotage = "lanes ignore the data region"
	carelessTakeOver sabotage = "claims of batches are taken over without voiding the batch"
	oneBucket        sabotage = "images of all regions go to one bucket"
	leakyPermits     sabotage = "permits are not given back"
	restlessLanes    sabotage = "lanes are called during the pause that they asked for"
	blindToWritten   sabotage = "images that models wrote themselves are not found"
	lostHandoffs     sabotage = "hand-offs of batches are lost"
	roamingBatches   sabotage = "batches ignore the data region"
	unfencedSeal     sabotage = "a seal overwrites a void"
	blindFind        sabotage = "Vertex jobs are not found by their label"
	trustingMatch    sabotage = "labels are believed whatever the request"
	hastySeal        sabotage = "seals are reported that are not there"
	lateHandoffs     sabotage = "hand-offs of batches come late"
	lostFiles        sabotage = "files of batches are lost"
	skippedLines     sabotage = "the last line of an output file is not read"
	hiddenOutput     sabotage = "files of an output are not listed"
	lostRepublish    sabotage = "jobs that batches give back are not published"
	hastyRelease     sabotage = "claims of batches are not released"
)

// pick says whether a sabotage that strikes now and then strikes here.
func (s *sim) pick(n int) bool { return s.dice.roll(saltJob, uint64(n), 99) < 0.2 }

// sim is the world of one simulated day. All services share one lock: their effects are instants.
type sim struct {
	cfg       Config
	plan      *plan
	dice      dice
	lanes     *lanes.Config
	endpoints []endpoint // behind the lanes, in their order
	began     time.Time
	catalogue *jobs.Catalogue
	calm      chan struct{} // closed when the workers are to end for good

	mu         sync.Mutex
	queue      *broker
	bucket     bucket
	objects    []object
	written    map[int][]written // by job
	generation int64             // of objects
	quotas     []quota           // by lane
	processes  []*process
	told       int            // hours of progress
	ended      int            // how many of the first processes have ended, at least
	strays     uint64         // requests about no job of the day
	others     []string       // ids in the ledger that are of no job of the day: of the suites' jobs, of batches, of ranges
	numbers    map[string]int // of these
	batches    batches
	audit      audit
	books      Books
}

// maxDrain is how long after the day everything must have come to rest. Where something is broken on purpose, that is not waited for.
const (
	maxDrain      = 12 * time.Hour
	sabotageDrain = 3 * time.Hour
)

func (cfg Config) drain() time.Duration {
	if cfg.sabotage != "" {
		return sabotageDrain
	}
	return maxDrain
}

// Run simulates a day and returns its books. The error says which invariants were broken, and how to run the same day again. It must not
// be called within a synctest bubble.
func Run(t *testing.T, cfg Config) (*Books, error) {
	began := time.Now()
	var s *sim
	synctest.Test(t, func(*testing.T) {
		s = newSim(cfg)
		s.live()
		s.audit.close()
	})
	s.books.Wall = time.Since(began)
	if s.audit.broken > 0 {
		return &s.books, fmt.Errorf("%d violations; run it again with: make simulate %s\n  %s",
			s.audit.broken, cfg.Replay(), strings.Join(s.audit.violations, "\n  "))
	}
	return &s.books, nil
}

func newSim(cfg Config) *sim {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &sim{
		cfg: cfg, plan: cfg.plan(), dice: dice(cfg.Seed), began: time.Now(), catalogue: jobs.DefaultCatalogue(), calm: make(chan struct{}),
		objects: make([]object, cfg.Jobs), written: map[int][]written{}, numbers: map[string]int{},
		bucket: bucket{records: make([]record, cfg.Jobs)},
		books:  Books{Seed: cfg.Seed, Faults: cfg.Faults, Outcomes: map[jobs.Outcome]int{}, VertexEnds: map[worker.BatchState]int{}},
	}
	s.lanes, s.endpoints = openLanes(s.catalogue)
	s.quotas = make([]quota, len(s.endpoints))
	s.books.Calls = make([]int, len(s.endpoints))
	s.queue = &broker{sim: s}
	s.batches = batches{byID: map[string]int32{}, all: []*simBatch{nil}, vertex: map[string]*vertexJob{}}
	s.audit = audit{s: s, truth: make([]truth, cfg.Jobs), invalid: map[string]invalidEnd{}, buriedAs: map[int]jobs.Reason{}, reported: map[string]int{}}
	for n := range s.audit.truth {
		s.audit.truth[n].last = -1
	}
	s.books.CallPrice = s.catalogue.Cost(s.catalogue.DefaultModel(), jobs.TierStandard, imageUsage)
	return s
}

func (s *sim) now() time.Duration { return time.Since(s.began) }

func (s *sim) millis() uint32 { return uint32(s.now().Milliseconds()) }

// may reports whether a kind of fault may happen now. In the calm after the day nothing does.
func (s *sim) may(f Faults) bool { return s.cfg.Faults&f != 0 && s.now() < s.cfg.day() }

// down reports whether a service is down.
func (s *sim) down(svc service) bool {
	now := s.now()
	for _, o := range s.plan.outages[svc] {
		if o.has(now) {
			return true
		}
	}
	return false
}

// What a request can be about: a job by its number, or something else.
const (
	aboutStray    = 1 << 42
	aProcess      = 1 << 41
	aMessage      = 1 << 40
	aboutWhatBits = aMessage - 1
)

func aboutJob(n int) uint64          { return uint64(n) }
func aboutMessage(m int) uint64      { return aMessage | uint64(m) }
func aboutProcess(p *process) uint64 { return aProcess | uint64(p.id) }

func aboutID(id string) uint64 {
	if n, ok := jobNumber(id); ok {
		return aboutJob(n)
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	return aboutStray | uint64(h.Sum32())
}

// number returns the number of an id in the ledger. Those that are of no job of the day are given the numbers after it.
func (s *sim) number(id string) int {
	if n, ok := jobNumber(id); ok {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.numbers[id]; ok {
		return n
	}
	s.numbers[id] = s.cfg.Jobs + len(s.others)
	s.others = append(s.others, id)
	s.objects = append(s.objects, object{})
	s.bucket.records = append(s.bucket.records, record{})
	s.audit.truth = append(s.audit.truth, truth{last: -1})
	return s.cfg.Jobs + len(s.others) - 1
}

func (s *sim) id(n int) string {
	if n < s.cfg.Jobs {
		return jobID(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.others[n-s.cfg.Jobs]
}

// countRequest returns how many requests there were before about the same thing. The caller holds mu.
func (s *sim) countRequest(about uint64) (n uint64) {
	i := about & aboutWhatBits
	switch {
	case about < aMessage:
		t := &s.audit.truth[i]
		t.requests++
		return uint64(t.requests)
	case about&aProcess != 0:
		p := s.processes[i]
		p.life.requests++
		return p.life.requests
	}
	s.strays++
	return s.strays
}

func (s *sim) nameOf(id int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.processes[id].name
}

// processNamed is the process of a worker's id, which ends in the process's number.
func (s *sim) processNamed(name string) *process {
	id, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || id >= len(s.processes) {
		return nil
	}
	return s.processes[id]
}

// live runs the day and the calm after it.
func (s *sim) live() {
	var slots, producers sync.WaitGroup
	for slot := range s.cfg.Workers {
		slots.Go(func() { s.supervise(slot) })
	}
	for _, publish := range s.producers() {
		producers.Go(publish)
	}
	s.watchOutages()
	for s.now() < s.cfg.day()+s.cfg.drain() {
		s.sampleHeap()
		s.watchQuotas()
		time.Sleep(sampleEvery)
		s.mu.Lock()
		s.tellProgress()
		rest := s.now() >= s.cfg.day() && s.queue.unsettled == 0 && s.queue.resending == 0 || s.audit.enough
		s.mu.Unlock()
		if rest {
			break
		}
	}
	producers.Wait()
	close(s.calm)
	slots.Wait()
	s.books.Virtual = s.now()
	s.books.Processes = len(s.processes)
	s.books.Messages = len(s.queue.messages)
	for i, q := range s.quotas {
		q.books.Lane = s.endpoints[i].lane.Name
		s.books.Quotas = append(s.books.Quotas, q.books)
	}
}

// tellProgress tells of an hour that is over. The caller holds mu.
func (s *sim) tellProgress() {
	if hour := int(s.now() / time.Hour); hour > s.told && s.cfg.Progress != nil {
		s.told = hour
		s.cfg.Progress(hour, len(s.queue.messages)-s.queue.unsettled, len(s.queue.messages))
	}
}

// watchOutages does what happens at the edges of the queue's outages: leases can't be extended, and at the end what waits is delivered.
func (s *sim) watchOutages() {
	for _, o := range s.plan.outages[svcQueue] {
		time.AfterFunc(o.from, func() {
			s.mu.Lock()
			all := slices.Clone(s.processes)
			s.mu.Unlock()
			for _, p := range all {
				s.queue.lapse(p, false)
			}
		})
		time.AfterFunc(o.to, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range s.queue.subs {
				s.queue.hand(&s.queue.subs[i])
			}
		})
	}
}

// supervise keeps one slot's process running, and does to it what the plan says, until the calm is over.
func (s *sim) supervise(slot int) {
	events := s.plan.slots[slot]
	for {
		p := s.newProcess(slot)
		p.run()
		events = s.attend(p, events)
		select {
		case <-s.calm:
			return
		case <-time.After(s.dice.between(saltRestart, uint64(p.id), 0, 5*time.Second, 90*time.Second)):
		}
	}
}

// attend lets events happen to a process until it has ended, and returns the events that are left.
func (s *sim) attend(p *process, events []event) []event {
	for {
		var next <-chan time.Time
		if len(events) > 0 {
			next = time.After(events[0].at - s.now())
		}
		select {
		case err := <-p.ended:
			s.buryProcess(p, err)
			return events
		case <-next:
			p.suffer(events[0])
			events = events[1:]
		case <-s.calm:
			p.stop(false)
			s.buryProcess(p, <-p.ended)
			return nil
		}
	}
}

// suffer lets an event happen to the process.
func (p *process) suffer(e event) {
	s := p.sim
	switch e.kind {
	case Kill:
		if !p.dead() {
			p.kill()
		}
	case Freeze:
		p.freeze(e.span)
	case Stop:
		s.mu.Lock()
		already := p.life.stopping
		s.books.Stops++
		s.mu.Unlock()
		if !already {
			p.stop(e.hard)
		}
	case Partition:
		s.mu.Lock()
		p.partitions = append(p.partitions, partition{e.svc, span{s.now(), s.now() + e.span}})
		s.mu.Unlock()
		if e.svc == svcQueue {
			s.queue.lapse(p, false)
		}
	case Denied:
		s.mu.Lock()
		p.deniedUntil = time.Now().Add(e.span)
		s.mu.Unlock()
	}
}

// buryProcess looks at what an ended process left behind. One that was not killed must have released every image.
func (s *sim) buryProcess(p *process, err error) {
	if p.dead() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	whole, held := p.budget.Reserve(ctx, s.cfg.budgetBytes(), s.cfg.budgetBytes())
	whole.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.books.Halts++
		s.cfg.Log.Warn("a process stopped by itself", zap.String("worker", p.name), zap.Error(err))
	}
	if held != nil {
		s.audit.violate(bounded, "%s ended and did not release its images", p.name)
	}
	if p.life.permits != 0 {
		s.audit.violate(bounded, "%s ended and did not give back %d permits", p.name, p.life.permits)
	}
	for _, status := range p.lanes.Snapshot() {
		if status.InFlight != 0 && p.life.permits == 0 {
			s.audit.violate(bounded, "%s ended, and its lane %s has %d calls in flight", p.name, status.Lane.Name, status.InFlight)
		}
	}
}

// producers returns those who publish.
func (s *sim) producers() []func() {
	all := []func(){s.publishSteadily}
	for i := range s.plan.uploads {
		u := s.plan.uploads[i]
		all = append(all, func() { s.upload(u, u.at) })
		if u.again != 0 {
			all = append(all, func() { s.upload(u, u.again) })
		}
	}
	return all
}

func (s *sim) publishSteadily() {
	for n := range s.plan.uploads[0].from {
		if wait := s.steadyAt(n) - s.now(); wait > 0 {
			time.Sleep(wait)
		}
		s.publish(n)
		if s.may(BadMessage) && s.dice.roll(saltPublish, uint64(n), 1) < 0.002 {
			s.publishBad(n)
		}
	}
}

// publishBad publishes a message that is no valid job.
func (s *sim) publishBad(n int) {
	switch s.dice.bits(saltPublish, uint64(n), 2) % 3 {
	case 0:
		s.queue.publish(junk, topicOf(s.mode(n)), n)
	case 1:
		s.queue.publish(invalid, topicOf(s.mode(n)), n)
	default:
		// Only once the first has ended does anybody know which of the two is the job.
		s.mu.Lock()
		ended := s.bucket.records[n/2].state == done
		s.mu.Unlock()
		if ended {
			s.queue.publish(conflict, topicOf(s.mode(n/2)), n/2)
		}
	}
}

// uploadChunk is how many jobs of a file are published at once.
const uploadChunk = 500

func (s *sim) upload(u upload, at time.Duration) {
	time.Sleep(at - s.now())
	for n := u.from; n < u.to; n++ {
		s.publish(n)
		if (n-u.from)%uploadChunk == uploadChunk-1 {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// publish publishes a job, and at times again, as a producer does that lost the answer.
func (s *sim) publish(n int) {
	s.queue.publish(valid, topicOf(s.mode(n)), n)
	if s.may(DuplicatePublish) && s.dice.roll(saltPublish, uint64(n), 3) < 0.005 {
		again := s.dice.between(saltPublish, uint64(n), 4, 0, min(2*time.Hour, s.cfg.day()-s.now()))
		time.AfterFunc(again, func() { s.queue.publish(valid, topicOf(s.mode(n)), n) })
	}
}

// sampleHeap notes the heap's size, if it is the largest so far.
func (s *sim) sampleHeap() {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	s.books.PeakHeap = max(s.books.PeakHeap, sample[0].Value.Uint64())
}
