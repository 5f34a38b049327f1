package lanes

import (
	"context"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Options are what a Set needs besides its configuration.
type Options struct {
	Log *zap.Logger // nil: none
	// MaxInFlight bounds the calls in flight over all lanes. 0 stands for DefaultMaxInFlight.
	MaxInFlight int
	// Storable reports whether a bucket for the assets of a data region is known; its answers must not change. Nil: Config.Buckets decides.
	Storable func(region string) bool
	// Seed varies pauses, so that workers do not march in step. 0: drawn at random.
	Seed uint64
}

// DefaultMaxInFlight is the number of calls in flight that one worker is built for.
const DefaultMaxInFlight = 3200

// State says whether a lane takes calls.
type State int

// States.
const (
	Open    State = iota // takes calls
	Probing              // one call is trying whether the lane works again
	Broken               // failed too often; waits before it is tried again
	Shut                 // takes no calls any more
)

// Status is a lane at one moment.
type Status struct {
	Lane        worker.Lane
	InFlight    int
	MaxInFlight int
	Waiting     int     // jobs that wait and that the lane could serve; a job that several lanes could serve counts at each
	Rate        float64 // calls a minute that the lane has learned to take
	Throttled   float64 // share of the calls that ended in the last minute, 0 to 1
	State       State
	Why         string // Broken, Probing and Shut: the reason
}

// Set implements worker.Lanes. It is safe for concurrent use.
type Set struct{}

var _ worker.Lanes = (*Set)(nil)

// New returns the lanes of a configuration.
func New(cfg *Config, opts Options) *Set { return &Set{} }

// Next implements worker.Lanes.
func (s *Set) Next(ctx context.Context, j *jobs.Job) (worker.Permit, error) { return nil, worker.ErrNoLane }

// Snapshot returns the state of each lane, in the order of the configuration.
func (s *Set) Snapshot() []Status { return nil }

// Shut takes a lane out of use for good.
func (s *Set) Shut(name string, why error) {}

// Lanes returns the lanes that take online calls, shut or not, in the order of the configuration.
func (s *Set) Lanes() []worker.Lane { return nil }
