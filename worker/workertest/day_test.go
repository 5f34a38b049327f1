package workertest

import (
	"flag"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/worker"
)

var (
	seeds       = flag.Int("day.seeds", defaultSeeds, "short days to simulate, one for each seed")
	seed        = flag.Uint64("day.seed", 1, "seed of the day, or the first one of short days")
	dayJobs     = flag.Int("day.jobs", 0, "jobs of the whole day; 0: the whole day is not simulated")
	dayHours    = flag.Int("day.hours", 24, "hours of the whole day")
	dayWorkers  = flag.Int("day.workers", 20, "workers of the whole day")
	concurrency = flag.Int("day.concurrency", 64, "messages that each worker handles at a time on the whole day")
	harsh       = flag.Bool("day.harsh", false, "make the short days harsher than any real one")
	dayBatch    = flag.Float64("day.batch", 0.5, "share of the whole day's jobs that are of mode batch")
	dayLog      = flag.Bool("day.log", false, "print the workers' log; the clock is virtual")
	dayFaults   = flag.Uint("day.faults", uint(AllFaults), "kinds of faults of the whole day, as a number")
)

// logger prints what workers log, if it is wanted.
func logger() *zap.Logger {
	if !*dayLog {
		return zap.NewNop()
	}
	c := zap.NewDevelopmentConfig()
	c.DisableCaller, c.DisableStacktrace = true, true
	return zap.Must(c.Build())
}

func short(seed uint64) Config {
	// A quarter of the days have no batches, and a quarter nothing else.
	batch := []float64{0, 0.3, 0.6, 1}[seed%4]
	return Config{Seed: seed, Jobs: 300, Hours: 2, Workers: 4, Concurrency: 8, Faults: Swarm(seed), Batch: batch, Log: logger()}
}

// Many short days, each with other kinds of faults.
func TestShortDays(t *testing.T) {
	for i := range *seeds {
		cfg := short(*seed + uint64(i))
		cfg.harsh = *harsh
		t.Run(fmt.Sprint("seed=", cfg.Seed), func(t *testing.T) {
			t.Parallel()
			books, err := Run(t, cfg)
			if err != nil {
				books.Print(t.Output())
				t.Fatal(err)
			}
		})
	}
}

// The whole day, when flags ask for it: make simulate.
func TestTheDay(t *testing.T) {
	if *dayJobs == 0 {
		t.Skip("run it with: make simulate")
	}
	cfg := Config{
		Seed: *seed, Jobs: *dayJobs, Hours: *dayHours, Workers: *dayWorkers, Concurrency: *concurrency, Faults: Faults(*dayFaults), Batch: *dayBatch, Log: logger(),
		Progress: func(hour, settled, accepted int) {
			fmt.Printf("hour %2d: %d of %d messages settled\n", hour, settled, accepted)
		},
	}
	books, err := Run(t, cfg)
	books.Print(os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
}

// The simulated ledger and bucket pass the suites of the real ones.
func TestSimulatedPortsKeepTheirContracts(t *testing.T) {
	world := func() *sim { return newSim(Config{Jobs: 100, Hours: 1, Workers: 1, Concurrency: 8}) }
	t.Run("ledger", func(t *testing.T) {
		s, opened := world(), map[string]*process{}
		var mu sync.Mutex
		LedgerSuite(t, func(t *testing.T, id string) worker.Ledger {
			mu.Lock()
			defer mu.Unlock()
			if opened[id] == nil {
				opened[id] = s.newProcess(len(opened))
			}
			return Alive(t, newLedgerPort(opened[id]))
		})
	})
	t.Run("assets", func(t *testing.T) {
		p := world().newProcess(0)
		AssetsSuite(t, func(*testing.T) worker.Assets { return assets{p} })
	})
}

// Without kills, freezes, stops and unclear answers nothing is paid twice, whatever else breaks.
func TestNothingIsPaidTwiceWithoutACause(t *testing.T) {
	const harmless = AllFaults &^ (Kill | Freeze | Stop | Partition | Denied | Outage | Hang | Truncate | UselessAnswer | BatchRows)
	for i := range uint64(defaultSeeds / 4) {
		cfg := short(100 + i)
		cfg.Faults = harmless
		books, err := Run(t, cfg)
		if err != nil {
			t.Error(err)
		}
		// Three signs of life in a row may fail by chance.
		if n := books.Doubled() - books.PaidTwice[BySilence]; n != 0 || books.Jobs != cfg.Jobs || books.Redelivered == 0 {
			books.Print(t.Output())
			t.Errorf("seed %d: %d calls were paid twice, %d jobs of %d ended", cfg.Seed, n, books.Jobs, cfg.Jobs)
		}
	}
}

func TestTheSwarmSwitchesFaultsOff(t *testing.T) {
	var ever, always Faults = 0, AllFaults
	for seed := range uint64(100) {
		ever, always = ever|Swarm(seed), always&Swarm(seed)
	}
	if ever != AllFaults || always != 0 {
		t.Errorf("over 100 seeds, these faults happened: %s; and these always: %s", ever, always)
	}
	if len(faultNames) != bits.OnesCount(uint(AllFaults)) {
		t.Errorf("%d names for %d faults", len(faultNames), bits.OnesCount(uint(AllFaults)))
	}
}
