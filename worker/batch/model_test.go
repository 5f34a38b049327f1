package batch_test

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

var (
	seeds = flag.Int("seeds", 20, "worlds of TestModel")
	seed  = flag.Uint64("seed", 0, "the only world of TestModel, if it is not 0")
)

// TestModel lets workers that are killed at any call of a port, restarted, and lied to work through some jobs, in many worlds. In the end
// every job has ended once, with its own image, and nothing was made twice without a cause.
func TestModel(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		runModel(t, *seed)
		return
	}
	n := *seeds
	if testing.Short() {
		n /= 10
	}
	for s := range n {
		t.Run(fmt.Sprint(s+1), func(t *testing.T) {
			t.Parallel()
			runModel(t, uint64(s+1))
		})
	}
}

func runModel(t *testing.T, seed uint64) {
	inWorld(t, func(_ *testing.T, w *world) { newModel(w, seed).play() })
}

// model is a world in which everything goes wrong until the evening.
type model struct {
	*world
	rng     *rand.Rand // of the test's own goroutine
	seed    uint64
	evening time.Time
	prompts map[string]string // by job
	jobs    map[string][]string
	checker batch.Ledger
	rates   rates

	mu      sync.Mutex
	rows    map[string]int // how often a prompt's row was decided
	good    map[string]int // readable answers of batches that were no copies, by prompt
	tries   map[string]int // of calls of ports
	ids     []string       // of batches
	cancels int
}

// rates are how often what goes wrong.
type rates struct {
	kill, fail, lostAck     float64
	noLabels, equal, owner  float64
	rowTrouble, planTrouble float64
}

func newModel(w *world, seed uint64) *model {
	m := &model{
		world: w, rng: rand.New(rand.NewPCG(seed, 0)), seed: seed, evening: time.Now().Add(12 * time.Hour), prompts: map[string]string{}, jobs: map[string][]string{},
		checker: w.ledger.Open("checker", nil), rows: map[string]int{}, good: map[string]int{}, tries: map[string]int{},
	}
	some := func(rate float64) float64 { // in some worlds never
		if m.rng.IntN(3) == 0 {
			return 0
		}
		return rate * 2 * m.rng.Float64()
	}
	m.rates = rates{
		kill: some(0.01), fail: some(0.02), lostAck: some(0.1), noLabels: some(0.2), equal: some(0.3), owner: some(0.3), rowTrouble: some(0.4), planTrouble: some(0.4),
	}
	if m.rng.IntN(8) == 0 {
		m.rates.noLabels = 1
	}
	w.gather.Rows = 5 + m.rng.IntN(30)
	w.run.RangeBytes = int64(300 + m.rng.IntN(3000))
	w.run.QueueTime = 2 * time.Hour
	w.backoff = time.Duration(1+m.rng.IntN(300)) * time.Second
	w.run.Concurrency = 1 + m.rng.IntN(8)
	w.run.Spill = []batch.Then{batch.ThenOnline, batch.ThenBatch}[m.rng.IntN(2)]
	w.vertex.Seed = seed
	w.vertex.Lag = time.Duration(m.rng.IntN(5)) * time.Minute
	w.vertex.Plan, w.vertex.Row, w.vertex.Created, w.vertex.Exported = m.plan, m.row, m.created, m.exported
	return m
}

// chance is a number from 0 to 1 that depends on what it is about alone.
func (m *model) chance(about ...any) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, m.seed, about)
	return rand.New(rand.NewPCG(h.Sum64(), 1)).Float64()
}

func (m *model) day() bool { return time.Now().Before(m.evening) }

// fault decides what goes wrong with a call of a worker's port.
func (m *model) fault(id string) func(op, subject string, n int) fault {
	return func(op, subject string, n int) fault {
		if !m.day() {
			return fine
		}
		m.mu.Lock()
		m.tries[op+subject]++
		try := m.tries[op+subject]
		m.mu.Unlock()
		if op == "ack" {
			if m.chance("ack", subject, try) < m.rates.lostAck {
				return failAfter
			}
			return fine
		}
		switch c := m.chance(op, subject, try); {
		case c < m.rates.kill/2:
			return killBefore
		case c < m.rates.kill:
			return killAfter
		}
		switch op {
		case "generation", "attempt", "batch", "result", "publish again", "hand off", "create", "find job", "get job", "cancel job":
		default:
			return fine // these try again by themselves, and know their own writes
		}
		switch c := m.chance("fail", op, subject, try); {
		case c < m.rates.fail/2:
			return failBefore
		case c < m.rates.fail:
			return failAfter
		}
		return fine
	}
}

func (m *model) plan(id string, n int) batchtest.Plan {
	m.mu.Lock()
	m.ids = append(m.ids, id)
	k := len(m.ids)
	m.mu.Unlock()
	p := batchtest.Plan{Shards: 1 + int(3*m.chance("shards", k)), NoFolder: m.chance("folder", k) < 0.2, Part: m.chance("part", k), Run: time.Duration(float64(time.Hour) * m.chance("run", k))}
	if m.day() && m.chance("plan", k) < m.rates.planTrouble {
		switch int(6 * m.chance("which plan", k)) {
		case 0:
			p.Queue = -1
		case 1:
			p.End, p.Error = worker.BatchFailed, "internal error"
		case 2:
			p.End = worker.BatchPartly
		case 3:
			p.End = worker.BatchExpired
		case 4:
			p.End = worker.BatchCancelled
		case 5:
			p.Run = -1
		}
	}
	return p
}

func (m *model) row(r batchtest.Request) batchtest.Row {
	m.mu.Lock()
	m.rows[r.Prompt]++
	k := m.rows[r.Prompt]
	m.mu.Unlock()
	row := batchtest.Row{NoLabels: m.chance("labels", r.Prompt, k) < m.rates.noLabels}
	if !m.day() || m.chance("row", r.Prompt, k) >= m.rates.rowTrouble {
		return row
	}
	switch int(14 * m.chance("which row", r.Prompt, k)) {
	case 0, 1:
		row.Missing = true
	case 2, 3:
		row.Copies = 1 + int(4*m.chance("copies", r.Prompt, k))
	case 4:
		row.Status = "failing: Internal"
	case 5:
		row.Status = "throttled: RESOURCE_EXHAUSTED"
	case 6:
		row.Status = "rejected: Bad Request"
	case 7:
		row.Reason = jobs.ReasonPromptFilter
	case 8:
		row.Reason = jobs.ReasonBadAnswer
	case 9:
		row.Labels = fmt.Sprintf("%06d", int(40*m.chance("label", r.Prompt, k)))
	case 10:
		row.Damage = batchtest.Damage(1 + int(4*m.chance("damage", r.Prompt, k)))
	case 11:
		row.Orphan = true
	case 12:
		row.NoUsage = true
	case 13:
		row.Copies, row.Damage = 1, batchtest.Cut
	}
	return row
}

// created checks that no row is in two jobs at a time, and none whose job has ended.
func (m *model) created(id string, rows []batchtest.Request, live map[string]int) {
	for _, r := range rows {
		open := 0
		for _, job := range m.jobs[r.Prompt] {
			if _, ended, _ := m.checker.Look(context.Background(), job); !ended {
				open++
			}
		}
		if live[r.Prompt] > open {
			m.t.Errorf("batch %s: %q is in Vertex jobs %d times; %d jobs that ask for it have not ended", id, r.Prompt, live[r.Prompt], open)
		}
	}
}

func (m *model) exported(_ string, r batchtest.Request, copy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !copy {
		m.good[r.Prompt]++
	}
}

// play lets the workers work until the evening, and one worker more until nothing is left.
func (m *model) play() {
	for i := range 20 + m.rng.IntN(60) {
		id, prompt := fmt.Sprintf("job-%d", i), fmt.Sprintf("prompt %d.", i)
		if m.rng.Float64() < m.rates.equal {
			prompt = fmt.Sprintf("prompt %d.", m.rng.IntN(i+1))
		}
		m.prompts[id], m.jobs[prompt] = prompt, append(m.jobs[prompt], id)
	}
	m.world.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("again: go test -run TestModel -seed %d", m.seed)
		}
	})
	for id, prompt := range m.prompts {
		m.publish(id, prompt, "")
		if m.rng.IntN(20) == 0 {
			m.publish(id, prompt, "") // twice
		}
	}
	running := make([]*process, 1+m.rng.IntN(3))
	started := 0
	for m.day() && !m.idle() {
		for i, p := range running {
			stop := p != nil && !p.dead.Load() && m.rng.IntN(60) == 0
			if stop {
				p.halt()
			}
			if p == nil || p.dead.Load() || stop {
				started++
				id := fmt.Sprintf("w%d", started)
				running[i] = m.start(id, m.fault(id))
			}
		}
		m.cancelOne()
		time.Sleep(time.Duration(1+m.rng.IntN(300)) * time.Second)
	}
	for _, p := range running {
		p.kill()
		p.over.Wait()
	}
	last := m.start("last", nil)
	m.settle(7 * 24 * time.Hour)
	last.halt()
	m.check()
}

// cancelOne has the owner of a batch change their mind.
func (m *model) cancelOne() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancels == len(m.ids) {
		return
	}
	id := m.ids[m.cancels]
	m.cancels++
	if m.rng.Float64() < m.rates.owner {
		then := []batch.Then{batch.ThenOnline, batch.ThenBatch, batch.ThenDrop}[m.rng.IntN(3)]
		if err := batch.Cancel(context.Background(), m.files, id, then); err != nil {
			m.t.Error(err)
		}
	}
}

func (m *model) check() {
	m.books(m.prompts)
	used := map[string]string{}
	for name, o := range m.assets.Objects() {
		if other, twice := used[string(o.Content)]; twice {
			m.t.Errorf("%s and %s have one image: %q", name, other, o.Content)
		}
		used[string(o.Content)] = name
	}
	for prompt, ids := range m.jobs {
		if m.good[prompt] > len(ids) {
			m.t.Errorf("%q: %d answers for %d jobs", prompt, m.good[prompt], len(ids))
		}
	}
	if n := len(m.queue.Batch.Dead()) + len(m.queue.Online.Dead()) + len(m.queue.Handoffs.Dead()); n > 0 {
		m.t.Errorf("%d dead letters", n)
	}
	closed := map[string]bool{}
	for _, r := range m.closed() {
		closed[r.GetBatchId()] = true
	}
	for _, id := range m.ids {
		if !closed[id] {
			m.t.Errorf("batch %s is not closed", id)
		}
	}
	announced := map[string]bool{}
	for _, e := range m.results.Events() {
		announced[e.GetJobId()] = true
	}
	attempts := map[string]map[string]bool{}
	for _, a := range m.lineage.Attempts() {
		if attempts[a.GetJobId()] == nil {
			attempts[a.GetJobId()] = map[string]bool{}
		}
		attempts[a.GetJobId()][a.GetAttemptId()] = true
	}
	for id := range m.prompts {
		if !announced[id] {
			m.t.Errorf("job %s: its end was not announced", id)
		}
		if want := int(m.world.row(id).GetAttempts()); len(attempts[id]) != want {
			m.t.Errorf("job %s: %d attempts are recorded, the row says %d", id, len(attempts[id]), want)
		}
	}
}
