package bench

import "time"

// contender is a program that is measured.
type contender string

const (
	theWorker    contender = "worker"
	theFloor     contender = "floor"
	decodedFloor contender = "floor with decoding"
	theNaive     contender = "naive"
)

// benchCase is one load.
type benchCase struct {
	name       string
	imageBytes int
	inFlight   int
	latency    time.Duration // of a call, on the average
	warm       int           // assets before the first look at the contender
	measured   int           // assets between the two looks
	// burst: all calls are answered at the same moment. There are as many jobs as calls in flight, and all are measured.
	burst bool
	// turns are the contenders; those of once take one turn even when there are several runs.
	turns, once []contender
}

// jobs is how many jobs there are. When the last measured asset is done, as many calls are in flight as at the first look.
func (c benchCase) jobs() int {
	if c.burst {
		return c.inFlight
	}
	return c.warm + c.measured + c.inFlight
}

const (
	mib = 1 << 20
	// steadyInFlight is the worker's default.
	steadyInFlight = 64
)

// fullCases are the loads of the targets.
//
// The latencies of the first two keep two cores about half busy with a contender and its stand-ins. CPU per asset falls when a machine is
// overloaded, since more is done per wake-up, and that would flatter everybody, the floor most of all.
//
// The worker begins with one call a second and grows to its rate, threefold in three seconds; when so many assets have been made, it has found it, every
// connection is open and every buffer has been used.
func fullCases() []benchCase {
	return []benchCase{
		{
			name: "1.5 MiB, 64 in flight", imageBytes: 3 * mib / 2, inFlight: steadyInFlight, latency: 480 * time.Millisecond, warm: 400, measured: 1000,
			turns: []contender{theWorker, theFloor, theNaive}, once: []contender{decodedFloor},
		},
		{
			name: "6 MiB, 64 in flight", imageBytes: 6 * mib, inFlight: steadyInFlight, latency: 1920 * time.Millisecond, warm: 120, measured: 250,
			turns: []contender{theWorker, theFloor}, once: []contender{decodedFloor, theNaive},
		},
		{
			name: "4 KiB, highest rate", imageBytes: 4 << 10, inFlight: 512, latency: 500 * time.Millisecond, warm: 4000, measured: 6000,
			turns: []contender{theWorker}, once: []contender{theFloor, theNaive},
		},
		{
			name: "burst 3,200 x 1.5 MiB", imageBytes: 3 * mib / 2, inFlight: 3200, latency: time.Second, burst: true,
			turns: []contender{theWorker}, once: []contender{theFloor},
		},
		{
			name: "burst 1,000 x 6 MiB", imageBytes: 6 * mib, inFlight: 1000, latency: time.Second, burst: true,
			turns: []contender{theWorker}, once: []contender{theFloor},
		},
	}
}

// quickCases are too small for figures that mean anything; they show that everything works.
func quickCases() []benchCase {
	return []benchCase{
		{
			name: "256 KiB, 8 in flight", imageBytes: 256 << 10, inFlight: 8, latency: 50 * time.Millisecond, warm: 16, measured: 64,
			turns: []contender{theWorker, theFloor, decodedFloor, theNaive},
		},
		{
			name: "burst 30 x 1.5 MiB", imageBytes: 3 * mib / 2, inFlight: 30, latency: 100 * time.Millisecond, burst: true,
			turns: []contender{theWorker, theFloor},
		},
	}
}
