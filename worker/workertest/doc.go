// Package workertest holds ports in memory with the semantics of the real services, for testing the worker's spine under virtual time,
// and a simulated day on which everything breaks.
//
// # Ports for single tests
//
// [Queue], [Ledger], [Assets], [Lineage], [Results], [Controls] and [Model] are safe for concurrent use and keep nothing that a caller
// could change afterwards. Each has a hook that is asked before an operation takes effect; an error from it is returned in place of the
// effect. [LedgerSuite] and [AssetsSuite] hold them, the ports of the simulated day, and the real ones to the same contracts.
//
// # The simulated day
//
// [Run] lets many workers, of the real package worker, work through a day of jobs in one synctest bubble. Beneath them is one world: a
// subscription with leases, a bucket for the ledger, a bucket for images, tables, topics, and a model with a hidden quota. Every request
// to it goes through process.request, where it may fail before its effect, lose its answer after its effect, be slow, or find its service down.
// The ports above the buckets follow the real adapters request by request, with their retries and their time-outs.
//
// Workers are killed, frozen, stopped, and cut off from single services. A killed one loses all further effect at once; what it had on
// the wire may still happen. A frozen one stands still at its next request or its next answer, while the services go on, and so do the
// timers of the simulated process: whatever it would have done on time it does when it thaws. Computing between two requests takes no time, so
// a process can be killed or frozen only at a request. A clock that is off shows in what lineage stores and in what a deadline is
// compared with, and nowhere else, since the spine measures spans only; so the times of a worker's rows are moved where lineage takes them,
// and the deadlines of its messages where it gets them.
//
// The checkers (checkers.go) see each effect at the service, at its instant, and keep their own state: they never ask a worker, and the
// bill is the model's. They hold the day to the invariants I1 to I6 and I8 of the design. A call that is paid beyond a job's first must have
// a cause that the checkers saw themselves, such as the kill of the process that had it in hand; a cause excuses no more than it can explain.
// What they do not check: residency (I7) and logs (I9).
//
// # What a seed repeats
//
// A seed fixes the jobs, when they are published, what the model says to each call, and when services fail and workers are killed, frozen
// and stopped. It fixes the faults of single requests by what they are about, as the n-th request about a job. It does not fix which
// goroutine runs first within one instant of virtual time, nor the jitter of the real code's pauses; so two runs differ in which worker gets a
// message and in what is in flight at a kill. A violation that needs a rare order may take some runs of its seed to come back: use
// the test's -count.
package workertest
