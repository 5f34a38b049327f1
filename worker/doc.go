// Package worker is the engine: it takes jobs from the queue, claims each in the ledger, has the model make its image,
// stores it, records its lineage, announces the result, and only then lets the message go.
//
// The way of a job is the function process, the spine, in spine.go. It reads in the order of the data flow:
//
//	decode -> claim -> call -> store -> done -> lineage -> result event -> verdict
//
// A message is acknowledged last: only when its asset, its ledger outcome and its lineage rows are durable. Whatever
// breaks before leads to a redelivery, and the ledger makes redelivery free: a finished job is recorded again, never
// called again.
//
// The package imports no adapter. ports.go declares what the spine needs of the ledger, the model, the storage and
// lineage; cmd/assetmill puts the real ones in.
package worker
