// Package standin serves what a worker talks to, at next to no cost: a model, a storage, a place for rows and a queue. `make bench` runs each
// in a process of its own, so that the CPU and the memory of the worker are its own.
//
// Contract: the protocols are those of Vertex AI, Cloud Storage, BigQuery and Pub/Sub, as far as the worker uses them, and the semantics
// that pay-once rests on hold: generation preconditions, checksums, leases that run out, an answer only after the effect. The rest is
// left out on purpose: images are the same prepared bytes in every answer, an asset's bytes are summed and dropped, rows are counted.
// internal/vertextest and internal/localcloud are the stand-ins with content; they cost as much CPU as the worker does, which on one machine
// would be what is measured.
//
// The model and the storage, which carry the images, are served with TLS, over HTTP/1.1 and HTTP/2 with 100 streams a
// connection, as by Google's front ends. Nothing here waits for a disk or a network: latencies are only those that are asked for.
//
// Every server counts what happened. [Meter.Reach] returns when a count is reached, so that a benchmark can look at the worker at that very
// moment.
package standin
