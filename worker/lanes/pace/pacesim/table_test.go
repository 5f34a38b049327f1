package pacesim

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	tableFile = flag.String("table", "", "play all scenarios with all algorithms, which takes minutes, and write the tables of docs/pacing.md to this file")
	tableOnly = flag.String("only", "", "names of the algorithms to play, separated by commas; all if empty")
)

var (
	tableWorkers = []int{1, 5, 20, 100}
	tableQuotas  = []float64{5, 60, 600, 3000, 15000}
)

// wide is the quota in calls a minute for each worker from which the targets can
// be met by workers that do not know of each other: see docs/pacing.md.
const wide = 150

// narrow is the quota in calls a minute below which they can't be met, whoever calls.
const narrow = 600

// cell is one scenario of the table.
type cell struct {
	kind    Kind
	workers int
	quota   float64
}

func (c cell) wide() bool     { return c.quota >= narrow && c.quota >= wide*float64(c.workers) }
func (c cell) middling() bool { return c.quota >= narrow && !c.wide() }

func cells() []cell {
	var all []cell
	for _, k := range Kinds() {
		for _, q := range tableQuotas {
			for _, n := range tableWorkers {
				all = append(all, cell{k, n, q})
			}
		}
	}
	return all
}

// play runs all scenarios with one algorithm.
func play(alg Algorithm) []*Result {
	all := cells()
	results := make([]*Result, len(all))
	var wg sync.WaitGroup
	for part := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := part; i < len(all); i += runtime.GOMAXPROCS(0) {
				results[i] = Run(all[i].kind.New(all[i].workers, all[i].quota), alg, 1)
			}
		})
	}
	wg.Wait()
	return results
}

func TestTable(t *testing.T) {
	if *tableFile == "" {
		t.Skip("plays all scenarios only with -table FILE")
	}
	algorithms := slices.DeleteFunc(append([]Algorithm{Ours(), Apart()}, Rivals()...), func(a Algorithm) bool {
		return *tableOnly != "" && !slices.Contains(strings.Split(*tableOnly, ","), a.Name)
	})
	var text strings.Builder
	var summary [3][]string
	for i, alg := range algorithms {
		results := play(alg)
		if i == 0 {
			writeCells(&text, results)
		}
		summary[0] = append(summary[0], summaryRow(alg.Name, results, cell.wide))
		summary[1] = append(summary[1], summaryRow(alg.Name, results, cell.middling))
		summary[2] = append(summary[2], summaryRow(alg.Name, results, func(c cell) bool { return c.quota < narrow }))
	}
	for i, title := range []string{"At least 150 calls a minute for each worker", "Less, but 600 calls a minute or more", "60 and 5 calls a minute"} {
		fmt.Fprintf(&text, "\n%s:\n\n| | used, mean | throttled, mean | used >= 95 %% | throttled <= 2 %% | settled <= 60 s | max/min <= 1.2 |\n|---|---|---|---|---|---|---|\n%s", title, strings.Join(summary[i], ""))
	}
	writeUploads(&text, algorithms)
	if err := os.WriteFile(*tableFile, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// summaryRow counts the scenarios among those asked for that meet each target.
func summaryRow(name string, results []*Result, among func(cell) bool) string {
	var n, used, throttled, settled, spread int
	var sumUsed, sumThrottled float64
	for i, c := range cells() {
		if !among(c) {
			continue
		}
		r := results[i]
		n++
		sumUsed += r.Used()
		sumThrottled += r.SteadyThrottled()
		count := func(n *int, met bool) {
			if met {
				*n++
			}
		}
		maxMin, _ := r.Spread()
		count(&used, r.Used() >= 0.95)
		count(&throttled, r.SteadyThrottled() <= 0.02)
		count(&settled, r.Settled() <= time.Minute)
		count(&spread, maxMin <= 1.2)
	}
	of := func(k int) string { return fmt.Sprintf("%d of %d", k, n) }
	return fmt.Sprintf("| %s | %.1f %% | %.1f %% | %s | %s | %s | %s |\n", name, 100*sumUsed/float64(n), 100*sumThrottled/float64(n),
		of(used), of(throttled), of(settled), of(spread))
}

// writeCells writes a table for each kind: a row for each quota, a column for
// each number of workers.
func writeCells(text *strings.Builder, results []*Result) {
	i := 0
	for _, k := range Kinds() {
		fmt.Fprintf(text, "\n**%s**\n\n| quota |", k.Name)
		for _, n := range tableWorkers {
			fmt.Fprintf(text, " %d |", n)
		}
		fmt.Fprintf(text, "\n|---|%s\n", strings.Repeat("---|", len(tableWorkers)))
		for _, q := range tableQuotas {
			fmt.Fprintf(text, "| %g |", q)
			for range tableWorkers {
				fmt.Fprintf(text, " %s |", cellText(results[i]))
				i++
			}
			fmt.Fprintln(text)
		}
	}
}

// cellText is the share used, the share throttled, the time to settle and the
// spread between workers.
func cellText(r *Result) string {
	text := fmt.Sprintf("%.0f / %.1f / %s", 100*r.Used(), 100*r.SteadyThrottled(), settledText(r.Settled()))
	if maxMin, _ := r.Spread(); math.IsInf(maxMin, 1) {
		text += " / one starved"
	} else if maxMin > 1 {
		text += fmt.Sprintf(" / %.1f", maxMin)
	}
	return text
}

func settledText(d time.Duration) string {
	if d == Never {
		return "never"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func writeUploads(text *strings.Builder, algorithms []Algorithm) {
	fmt.Fprint(text, "\n| |")
	for _, u := range uploads() {
		fmt.Fprintf(text, " %s |", u.sc.Name)
	}
	fmt.Fprint(text, "\n|---|---|---|---|\n| ideal |")
	for _, u := range uploads() {
		fmt.Fprintf(text, " %.0f s and the last call |", u.ideal.Seconds())
	}
	fmt.Fprintln(text)
	for _, alg := range algorithms {
		fmt.Fprintf(text, "| %s |", alg.Name)
		for _, u := range uploads() {
			r := Run(u.sc, alg, 1)
			fmt.Fprintf(text, " %.0f s, %d throttled |", r.Last().Seconds(), r.Throttled())
		}
		fmt.Fprintln(text)
	}
}
