// Package lanes decides by which lane each call of a worker goes, and when. It implements worker.Lanes.
//
// A lane is one way to get a call served: a project, a location or an endpoint, a model and a tier. [Parse] reads them from a file,
// [Default] needs none, and a [Set] hands out the right to call, one [worker.Permit] for each call.
//
// # Invariants
//
//  1. A job with a data region gets only lanes whose location and host lie in that region, and only if assets can be stored there.
//  2. A lane never has more calls in flight than its bound, nor does the Set than the process's.
//  3. A lane is called no faster than its pacer allows (package pace).
//  4. A job waits only as long as some lane could serve it; when the last one is shut, it is told at once.
//  5. A permit that is not used goes back: one that was granted to a caller that had just gone is dropped for it.
//
// # Order
//
// A job's lanes are ordered: provisioned ones first, since they are paid anyway; then by the price of an image; then, for a job that may
// run anywhere, the preferred location before others, whose quota is left to jobs that must run there; then as configured. A job takes
// the first lane that is free, but a dearer one only after it has waited for each cheaper one as long as that asks (spill_after), unless its
// deadline presses or the cheaper one is broken. Flex is left out when the deadline leaves no time for it.
//
// A lane serves those first for whom it is the first choice, and among equals whoever has waited longest.
//
// # What it does not do
//
// It stores nothing and lists nothing: what it tells the other workers of its lanes, and hears of them, is carried by whoever calls [Set.Tell]
// and [Set.Hear]. That pacers in several workers take turns and come to fair shares is the pacers' doing. It makes no calls of its own: a
// broken lane is tried again with a job that waits. It does not plan batch jobs; their lanes are kept for whoever does.
package lanes
