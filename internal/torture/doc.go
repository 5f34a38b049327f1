// Package torture holds assetmill to its promises about money and data with real processes: workers that are killed, frozen and
// told to stop under load, a cloud whose services die, and a CPU that is starved. It has tests only, for Linux.
//
// A scenario starts a local cloud in processes of its own (the test binary, run again in another role, with a model that bills
// calls whose client left), runs the assetmill binary as workers, submits a CSV file, does harm, and waits until every job has
// ended. Then it balances the books from sources that know nothing of each other:
//
//	the call log   what the model billed, by the hash of the prompt; prompts are unique, so a hash names a job
//	the objects    the files of the storage stand-in: their bytes, the hash of the prompt that each picture carries
//	the rows       what `assetmill query` says of generations and attempts
//	the queue      what is still on the subscription
//	the ledger     which claims a worker held when it was killed: only these jobs may be paid twice
//
// For batches, the prompts tell the model which rows to make twice, or not at all, or damaged, and so it is known of each job what must be billed and what the
// batches must count; there is no tolerance. Each worker has a front of its own before Cloud Storage and Vertex, which holds it at a call
// that it makes: there it is killed, so that it dies at the same place in each run. There is one place for each step of a batch.
//
// `make test` runs small versions side by side; `make torture` runs the sizes of the promises one after the other and prints the
// figures.
//
// It says nothing of the order of steps inside a process: worker/workertest does, in virtual time. The stand-ins have gaps of
// their own; what a killed stand-in loses is counted apart from what assetmill loses. The stand-in for Pub/Sub is pstest behind a front
// that keeps to each stream's bound of outstanding messages, as the real service does and pstest does not.
package torture
