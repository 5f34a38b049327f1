// Package plan predicts what a number of jobs needs: by which lanes they go, how many calls are in flight, how many workers that takes,
// when the last job is done, and what it costs. Among all ways it finds the cheapest that meets every deadline, and where there is none, it
// says what would do.
//
// # The model
//
//	a lane's images a minute   what its quota gives, learned or told; package plan guesses only where nothing is known, and says so
//	calls in flight            rate x length of a call (Little's law)
//	workers                    calls in flight / (concurrency x 85 %), rounded up
//	time                       start-up + jobs x (1 + retries) / rate + the last calls
//	cost                       the catalogue's price of each image by its lane's tier, summed exactly; calls made again come on top
//
// Package internal/scalesim holds it to a simulation of the whole fleet: time, workers, calls in flight and cost agree within a tenth, which is why a
// plan keeps a tenth of the time in reserve (DefaultReserve).
//
// # The cheapest mix
//
// Which jobs go by which lane is a flow: from the jobs, which differ in model, size, region and deadline, to the time that each lane has
// until each deadline. The flow of least cost is found exactly. Among equals the quickest is taken, and no batch where a lane costs as much.
//
// # Invariants
//
//  1. The same question has the same answer: nothing is asked of a clock, a service or chance.
//  2. No job goes by a lane that could not serve it: its model, size and data region, and the time that the tier needs (30 minutes for flex,
//     jobs.BatchTime for batch).
//  3. Money is exact: shares of a cost add up to it.
//
// # What it does not do
//
// It does not know the quota: Vertex publishes none for image models. It does not count thinking tokens, as the estimate at submission does
// not. It takes for granted that jobs with near deadlines are submitted first, since the queue serves jobs in the order in which they come.
package plan
