package workertest

import (
	"fmt"
	"slices"
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
		{staleLook, Freeze | DuplicateDeliver, payOnce, "which had given a sign of life"},
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
		{mixedChecksums, BatchRows | SlowAnswer, firstWrite, "and stored is"},
		{greedyQueue, calm, bounded, "messages in hand, with room for"},
		{boundlessImages, calm | Outage, bounded, "bytes of images, of at most"},
		{forgottenDeaths, Kill | Freeze, bounded, "call number"},
		{forgetfulLedger, AllFaults, bounded, "call number"},
		{leakyWorker, calm, bounded, "did not release its images"},
		{damager, calm, verbatim, "no answer that the model gave"},
		{deafControls, calm, controlled, "was cancelled"},
		{deafControls, calm, controlled, "is paused"},
		{roamingLanes, calm, residency, "which must stay in"},
		{oneBucket, calm, residency, "is stored in"},
		{leakyPermits, calm, bounded, "did not give back"},
		{restlessLanes, calm, bounded, "which asked for a pause"},
		{blindToWritten, AllFaults, payOnce, "an image of it was in the bucket"},
		{lostHandoffs, calm, conservation, "is still gathered"},
		{carelessTakeOver, AllFaults, payOnce, "which is not void"},
		{unfencedSeal, AllFaults, payOnce, "sealed b-"},
		{blindFind, LostAnswer, payOnce, "created a second job for"},
		{trustingMatch, calm, rightRow, "is stored an image of"},
		{roamingBatches, calm, residency, "which must stay in"},
		{hastySeal, calm, ackLast, "before its batch was sealed"},
		{lateHandoffs, calm, conservation, "before its hand-off was published"},
		{lostFiles, calm, conservation, "which has no files"},
		{skippedLines, calm, conservation, "lines of b-"},
		{hiddenOutput, calm, payOnce, "was paid and answered for"},
		{lostRepublish, calm, conservation, "vanished"},
		{hastyRelease, calm, conservation, "was closed while it held"},
		// Only the lines of a batch's output can end a job twice here.
		{unfencedFinish, BatchRows, conservation, "was overwritten"},
		{overwriter, BatchRows, firstWrite, "was overwritten"},
	} {
		t.Run(string(c.broken)+"/"+c.invariant, func(t *testing.T) {
			t.Parallel()
			if raced && !slices.Contains(sample, c.broken) {
				t.Skip("run without the race detector, which has seen enough")
			}
			var reports []string
			for i := range uint64(200) {
				seed := promising[c.says] + i
				cfg := short(seed)
				cfg.Faults, cfg.sabotage, cfg.until = c.faults, c.broken, c.says
				hasten(&cfg)
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

// sample is what is broken when the race detector looks on, too: something for each invariant, and some of what batches rest on. All of them would
// take minutes.
var sample = []sabotage{
	droppingQueue, unfencedFinish, eagerQueue, mixer, overwriter, greedyQueue, roamingLanes, damager, deafControls,
	hastySeal, lateHandoffs, hiddenOutput, hastyRelease, trustingMatch,
}

// promising are first seeds to try, where the usual ones take long, by what is to be reported.
var promising = map[string]uint64{
	"is paused": 17, "was cancelled": 5, "call number": 2,
}

// hasten makes a day on which what is broken shows soon.
func hasten(cfg *Config) {
	switch cfg.sabotage {
	case greedyQueue, boundlessImages:
		cfg.Jobs, cfg.Hours, cfg.Workers = 1200, 1, 2
	case forgetfulLedger, forgottenDeaths, lostTakeOver, shortMemory, staleLook:
		cfg.harsh, cfg.Batch = true, 0
	case blindFind, mixedChecksums:
		cfg.harsh, cfg.Batch = true, 1
	case deafControls:
		cfg.Batch = 0
	case lostHandoffs, carelessTakeOver, unfencedSeal, trustingMatch, roamingBatches, hastySeal, lateHandoffs, lostFiles, skippedLines, hiddenOutput,
		lostRepublish, hastyRelease:
		cfg.Batch = 1
	}
	if cfg.Faults&^SlowAnswer == BatchRows {
		cfg.Batch = 1
	}
}

// What makes a sabotage show soon is no reason for a report by itself.
func TestAHarshDayIsNoViolation(t *testing.T) {
	for seed := range uint64(defaultSeeds / 4) {
		cfg := short(seed)
		cfg.Faults, cfg.harsh = AllFaults, true
		if books, err := Run(t, cfg); err != nil {
			books.Print(t.Output())
			t.Error(err)
		}
	}
}
