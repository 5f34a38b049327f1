// Package pacesim compares ways to pace calls under a hidden, changing, shared
// quota, in virtual time. It exists for the tests beside it and for the table
// in docs/pacing.md; nothing of the product imports it.
//
// A [Scenario] says what the service does (quota, steps, noise of other
// tenants, outages, bound on growth, latencies) and which workers call it
// when. [Run] plays it as a discrete event loop: the same seed plays the same
// way, whatever the machine. The service is a token bucket that keeps 250 ms of
// unused quota and at least one call, as internal/vertextest is; calls take a few
// milliseconds to reach it, each its own time. A worker has a bounded number of
// places for jobs; each place holds a job from its first attempt to its answer.
// An [Algorithm] decides when a worker may begin a call. Workers whose pacer is a
// [Sharer] write reports and list them as package ledger does, and some of both
// are late or lost.
//
// What the package is not: a model of sockets, of Pub/Sub, or of the worker.
package pacesim
