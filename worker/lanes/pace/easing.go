package pace

import (
	"math"
	"time"
)

// Workers that call at the same time can't tell by themselves whether throttles come
// from the rate of all. So they all call more slowly for a moment, now and then.
const (
	// easePart of the rate is clearly less than the quota, and easeTime at it brings
	// hundreds of calls on the lanes where workers call together. Together they cost two
	// seconds of the lane.
	easePart = 0.75
	easeTime = 8 * time.Second
	easeLead = time.Second // calls that began before may still use the quota up
	// easeFirst is when the first such time is, after the workers have found the quota.
	// The gap to the next one is easeNear while it is open whether one call in a hundred
	// (easeNone) is throttled for nothing, or where there is background but fewer than
	// easeSure throttles to reckon it from. Else it doubles up to easeLast where there is
	// none, and is easeKnown where there is some.
	easeFirst = time.Minute
	easeLast  = 32 * time.Minute
	easeNear  = 45 * time.Second
	easeKnown = 4 * time.Minute
	easeSure  = 40.0
	easeNone  = 0.01
	// Below leastEased calls a second nobody slows down. Seats have so few where workers with
	// few places need many seats, and then the calls of turns that end and begin overlap:
	// they are throttled for that.
	leastEased = 2.0
)

// learn reckons the background from what all have seen.
func (s *Sharing) learn(now time.Time) {
	b := &s.law.back
	b.fade(now)
	calls, throttles := b.calls, b.throttles
	m, others := s.moment(now), 0
	for i := range s.peers {
		p := &s.peers[i]
		if p.ID == s.id {
			continue
		}
		calls += p.Calls
		throttles += p.Throttles
		if min(m, s.clock.add(hearGap)).sub(p.At) < staleAfter {
			others++
		}
	}
	s.law.believe(calls, throttles)
	b.alone = others == 0 || s.plan.Seats == 1
	s.planEase(m, others)
	b.easeFrom = s.at(s.ease)
	b.easeTo = b.easeFrom.Add(easeTime)
	if s.ease == 0 || s.plan.Seats == 1 { // who has the only seat learns without
		b.easeTo = b.easeFrom
	}
}

// planEase takes over from the leader when all call more slowly next, or decides it.
func (s *Sharing) planEase(m Moment, others int) {
	list, me := s.members(m)
	if me < 0 || others == 0 {
		return
	}
	if me > 0 {
		s.ease = list[0].Ease
		return
	}
	switch {
	case s.plan.Seats == 1 || s.law.rate < leastEased:
		return
	case s.easeGap == 0:
		s.easeGap = easeFirst
		s.ease = m.add(easeFirst)
	case s.ease.add(easeTime+joinLag) < m: // all have told what they have seen
		switch b := &s.law.back; {
		case b.share == 0 && b.most <= easeNone:
			s.easeGap = min(2*s.easeGap, easeLast)
		case b.share == 0 || b.known < easeSure:
			s.easeGap = easeNear
		default:
			s.easeGap = easeKnown
		}
		s.ease = max(s.ease.add(s.easeGap), m.add(planLag))
	}
}

// tidy keeps reports short.
func tidy(x float64) float64 { return math.Round(x*1000) / 1000 }
