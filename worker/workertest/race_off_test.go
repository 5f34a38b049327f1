//go:build !race

package workertest

const (
	// raced says that the race detector looks on.
	raced = false
	// defaultSeeds is how many short days are simulated.
	defaultSeeds = 20
)
