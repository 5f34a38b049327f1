package scalesim

import "time"

// Rules are the scaling rules: the triggers of the ScaledObject in deploy/kubernetes/base/scaling.yaml and the behaviour of its
// HorizontalPodAutoscaler, as numbers. A test compares them with the file.
type Rules struct {
	MinWorkers, MaxWorkers int
	// PerWorker is the number of jobs, waiting or under way, for which there is to be one worker: 85 % of its concurrency.
	PerWorker int
	// UsePercent is up to which share of the places calls in flight count while the gate is closed.
	UsePercent int
	// Gate says when the backlog asks for workers. While it is closed, only the calls that are in flight do.
	Gate Gate
	// The trigger of age: while the gate is open and more jobs wait than the workers have places for, the fleet grows by the age of the oldest over
	// AgeTarget, at most by AgeClampPercent a cycle. AgeTarget 0: no such trigger.
	AgeTarget       time.Duration
	AgeClampPercent int
	Announced       []Announced // cron triggers

	Up, Down   []Policy      // none: no bound
	DownWindow time.Duration // stabilisation: how long a smaller fleet must have been enough
	Cooldown   time.Duration // of KEDA, from the last activity to none
	Poll       time.Duration // of KEDA, for the step from none to one and back
}

// Gate is what closes the gate between the backlog and the autoscaler: signs that workers are not what the calls lack. Each is a number of
// percent; 0 means that this sign is not looked at.
type Gate struct {
	InFlightBelow  int // of the workers' places
	WaitingAbove   int // jobs that wait for a lane, of the workers' places
	ThrottledAbove int // of the calls of the last five minutes
}

// Policy bounds how fast the fleet changes: by Percent or by Workers in Period.
type Policy struct {
	Percent, Workers int
	Period           time.Duration
}

// Announced is a campaign that the autoscaler was told of: a cron trigger.
type Announced struct {
	From, To time.Duration
	Workers  int
}

// Kubernetes' own, which no file of ours says.
const (
	// sync is how often a HorizontalPodAutoscaler looks.
	sync = 15 // seconds
	// tolerance is by how many percent a metric may miss its target without consequence.
	tolerance = 10
)

// Deployed are the rules of deploy/kubernetes.
func Deployed() Rules {
	return Rules{
		MaxWorkers: 12, PerWorker: 340, UsePercent: 85,
		Gate:      Gate{InFlightBelow: 70, WaitingAbove: 5, ThrottledAbove: 5},
		AgeTarget: 15 * time.Minute, AgeClampPercent: 150,
		Up:         []Policy{{Percent: 100, Period: time.Minute}, {Workers: 2, Period: time.Minute}},
		Down:       []Policy{{Percent: 25, Period: 2 * time.Minute}, {Workers: 1, Period: 2 * time.Minute}},
		DownWindow: 10 * time.Minute, Cooldown: 15 * time.Minute, Poll: 30 * time.Second,
	}
}

// DeployedWorker is the worker of deploy/kubernetes.
func DeployedWorker() Worker {
	return Worker{Concurrency: 400, Handling: 2 * time.Second, Grace: 9 * time.Minute}
}

// AutopilotPods are pods of 2 vCPU and 4 GiB on GKE Autopilot in us-central1, at $0.0445 a vCPU and $0.0049225 a GiB an hour: list prices of late 2026 from
// third parties, since Google's own page could not be read. They start within one to two minutes, the wait for a node included.
func AutopilotPods() Pods {
	return Pods{StartMin: time.Minute, StartMax: 2 * time.Minute, PricePerHour: 108_690_000}
}
