// Package collectbench measures how fast a batch's output is collected, and in how much memory. All of it is in its tests.
//
// Contract: [batch.Runner] collects, with the adapters of production: Cloud Storage's client with the worker's transport, the ledger, the assets,
// lineage by the Storage Write API, results by Pub/Sub. Beside it, in the same run and from the same stand-ins, runs a loop that reads the same
// output, decodes its base64 and writes the same images, and that has no logic: it checks nothing, repeats nothing and records nothing. Everything
// speaks HTTP/1.1 over TLS but lineage and results, which speak gRPC in clear text.
//
// The stand-ins are a process of their own, and so is each contender: its CPU is the kernel's count of user and system time for its process, its memory is
// that process's largest resident set. The output is made as it is read and the images are summed and dropped, so that none of it needs a
// disk. The stand-ins' own CPU is in no figure but the seconds, which all processes share the machine for; it is the same for both contenders
// but for the records that only the collector writes.
//
// Vertex and the hand-offs of ranges are in the collector's own process, at no cost: what is measured is a range from its delivery to its
// checkpoint, two at a time as in a worker.
//
// Non-goals: latencies of a network and of real services; the gathering and the reconciliation of a batch.
//
// It needs Linux: peak memory and CPU are read as Linux tells them.
//
// [batch.Runner]: https://pkg.go.dev/github.com/assetmill/assetmill/worker/batch#Runner
package collectbench
