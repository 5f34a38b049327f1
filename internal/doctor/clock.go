package doctor

import (
	"net/http"
	"sync"
	"time"
)

// maxSkew is how far this machine's clock may be off. Tokens are refused from some minutes on; a minute is far beyond what a clock that is
// synchronised at all is off, and beyond what the doctor's own measure can be wrong by.
const maxSkew = time.Minute

// clock compares this machine's clock with those of the services. It is safe for concurrent use.
type clock struct {
	mu    sync.Mutex
	known bool
	round time.Duration // of the answer that skew was taken from: the shorter, the better
	skew  time.Duration // how far this machine is ahead
}

// see takes the date of an answer to a request that took so long.
func (c *clock) see(date string, sent, received time.Time) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	at = at.Add(time.Second / 2) // the header has whole seconds
	c.mu.Lock()
	defer c.mu.Unlock()
	if round := received.Sub(sent); !c.known || round < c.round {
		c.known, c.round = true, round
		c.skew = sent.Add(round / 2).Sub(at)
	}
}

// ahead returns how far this machine's clock is ahead, if anything has told.
func (c *clock) ahead() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew, c.known
}

func (a *area) checkClock() {
	skew, known := a.clock.ahead()
	word := "ahead of"
	if skew < 0 {
		skew, word = -skew, "behind"
	}
	off := skew.Round(time.Second).String()
	switch {
	case !known:
		a.fail(idClock, Info, "clock", "No answer had a date to compare it with.", Fix{})
	case skew > maxSkew:
		a.fail(idClock, Warning, "clock", "This machine is "+off+" "+word+" Google's clock: tokens and signed links may be refused, and deadlines are taken wrongly.",
			Fix{Command: "sudo timedatectl set-ntp true", Note: "On Google Cloud, use the time server metadata.google.internal."})
	default:
		a.pass(idClock, "clock", "It is within a minute of Google's.")
	}
}
