package plan

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
)

func TestThePlanIsPrinted(t *testing.T) {
	t.Parallel()
	r := request(demand(t, 100_000, "1K", 3*time.Hour, jobs.Online), online("provisioned", 50), online("flex", 500), online("standard", 1200))
	r.Retries, r.Reserve, r.StartUp = DefaultRetries, DefaultReserve, DefaultStartUp
	var b strings.Builder
	if err := made(t, r).Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `100000 jobs, deadline in 3.0 h.

Cheapest: 2.7 h, $8128.78, 5 workers with 368 calls in flight.
         lane   jobs   images/min  call  in flight   time      USD
  provisioned   7707           50  30 s         25  2.6 h  1036.59
         flex  63712          500  30 s        250  2.1 h  4284.63
     standard  28581  185 at most  30 s         93  2.6 h  3844.14
Of these, $1036.59 are paid already, as provisioned throughput.
On top: at most $91.65 for calls that are made again, $1.41 for workers.

               mix  in time    time  USD to pay  workers  in flight
          cheapest      yes   2.7 h     8128.78        5        368
          quickest      yes  65 min    11144.27       11        875
  only provisioned       no    34 h        0.00        1         25
         only flex       no   3.5 h     6725.00        3        251
     only standard      yes  91 min    13450.00        8        600

To do:
- standard: max_per_minute: 38, for each of 5 workers, so that it takes no more from cheaper lanes than it must
- spill_after: 0s, so that jobs use the dearer lanes while the cheaper ones are full
- fewer and larger workers, such as 3 workers of --concurrency 145: 5 leave each 100 calls a minute of flex, and below 150 more are throttled
- room for 5 workers of --concurrency 100: maxReplicaCount of at least 5
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestThePlanAsJSON(t *testing.T) {
	t.Parallel()
	r := request(demand(t, 60_000, "1K", 3*time.Hour, jobs.Online), online("standard", 600))
	data, err := json.MarshalIndent(made(t, r), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "jobs": 60000,
 "deadline_seconds": 10800,
 "meets_deadline": true,
 "late_jobs": 0,
 "unserved_jobs": 0,
 "mixes": [
  {
   "name": "cheapest",
   "meets_deadline": true,
   "lanes": [
    {
     "lane": "standard",
     "model": "gemini-3-pro-image",
     "tier": "standard",
     "jobs": 60000,
     "images_per_minute": 600,
     "rate_source": "given",
     "call_seconds": 30,
     "calls_in_flight": 300,
     "seconds": 6000,
     "cost_usd": "8070.000000000"
    }
   ],
   "seconds": 6120,
   "calls_in_flight": 300,
   "workers": 4,
   "cost_usd": "8070.000000000",
   "prepaid_usd": "0.000000000",
   "to_pay_usd": "8070.000000000",
   "retries_at_most_usd": "0.000000000",
   "workers_usd": "0.724600000"
  }
 ],
`
	if diff := cmp.Diff(want, string(data[:min(len(want), len(data))])); diff != "" {
		t.Error(diff)
	}
}

func TestTimesAsPeopleSayThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		40 * time.Second: "40 s", 3 * time.Minute: "3 min", 119 * time.Minute: "119 min", 150 * time.Minute: "2.5 h", 30 * time.Hour: "30 h", 240 * time.Hour: "10 days",
	} {
		if got := short(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	if count(1, "worker") != "1 worker" || count(int64(2), "job") != "2 jobs" {
		t.Error("numbers of things")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestPrintTellsWhenItCannotWrite(t *testing.T) {
	t.Parallel()
	if err := made(t, request(demand(t, 10, "1K", 0, jobs.Online), online("standard", 10))).Print(brokenWriter{}); err == nil {
		t.Error("no error")
	}
}
