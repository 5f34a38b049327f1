package pacesim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

var contendedFile = flag.String("contended", "", "play the contended scenarios, which takes minutes, and write their tables to this file")

var contendedShares = []float64{0.01, 0.02, 0.05, 0.10}

// contendedSeeds is how often each contended scenario is played: what is learned of
// throttles that come by chance depends on chance.
const contendedSeeds = 3

func TestContendedTable(t *testing.T) {
	if *contendedFile == "" {
		t.Skip("plays the contended scenarios only with -contended FILE")
	}
	quotas := []float64{600, 3000, 15000}
	rows := make([]string, len(contendedShares)*len(quotas)*len(tableWorkers))
	var wg sync.WaitGroup
	for part := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := part; i < len(rows); i += runtime.GOMAXPROCS(0) {
				n := tableWorkers[i%len(tableWorkers)]
				q := quotas[i/len(tableWorkers)%len(quotas)]
				p := contendedShares[i/len(tableWorkers)/len(quotas)]
				rows[i] = contendedText(Contended(n, q, p))
			}
		})
	}
	wg.Wait()
	var text strings.Builder
	for i, row := range rows {
		if i%(len(tableWorkers)*len(quotas)) == 0 {
			fmt.Fprintf(&text, "\n**%g %% throttled whatever the rate**\n\n| quota | 1 | 5 | 20 | 100 |\n|---|---|---|---|---|\n", 100*contendedShares[i/len(tableWorkers)/len(quotas)])
		}
		if i%len(tableWorkers) == 0 {
			fmt.Fprintf(&text, "| %g |", quotas[i/len(tableWorkers)%len(quotas)])
		}
		fmt.Fprintf(&text, " %s |", row)
		if i%len(tableWorkers) == len(tableWorkers)-1 {
			fmt.Fprintln(&text)
		}
	}
	if err := os.WriteFile(*contendedFile, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// contendedText plays a scenario several times. Its text is the share of the quota that was used, mean and least, the
// mean share of calls that were throttled, and the longest time to settle.
func contendedText(sc Scenario) string {
	used, throttled, least, settled := 0.0, 0.0, 1.0, time.Duration(0)
	for seed := range uint64(contendedSeeds) {
		r := Run(sc, Ours(), seed+1)
		used += r.Used() / contendedSeeds
		throttled += r.SteadyThrottled() / contendedSeeds
		least, settled = min(least, r.Used()), max(settled, r.Settled())
	}
	return fmt.Sprintf("%.0f (%.0f) / %.1f / %s", 100*used, 100*least, 100*throttled, settledText(settled))
}

// Contention throttles its share of the calls, whatever the rate, and takes no quota.
func TestServiceIsContended(t *testing.T) {
	t.Parallel()
	for _, share := range contendedShares {
		for _, interval := range []time.Duration{120 * time.Millisecond, time.Second} { // the quota is one call in 100 ms
			sc := Contended(1, 600, share)
			s := newService(&sc, 1)
			const calls = 20000
			refused := 0.0
			for i := range calls {
				if !s.take(time.Duration(i) * interval) {
					refused++
				}
			}
			if got := refused / calls; got < 0.9*share-0.001 || got > 1.1*share+0.001 {
				t.Errorf("%g of the calls throttled every %v, want %g", got, interval, share)
			}
		}
	}
	sc := Contended(1, 600, 0.1)
	s := newService(&sc, 1)
	taken := 0.0
	for i := range 6000 { // twice the quota, for five minutes
		if s.take(time.Duration(i) * 50 * time.Millisecond) {
			taken++
		}
	}
	if taken < 2950 || taken > 3005 {
		t.Errorf("%.0f calls were taken of a quota of 3,000", taken)
	}
}
