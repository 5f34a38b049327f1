package pace

import (
	"math"
	"time"
)

// Throttles that have nothing to do with the rate. See the package's doc.
const (
	// Evidence fades with this time constant: a pool's contention changes over tens of
	// minutes.
	evidenceTime = 10 * time.Minute
	// evidencePrior is how many calls without a throttle are taken for granted, and
	// evidenceDoubt how many standard deviations, and one throttle, the count may be luck:
	// where nothing is known every throttle must count.
	evidencePrior = 30.0
	evidenceDoubt = 1.0
	// Calls count from afterCut calls after a cut on: where the quota falls one throttle
	// brings the next. With more, hardly a call would count where one in ten is throttled. On
	// a lane that gave less than narrow calls a second lately it is afterNarrow, because its
	// quota may move while so few calls are made. Below leastRate calls a second the law has
	// more throttles of its own than one in periodCalls calls, and nothing counts.
	afterCut    = 3
	afterNarrow = 8
	narrow      = 2.0
	leastRate   = periodCalls / maxPeriod
	// ownShare is how many throttles a period are the law's own, and leastEvidence how many
	// fewer throttles than these are remembered at most.
	ownShare      = 1.0
	leastEvidence = 3.0
	// maxBackground bounds what is believed to be background. Other fleets that learn the
	// same way look like background to this one; beyond the bound both give way.
	// A share of less than leastBackground slows a worker down only from 2,500 calls a
	// minute on, and is taken for none: then a single throttle counts.
	maxBackground   = 0.12
	leastBackground = 0.003
	// alarm is how many standard deviations of the throttles that a period brings by
	// themselves the excess must reach at least. Chance alone reaches it every alarm*alarm
	// periods: less often than the quota is probed. Where calls are many more cost little,
	// and the excess must reach as many throttles as alarmTime of the lane has calls, but
	// at most mostAlarm deviations.
	alarm     = 1.5
	alarmTime = bucketTime // as long as the service itself lets a rate pass the quota
	mostAlarm = 4.0
	// allowance is how much more than the share is no excess. The share is not known
	// exactly, and without it chance and the doubt slow the lane down by some hundredths.
	allowance = 0.15
	// doubtPart is how much of the doubt about the share itself is allowed for on top. All
	// of it has workers that take turns throttled by 5 to 9 % too much.
	doubtPart = 0.5
	// One cut in deepCuts shows whether the background is still there. More often, and
	// quota is left lying.
	deepCuts = 3
	// bucketTime is the unused quota that the service keeps, in s.
	bucketTime = 0.25
	// A share that has risen by relearned and by leastRise since the last search shows
	// that throttles were heeded which meant nothing: the rate is searched for anew.
	relearned = 1.3
	leastRise = 0.003
)

// background is what a limiter knows of throttles that do not depend on its rate.
type background struct {
	share    float64 // of calls that are throttled whatever the rate, as believed
	most     float64 // what it may be as far as the evidence goes
	known    float64 // throttles that this is reckoned from
	searched float64 // the share at the last search for the rate
	cuts     int     // so far
	excess   float64 // throttles beyond the share
	edge     float64 // calls a second below which the last cut is still felt

	alone            bool      // nobody else calls on the lane, as far as is known
	easeFrom, easeTo time.Time // when all call more slowly, to see what it changes

	// The evidence: calls at clearly reduced rates, and those of them that were throttled.
	calls, throttles float64
	at               time.Time
}

// eased reports whether all call more slowly at that time.
func (b *background) eased(now time.Time) bool {
	return !now.Before(b.easeFrom) && now.Before(b.easeTo)
}

// clear reports whether the throttling of a call that begins then can't be due to the
// rate: since calls after a cut whose effect is still felt, or while all go slower.
func (l *Limiter) clear(now time.Time, rate, since float64) bool {
	b, after := &l.back, float64(afterCut)
	if max(l.best, l.rate) < narrow {
		after = afterNarrow
	}
	if rate < leastRate || since <= after || since >= untouched && since <= untouched+after {
		return false // one throttle brings the next, and the first calls of a turn may collide with the last one's
	}
	return b.alone && rate < b.edge || rate >= leastEased && b.eased(now) && now.Sub(b.easeFrom) > easeLead
}

// saw counts a call that began at a reduced rate. The law itself has one throttle in a
// period, and where the quota moves some of these fall on reduced rates too.
func (b *background) saw(now time.Time, rate float64) {
	b.calls++
	if !b.eased(now) {
		b.throttles = max(b.throttles-ownShare/(rate*period(rate)), -leastEvidence)
	}
}

func (b *background) fade(now time.Time) {
	keep := math.Exp(-max(0, now.Sub(b.at).Seconds()) / evidenceTime.Seconds())
	b.calls *= keep
	b.throttles *= keep
	b.at = now
}

// deep reports whether the present cut is to go deeper by the share. What is taken for
// background and is none lets the rate rise above the quota by as much, and would be
// confirmed after any cut that is not. While no share is believed every cut is deep.
func (b *background) deep() bool {
	b.cuts++
	return b.share == 0 || b.cuts%deepCuts == 0
}

// slack is how many throttles beyond the expected ones may be chance.
func (b *background) slack(rate float64) float64 {
	if b.share == 0 {
		return 0
	}
	expected := b.share * rate * period(rate)
	deviation := math.Sqrt(expected * (1 + doubtPart*expected/max(1, b.known))) // what is expected is not known exactly either
	return max(alarm*deviation, min(alarmTime*rate, mostAlarm*deviation))
}

// wide is how many times longer the rate takes to make up for a cut than without slack:
// cuts are deeper by what the rate overshoots while the excess grows.
func (b *background) wide(rate float64) float64 {
	return math.Sqrt(1 + b.slack(rate)/(bucketTime*rate))
}

// shown is the share of throttled calls that so much evidence shows, 0 where it may be luck,
// and what it may be at most. What is shown is the mean: the least that it may be would have
// the excess grow by itself, and slow down for nothing.
func shown(calls, throttles float64) (share, most float64) {
	throttles = max(0, throttles)
	luck := evidenceDoubt*math.Sqrt(throttles) + 1
	most = min(1, (throttles+luck)/(calls+1))
	if (throttles-luck)/(calls+evidencePrior) < leastBackground {
		return 0, most
	}
	return min(throttles/(calls+evidencePrior), maxBackground), most
}

// believe takes over the share that all evidence shows.
func (l *Limiter) believe(calls, throttles float64) {
	b := &l.back
	share, most := shown(calls, throttles)
	b.share, b.most, b.known = share, most, throttles
	b.searched = min(b.searched, share)
	if share > b.searched*relearned+leastRise {
		b.searched = share
		l.growth = max(l.growth, stepGrowth)
	}
}
