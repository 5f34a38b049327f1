package workertest

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// Books is the account of a simulated day, made up from what the services saw.
type Books struct {
	Seed   uint64
	Faults Faults

	Messages     int // published
	Jobs         int // accepted, each once
	BatchMode    int // of these, those of mode batch
	Outcomes     map[jobs.Outcome]int
	RowsRefused  int // jobs without a row, kept as dead letters
	Laneless     int // jobs that no lane serves, kept as dead letters
	TurnedAway   int // dead letters for want of a lane that others have; their owner sends them again
	Pending      int // messages that never came to rest: a violation
	DeadLetters  int // as often as they were published
	Rows         int // generation rows, as often as they were appended
	AttemptRows  int
	Events       int
	Stored       int // images
	Deliveries   int
	Redelivered  int
	LeasesLapsed int
	LostAcks     int
	Damaged      int // uploads refused for their checksum

	Paid             int // calls billed by the model
	Fates            [fates]int
	PaidTwice        [causes]int // paid calls that did not end their job, by cause
	PaidBesideStored int         // of the paid calls, those for a job whose image a frozen worker stored late
	LateCalls        int         // calls that began just after their job was lost
	Throttled        int
	Calls            []int // by lane, throttled ones too
	Quotas           []QuotaBooks
	Written          int              // images that models wrote themselves
	FoundWritten     int              // of these, those whose answer was lost and that were found instead of bought again
	LongestHold      time.Duration    // of a message in a process, outages included
	LongestWait      [2]time.Duration // of a job for its end, online and batch, pauses by its owner included

	Processes, Kills, CutByKills, Freezes, Stops, Halts int
	TakenOver                                           [causes]int
	CameBack                                            int // of these, from processes that came back just then
	Adopted, Fenced                                     int // as the workers count them

	Batches, BatchJobs, Voided int // sealed, their jobs, and batches that were never sealed
	VertexJobs                 int
	VertexEnds                 map[worker.BatchState]int
	BatchPaid                  int      // of the calls paid, rows of batches
	BatchRows                  int      // of the table of batches
	Table                      [8]int64 // sums of that table, for closed batches: done, refused, failed, requeued, missing, duplicated, orphans, damaged
	Foreigners, Republished    int

	CallPrice jobs.USD // of an image
	Virtual   time.Duration
	Wall      time.Duration
	PeakHeap  uint64 // bytes of live and not yet collected objects, sampled
}

// QuotaBooks is what became of one lane's hidden quota.
type QuotaBooks struct {
	Lane             string
	Asked, Throttled int     // calls that reached the quota
	Used, Wanted     float64 // calls taken while jobs had waited for the lane for a minute, and calls that it would have taken then
}

// String says how the quota was used.
func (q QuotaBooks) String() string {
	text := fmt.Sprintf("%.1f %% throttled", percent(float64(q.Throttled), float64(q.Asked)))
	if q.Wanted > 0 {
		text += fmt.Sprintf(", %.0f %% of %.0f calls used that it would have taken while jobs waited", percent(q.Used, q.Wanted), q.Wanted)
	}
	return text
}

// addBatch adds up the table of batches.
func (b *Books) addBatch(row *schemas.BatchRow) {
	for i, n := range []int64{
		row.GetDone(), row.GetRefused(), row.GetFailed(), row.GetRequeued(), row.GetMissing(), row.GetDuplicated(), row.GetOrphans(), row.GetDamaged(),
	} {
		b.Table[i] += n
	}
}

// Doubled returns the number of calls paid beyond the first for a job.
func (b *Books) Doubled() (n int) {
	for _, k := range b.PaidTwice {
		n += k
	}
	return n - b.PaidTwice[Swapped]
}

// Print writes the books as a table.
func (b *Books) Print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, value any, notes ...any) {
		fmt.Fprintf(t, "  %s\t%v\t%s\n", name, value, fmt.Sprint(notes...))
	}
	fmt.Fprintf(t, "seed %d, faults: %s\n", b.Seed, b.Faults)
	line("messages published", b.Messages)
	line("jobs accepted", b.Jobs, b.BatchMode, " of mode batch")
	for _, o := range slices.Sorted(maps.Keys(b.Outcomes)) {
		line("  "+string(o), b.Outcomes[o])
	}
	line("  row refused", b.RowsRefused, "kept as dead letters")
	line("  no lane", b.Laneless, "likewise")
	line("still pending", b.Pending)
	line("dead letters", b.DeadLetters)
	line("  turned away by denied workers", b.TurnedAway, "sent again by their owner")
	line("images stored", b.Stored, b.Written, " were written by models, and ", b.FoundWritten, " of these found when their answers were lost")
	line("rows appended", b.Rows, b.AttemptRows, " of attempts, ", b.Events, " events")
	line("calls paid", b.Paid, b.Throttled, " more were throttled, free")
	line("  cut off or unanswered", b.Fates[cut]+b.Fates[truncated]+b.Fates[hung])
	line("calls paid twice", b.Doubled(), "at $", b.CallPrice.Cents(), " each at most $", (b.CallPrice * jobs.USD(b.Doubled())).Cents())
	for c := ByKill; c < Swapped; c++ {
		line("  by "+c.String(), b.PaidTwice[c], "$", (b.CallPrice * jobs.USD(b.PaidTwice[c])).Cents())
	}
	line("  begun just after a loss", b.LateCalls, "counted above")
	line("  beside a stored image", b.PaidBesideStored, "counted above")
	for _, q := range b.Quotas {
		line("lane "+q.Lane, q.Asked, q)
	}
	if b.Batches > 0 {
		b.printBatches(line)
	}
	line("longest wait of a job", b.LongestWait[onlineJobs].Round(time.Second), b.LongestWait[batchJobs].Round(time.Second), " in batches; a message was held for ",
		b.LongestHold.Round(time.Second), " at most")
	line("processes", b.Processes, b.Kills, " killed, ", b.Stops, " stopped, ", b.Halts, " stopped by themselves")
	line("paid jobs in hand at kills", b.CutByKills)
	line("freezes", b.Freezes)
	for c := ByKill; c <= ByStop; c++ {
		line("jobs taken over, "+c.String(), b.TakenOver[c])
	}
	line("  from one that just came back", b.CameBack)
	line("images adopted", b.Adopted, "where the process that adopted lived to tell")
	line("fenced ends", b.Fenced, "likewise")
	line("deliveries", b.Deliveries, b.Redelivered, " redeliveries, ", b.LeasesLapsed, " leases lapsed, ", b.LostAcks, " acknowledgements lost")
	line("damaged uploads", b.Damaged)
	line("virtual time", b.Virtual.Round(time.Second))
	line("wall time", b.Wall.Round(time.Millisecond))
	line("peak heap", fmt.Sprintf("%d MiB", b.PeakHeap>>20))
	_ = t.Flush() // a failing writer is the caller's to notice
}

func (b *Books) printBatches(line func(name string, value any, notes ...any)) {
	line("batches sealed", b.Batches, b.BatchJobs, " jobs; ", b.Voided, " more came to nothing")
	var ends []string
	for _, state := range slices.Sorted(maps.Keys(b.VertexEnds)) {
		ends = append(ends, fmt.Sprintf("%d %s", b.VertexEnds[state], state))
	}
	line("  Vertex jobs", b.VertexJobs, strings.Join(ends, ", "))
	line("  rows paid", b.BatchPaid, "of the calls paid")
	t := b.Table
	line("  by their table", t[0], fmt.Sprintf("done, %d refused, %d failed, %d given back, %d of these missing", t[1], t[2], t[3], t[4]))
	line("  lines", t[5], fmt.Sprintf("duplicated, %d of no job, %d damaged", t[6], t[7]))
	line("  published again", b.Republished)
}

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

func (s *sim) addStats(stats worker.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books.Adopted += stats.Adopted
	s.books.Fenced += stats.Fenced
}
