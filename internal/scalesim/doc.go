// Package scalesim simulates how a fleet of workers is scaled: the backlog, the metrics as late as they come, the autoscaler's rules as it
// applies them, pods that take their time to start and to stop, lanes with a hidden quota, and every call with its own length. Time is
// virtual, in steps of a second; a day of 1.2 million jobs takes about a second.
//
// It answers three questions: what the scaling rules of deploy/kubernetes do on a day with campaigns, whether a call is ever thrown away when the
// fleet shrinks, and whether package plan predicts what happens.
//
// # Invariants
//
//  1. The same scenario gives the same result to the last call, on every machine: the state is integers, and chance comes from the seed.
//  2. Every job that arrived is done, held, or in the queue.
//  3. A call is in flight from its beginning to its end, or is counted as lost in the second in which its pod is cut off.
//
// # What is simple here
//
//   - Jobs are numbers, not messages, and are served in the order in which they came, so ages are right within the length of a call. Redeliveries
//     are at once.
//   - The workers of a lane share one learned rate. It finds a quota within a minute, uses all of it, and has each worker throttled five times a
//     minute, as package worker/lanes/pace/pacesim measures for pacers that get 150 calls a minute or more each. For fewer that is too kind:
//     there pacers use less of a quota (docs/pacing.md).
//   - A throttled call takes no time: it is answered in a fraction of a step, and the job waits on in its worker.
//   - An outage is a quota of zero, answered with 503. Calls that are under way when it begins end as they would have.
//   - Pub/Sub, Cloud Storage and BigQuery always work; package worker/workertest is where they do not.
package scalesim
