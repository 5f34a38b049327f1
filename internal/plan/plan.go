package plan

import (
	"errors"
	"fmt"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

const (
	// TargetUse is the percentage of its concurrency to which a worker is meant to be used. deploy/kubernetes scales by the same.
	TargetUse = 85
	// DefaultStartUp is from the first job until workers enough are there, when there was none: Pub/Sub's metrics show the backlog after two
	// to three minutes, KEDA asks every 30 s, pods take one to two minutes, and the fleet doubles from minute to minute.
	DefaultStartUp = 5 * time.Minute
	// settling is what it costs that workers begin slowly and learn their lanes' rates. Their pacers are meant to settle within a minute.
	settling = time.Minute
	// DefaultReserve is the share of the time that is kept in reserve: as much as a plan may be wrong by.
	DefaultReserve = 0.1
	// DefaultRetries is the share of calls that are made again because they ended without an answer or without an image.
	DefaultRetries = 0.01
	// DefaultConcurrency is that of the workers in deploy/kubernetes.
	DefaultConcurrency = 400
	// DefaultWorkerPrice is what a pod of 2 vCPU and 4 GiB costs an hour on GKE Autopilot in us-central1: $0.0445 a vCPU and $0.0049225 a GiB,
	// list prices of late 2026 from third parties.
	DefaultWorkerPrice = jobs.USD(108_690_000)
	// DefaultPromptTokens is the input of a job of which nothing but the size is known: a prompt of 200 letters.
	DefaultPromptTokens = 50
	// MaxJobs bounds the jobs of a plan: at a quarter of a dollar each, they cost less than jobs.USD holds.
	MaxJobs = 1_000_000_000
)

// Request is the question.
type Request struct {
	Demands     []Demand // as a [Counter] returns them
	Lanes       []Lane   // for online calls; those without a rate are not counted on
	Batch       []Lane   // of tier batch
	Concurrency int      // of a worker
	StartUp     time.Duration
	Reserve     float64  // of the time until a deadline, 0 to less than 1
	Retries     float64  // calls beyond the first for each job; at least 0
	WorkerPrice jobs.USD // of an hour
}

func (r *Request) check() error {
	total := int64(0)
	for i := range r.Demands {
		if r.Demands[i].Jobs < 1 {
			return errors.New("a demand of no jobs")
		}
		total += r.Demands[i].Jobs
	}
	switch {
	case total < 1 || total > MaxJobs:
		return fmt.Errorf("%d jobs; allowed: 1 to %d", total, MaxJobs)
	case r.Concurrency < 1:
		return fmt.Errorf("concurrency %d; at least 1 is needed", r.Concurrency)
	case !(r.Reserve >= 0 && r.Reserve < 1):
		return fmt.Errorf("reserve %v is not a share from 0 to less than 1", r.Reserve)
	case !(r.Retries >= 0 && r.Retries <= 10):
		return fmt.Errorf("retries %v; allowed: 0 to 10", r.Retries)
	case r.StartUp < 0:
		return fmt.Errorf("start-up %s is negative", r.StartUp)
	}
	return nil
}

// Plan is the answer. Its names are what --json prints; scripts rely on them.
type Plan struct {
	Jobs int64 `json:"jobs"`
	// DeadlineSeconds is the nearest deadline; absent: none.
	DeadlineSeconds int64 `json:"deadline_seconds,omitempty"`
	// Meets says whether Mixes[0] meets every deadline.
	Meets bool `json:"meets_deadline"`
	// LateJobs are those that no mix of these lanes does in time; UnservedJobs are those that no lane serves at all.
	LateJobs     int64 `json:"late_jobs"`
	UnservedJobs int64 `json:"unserved_jobs"`
	// Mixes are the ways to do it. The first is the one to take: the cheapest that meets the deadline, else the quickest.
	Mixes []Mix `json:"mixes"`
	// Advice is what to set so that it happens like that, what would do if it can't be met, and what would be cheaper.
	Advice []Advice `json:"advice"`
	// Assumptions are what was guessed, and what is left out.
	Assumptions []string `json:"assumptions"`
}

// Advice is something to do.
type Advice struct {
	Kind string `json:"kind"` // rate, time, lane, mode, setting, region
	Text string `json:"text"`
	// RatePercent is for the kind rate: of the present rates, what would do.
	RatePercent int `json:"rate_percent,omitempty"`
	// Seconds is for the kind time: what would do.
	Seconds int64 `json:"seconds,omitempty"`
	// CostUSD is what it would cost then.
	CostUSD string `json:"cost_usd,omitempty"`
}

// Make answers the question. It fails if the question makes no sense; that a deadline can't be met is an answer.
func Make(r Request) (*Plan, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p := &Plan{Mixes: []Mix{}, Advice: []Advice{}}
	for i := range r.Demands {
		d := &r.Demands[i]
		p.Jobs += d.Jobs
		if d.Within > 0 && (p.DeadlineSeconds == 0 || seconds(d.Within) < p.DeadlineSeconds) {
			p.DeadlineSeconds = seconds(d.Within)
		}
	}
	p.UnservedJobs = r.solve(r.everything(false)).lateJobs()
	p.LateJobs = r.solve(r.everything(true)).lateJobs() - p.UnservedJobs
	p.Meets = p.LateJobs == 0 && p.UnservedJobs == 0
	p.Mixes = r.mixes(p)
	p.Advice = append(p.Advice, r.advise(p)...)
	p.Assumptions = r.assumptions()
	return p, nil
}

// everything is all ways.
func (r *Request) everything(deadlines bool) ways {
	return ways{lane: func(*Lane) bool { return true }, batch: true, deadlines: deadlines, limit: r.horizon(), percent: 100}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
