package lanes

import (
	"time"

	"github.com/assetmill/assetmill/worker"
)

// State says whether a lane takes calls.
type State int

// States.
const (
	Open    State = iota // takes calls
	Probing              // a call is finding out whether the lane works again
	Broken               // failed too often; waits before it is tried again
	Shut                 // takes no calls any more
)

var stateNames = [...]string{Open: "open", Probing: "probing", Broken: "broken", Shut: "shut"}

// String returns the state's name in lower case.
func (s State) String() string { return stateNames[s] }

// Status is a lane at one moment.
type Status struct {
	Lane        worker.Lane
	State       State
	Why         string // the reason of every state but Open; never a prompt
	InFlight    int
	MaxInFlight int
	Waiting     int     // jobs that wait and that the lane serves; one that several lanes serve counts at each
	Rate        float64 // calls a minute that the lane has learned to take
	Throttled   float64 // share of throttled answers among those of the last minute, 0 to 1
}

func (l *lane) status(now time.Time) Status {
	st := Status{
		Lane: l.cfg.Lane, State: l.breaker.state, InFlight: l.inFlight, MaxInFlight: l.max, Rate: l.pacer.Rate(), Throttled: l.share.of(now),
	}
	for _, seat := range l.groups {
		st.Waiting += seat.group.waiters.Len()
	}
	switch {
	case l.shut != nil:
		st.State, st.Why = Shut, l.shut.Error()
	case st.State != Open && l.trouble != nil:
		st.Why = l.trouble.Error()
	}
	return st
}
