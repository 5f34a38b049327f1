// Package batch serves jobs by Vertex batch prediction: half the price, for everything that can wait. Whatever Vertex returns, in
// whatever order, twice or not at all, each image lands on its own job, once.
//
//	jobs-batch ──> gather ──> seal ──> topic batches ──> run: create, watch ──> collect ──> reconcile ──> closed
//	                (claims)   (manifest)                 (one step a delivery)   (ranges)    (requeue)
//
// # Gather
//
// A [Gatherer] claims each job for the open batch of its model and data region, and holds its message until the batch is sealed. To
// seal is to write the requests, the jobs and an index of them, to publish the hand-off, and to create the manifest. The manifest is the commit
// point: before it the jobs' claims are the gatherer's, and go the way of any claim if it dies; after it they are the batch's, until the batch
// ends them or gives them back. Only then are the messages acknowledged. A hand-off without a manifest is waited for, or voided.
//
// # Run
//
// A hand-off comes back until its batch is closed, and each delivery is one step: whoever gets it claims the batch in the ledger, reads
// its state, goes as far as is possible without waiting, writes the state back, and lets go. So a batch of days needs no worker of days,
// and a worker that dies leaves a claim like any other.
//
// To create a Vertex job is to spend money and can't be made idempotent. The intent is written first; then the job is looked for by its
// label; only if there is none, and none can still be on its way, is it created.
//
// # Collect
//
// The output is cut into ranges of bytes, each a message of its own, so that all workers share in it. A line belongs to the range in which it
// begins. A row's job is the one whose request it echoes; its label only tells equals apart. Each row takes the way of an online answer:
// asset, ledger, lineage, result. What became of a range's rows is written when all of that is durable, and a range that is collected
// twice ends as if it was collected once.
//
// # Reconcile
//
// When all ranges are there, every job of the manifest has ended, or it is owed another try: its row failed for a passing reason, or there is
// none. Its message is published again first, and then its claim is released, so that a crash between costs a delivery and no job.
// The batch is closed when nothing is owed any more.
//
// The package knows no cloud: what it needs is in ports.go.
package batch
