package workertest

import (
	"fmt"
	"strings"
	"testing"
)

// Each invariant has something broken on purpose that its checker must report. A checker that can't fail checks nothing.
func TestTheCheckersCanFail(t *testing.T) {
	const calm = AllFaults &^ (Kill | Freeze | Stop | Partition | Denied | Outage)
	for _, c := range []struct {
		broken    sabotage
		faults    Faults
		invariant string
		says      string
	}{
		{droppingQueue, calm, conservation, "vanished"},
		{rewriter, AllFaults, conservation, "two rows that differ"},
		{unfencedFinish, AllFaults, conservation, "was overwritten"},
		{unfencedFinish, AllFaults, payOnce, "without holding it"},
		{generousLedger, AllFaults, payOnce, "which is claimed by"},
		{hastyLedger, calm, payOnce, "which had given a sign of life"},
		{staleLook, AllFaults, payOnce, "which had given a sign of life"},
		{yesSayer, AllFaults, payOnce, "was told that it holds"},
		{shortMemory, AllFaults, payOnce, "was told that it holds"},
		{lostTakeOver, AllFaults &^ UselessAnswer, payOnce, "although the image that a dead worker stored is there"},
		{blindFinder, AllFaults, payOnce, "although the image that a dead worker stored is there"},
		{amnesia, calm, payOnce, "which is done by"},
		{eagerQueue, calm, ackLast, "before its end was in the ledger"},
		{leakyLineage, calm, ackLast, "before its row was durable"},
		{silentResults, calm, ackLast, "before its end was announced"},
		{mixer, calm, rightRow, "is stored an image of"},
		{overwriter, AllFaults, firstWrite, "was overwritten"},
		{mixedChecksums, AllFaults, firstWrite, "and stored is"},
		{greedyQueue, calm, bounded, "calls in flight, with room for"},
		{boundlessImages, calm | Outage, bounded, "bytes of images, of at most"},
		{forgottenDeaths, Kill | Freeze, bounded, "call number"},
		{forgetfulLedger, AllFaults, bounded, "call number"},
		{leakyWorker, calm, bounded, "did not release its images"},
		{damager, calm, verbatim, "no answer that the model gave"},
		{deafControls, calm, controlled, "was cancelled"},
	} {
		t.Run(string(c.broken)+"/"+c.invariant, func(t *testing.T) {
			t.Parallel()
			var reports []string
			for seed := range uint64(200) {
				cfg := short(seed)
				cfg.Faults, cfg.sabotage = c.faults, c.broken
				switch c.broken {
				case greedyQueue, boundlessImages:
					cfg.Jobs, cfg.Hours, cfg.Workers = 1200, 1, 2
				case forgetfulLedger, forgottenDeaths, lostTakeOver:
					cfg.harsh = true
				}
				_, err := Run(t, cfg)
				if err == nil {
					continue
				}
				for _, line := range strings.Split(err.Error(), "\n") {
					if strings.Contains(line, c.invariant) && strings.Contains(line, c.says) {
						t.Logf("seed %d: %s", seed, strings.TrimSpace(line))
						return
					}
				}
				reports = append(reports, fmt.Sprint("seed ", seed, ": ", err))
			}
			t.Errorf("nobody noticed that %s; what was reported instead: %s", c.broken, strings.Join(reports[:min(2, len(reports))], "\n"))
		})
	}
}

// What makes a sabotage show soon is no reason for a report by itself.
func TestAHarshDayIsNoViolation(t *testing.T) {
	for seed := range uint64(6) {
		cfg := short(seed)
		cfg.Faults, cfg.harsh = AllFaults, true
		if books, err := Run(t, cfg); err != nil {
			books.Print(t.Output())
			t.Error(err)
		}
	}
}
