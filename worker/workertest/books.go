package workertest

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Books is the account of a simulated day, made up from what the services saw.
type Books struct {
	Seed   uint64
	Faults Faults

	Messages     int // published
	Jobs         int // accepted, each once
	Outcomes     map[jobs.Outcome]int
	RowsRefused  int // jobs without a row, kept as dead letters
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
	Fates            [cut + 1]int
	PaidTwice        [causes]int // paid calls that did not end their job, by cause
	PaidBesideStored int         // of the paid calls, those for a job whose image a frozen worker stored late
	LateCalls        int         // calls that began just after their job was lost
	Throttled        int

	Processes, Kills, CutByKills, Freezes, Stops, Halts int
	TakenOver                                           [causes]int
	CameBack                                            int // of these, from processes that came back just then
	Adopted, Fenced                                     int // as the workers count them

	CallPrice jobs.USD // of an image
	Virtual   time.Duration
	Wall      time.Duration
	PeakHeap  uint64 // bytes of live and not yet collected objects, sampled
}

// Doubled returns the number of calls paid beyond the first for a job.
func (b *Books) Doubled() (n int) {
	for _, k := range b.PaidTwice {
		n += k
	}
	return n
}

// Print writes the books as a table.
func (b *Books) Print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, value any, notes ...any) {
		fmt.Fprintf(t, "  %s\t%v\t%s\n", name, value, fmt.Sprint(notes...))
	}
	fmt.Fprintf(t, "seed %d, faults: %s\n", b.Seed, b.Faults)
	line("messages published", b.Messages)
	line("jobs accepted", b.Jobs)
	for _, o := range slices.Sorted(maps.Keys(b.Outcomes)) {
		line("  "+string(o), b.Outcomes[o])
	}
	line("  row refused", b.RowsRefused, "kept as dead letters")
	line("still pending", b.Pending)
	line("dead letters", b.DeadLetters)
	line("images stored", b.Stored)
	line("rows appended", b.Rows, b.AttemptRows, " of attempts, ", b.Events, " events")
	line("calls paid", b.Paid, b.Throttled, " more were throttled, free")
	line("  cut off or unanswered", b.Fates[cut]+b.Fates[truncated]+b.Fates[hung])
	line("calls paid twice", b.Doubled(), "at $", b.CallPrice.Cents(), " each at most $", (b.CallPrice * jobs.USD(b.Doubled())).Cents())
	for c := ByKill; c < causes; c++ {
		line("  by "+c.String(), b.PaidTwice[c], "$", (b.CallPrice * jobs.USD(b.PaidTwice[c])).Cents())
	}
	line("  begun just after a loss", b.LateCalls, "counted above")
	line("  beside a stored image", b.PaidBesideStored, "counted above")
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

func (s *sim) addStats(stats worker.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books.Adopted += stats.Adopted
	s.books.Fenced += stats.Fenced
}
