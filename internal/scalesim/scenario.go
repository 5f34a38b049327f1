package scalesim

import (
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Scenario is what happens, and to whom. Times are counted from its beginning and are whole seconds.
type Scenario struct {
	Seed   uint64
	Length time.Duration // at most maxLength
	// UntilDone ends the scenario when all jobs are done.
	UntilDone bool
	Arrivals  []Arrival // in any order
	Lanes     []Lane    // cheapest first; a job takes the first that has room
	Worker    Worker
	Pods      Pods
	Metrics   Lags
	Rules     Rules
}

// maxLength bounds a scenario. A plan without a deadline may take long; beyond this something is wrong with it.
const maxLength = 30 * 24 * time.Hour

// Arrival is a number of jobs that are published at an even rate.
type Arrival struct {
	Name string // for plots; empty for jobs that come one by one
	At   time.Duration
	Over time.Duration // how long publishing takes; at least a second
	Jobs int
}

// Lane is a way to get calls served, as the service has it and not as workers know it.
type Lane struct {
	Name  string
	Price jobs.USD // of an image
	// Quota is the number of calls a minute that are taken, from each time on. The first must be at 0.
	Quota []Step
	// Spill is how long a job waits for cheaper lanes before it may use this one.
	Spill time.Duration
	// Ceiling is what each worker keeps to, in calls a minute; 0: none.
	Ceiling int
	Calls   Calls
}

// Step is a value from a time on.
type Step struct {
	At        time.Duration
	PerMinute int
}

// Calls say how long calls take. Most are near Shortest and few near Longest, so that the mean is Mean.
type Calls struct {
	Shortest, Mean, Longest time.Duration
	// Slow is how many calls of a million take from Longest up to SlowUpTo instead.
	Slow     int
	SlowUpTo time.Duration
	// Again is how many calls of a million end without an image, are paid all the same, and are made again.
	Again int
}

// Worker is one process.
type Worker struct {
	Concurrency int           // messages at a time
	Handling    time.Duration // from a call's end until its message is acknowledged
	Grace       time.Duration // for calls in flight, from the signal to stop to their being cut off
}

// Pods are where workers run.
type Pods struct {
	// StartMin and StartMax bound the time from a pod's creation until its worker receives, the wait for a node included.
	StartMin, StartMax time.Duration
	PricePerHour       jobs.USD // of one
}

// Lags are how late metrics are.
type Lags struct {
	// QueueEvery and QueueHidden: Pub/Sub's metrics are sampled at that interval, and a sample is seen only that much later.
	QueueEvery, QueueHidden time.Duration
	// WorkerEvery and WorkerHidden are the same of the workers' own metrics.
	WorkerEvery, WorkerHidden time.Duration
}

// GoogleLags are those of Cloud Monitoring: Pub/Sub samples every 60 s and shows a sample after up to 120 s; workers are scraped every 30 s by Managed Service
// for Prometheus.
func GoogleLags() Lags {
	return Lags{QueueEvery: time.Minute, QueueHidden: 2 * time.Minute, WorkerEvery: 30 * time.Second, WorkerHidden: 30 * time.Second}
}

// Images is what is known of calls that make images: 7 to 60 s.
func Images(mean time.Duration) Calls {
	return Calls{Shortest: 7 * time.Second, Mean: mean, Longest: time.Minute}
}
