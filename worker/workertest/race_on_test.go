//go:build race

package workertest

const (
	// raced says that the race detector looks on.
	raced = true
	// defaultSeeds is fewer than usual: the race detector makes the simulation eight times slower, and needs few days to see all of the code.
	defaultSeeds = 8
)
