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
// [Run] lets many workers work through a day of jobs in one synctest bubble. They are of the real packages worker, worker/lanes and worker/batch,
// composed as the program composes them. Beneath them is one world: subscriptions for jobs, for batch jobs and for hand-offs, with leases and
// retry policies; a bucket for the ledger, one for batches, one for images in each data region; tables and topics; models with a hidden quota for
// each lane; and Vertex' batch prediction. Every request to it goes through process.request, where it may fail before its effect, lose its
// answer after its effect, be slow, or find its service down. The ports above the buckets follow the real adapters request by request, with
// their retries and their time-outs.
//
// Workers are killed, frozen, stopped, and cut off from single services. A killed one loses all further effect at once; what it had on
// the wire may still happen. A frozen one stands still at its next request or its next answer, while the services go on, and so do the
// timers of the simulated process: whatever it would have done on time it does when it thaws. Computing between two requests takes no time, so
// a process can be killed or frozen only at a request. A clock that is off shows in what lineage stores and in what a deadline is
// compared with, and nowhere else, since the spine measures spans only; so the times of a worker's rows are moved where lineage takes them,
// and the deadlines of its messages where it gets them.
//
// Jobs ask for one of two models and may have to stay in one of two regions. Seven lanes serve online calls: one model by four lanes of three
// tiers, one of which is denied to everybody for some hours; the other model by one lane in each place. A lane fails or can't be reached for
// a while, and its quota changes each half-hour and collapses in storms. The models behind two lanes write their images to the bucket
// themselves, whatever becomes of the caller, sometimes only after their answer, and sometimes not although they say so. A worker that is
// denied every lane turns jobs away for as long as nobody restarts it; somebody does, and sends the dead letters again.
//
// Batches (simbatch*.go) hang in Vertex' queue, expire, fail, end in part, and are cancelled by their owners and by others. Vertex refuses them,
// creates them without an answer, and shows them in lists only after a while. Their output is in any order, in several files, with rows that are
// missing, failed, damaged, twice or twenty times there, without labels, with those of another row, or of no job of the batch. Lines are some
// thirty bytes long; all about a job follows from its number. One job in fifty asks for the same as another.
//
// The checkers (checkers.go, and those of lanes and batches beside what they check) see each effect at the service, at its instant, and keep their
// own state: they never ask a worker, and the bill is the models'. They hold the day to the invariants I1 to I8 of the design. A call that is
// paid beyond a job's first must have a cause that the checkers saw themselves, such as the kill of the process that had it in hand; a cause
// excuses no more than it can explain. So no image is paid for that was in a bucket before the worker could look, no batch has a second Vertex
// job, no row is in two batches at a time, and the table of batches says what the services saw. How much of the quota is used is reported
// and no invariant; for that alone the workers are asked who waits. What is not checked: logs (I9).
//
// # What a seed repeats
//
// A seed fixes the jobs, when they are published, what the model says to each call, and when services fail and workers are killed, frozen
// and stopped. It fixes the faults of single requests by what they are about, as the n-th request about a job. It does not fix which
// goroutine runs first within one instant of virtual time, nor the jitter of the real code's pauses; so two runs differ in which worker gets a
// message, in what is in flight at a kill, and in which batch a job gets into. A violation that needs a rare order may take some runs of its seed to come back: use
// the test's -count.
package workertest
