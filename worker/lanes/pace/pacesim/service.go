package pacesim

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	// burst is how much unused quota the service keeps, as time: it spaces calls
	// below one second.
	burst = 250 * time.Millisecond

	// growthWindow is over how long the admitted rate is averaged that a bound on
	// growth lets grow.
	growthWindow = time.Minute
)

// Step is a change of the quota. An outage is a step to 0.
type Step struct {
	At        time.Duration
	PerMinute float64
}

// service is the hidden quota: one token bucket, whose filling rate follows the
// steps, the noise and the bound on growth.
type service struct {
	sc     *Scenario
	points []float64 // noise, one point a period
	chance *rand.Rand

	tokens   float64
	at       time.Duration
	admitted float64 // calls a minute, averaged over growthWindow
}

func newService(sc *Scenario, seed uint64) *service {
	s := &service{sc: sc, chance: rand.New(rand.NewPCG(seed, 0x636f6e74656e64))}
	if sc.Noise > 0 {
		r := rand.New(rand.NewPCG(seed, 0x6e6f697365))
		for range int(sc.Duration/sc.NoisePeriod) + 2 {
			s.points = append(s.points, 2*r.Float64()-1)
		}
	}
	s.tokens = s.keeps(s.quota(0) / 60)
	return s
}

// quota is the hidden quota in calls a minute, without the bound on growth.
func (s *service) quota(now time.Duration) float64 {
	q := 0.0
	for _, step := range s.sc.Steps {
		if step.At > now {
			break
		}
		q = step.PerMinute
	}
	if s.points == nil {
		return q
	}
	i, part := math.Modf(now.Seconds() / s.sc.NoisePeriod.Seconds())
	n := s.points[int(i)]*(1-part) + s.points[int(i)+1]*part
	return q * (1 + s.sc.Noise*n)
}

func (s *service) keeps(perSecond float64) float64 {
	return max(1, perSecond*burst.Seconds())
}

// take reports whether a call that arrives now is admitted.
func (s *service) take(now time.Duration) bool {
	elapsed := (now - s.at).Seconds()
	s.at = now
	perMinute := s.quota(now)
	if g := s.sc.Growth; g > 0 {
		s.admitted *= math.Exp(-elapsed / growthWindow.Seconds())
		perMinute = min(perMinute, s.admitted+g)
	}
	s.tokens = min(s.keeps(perMinute/60), s.tokens+elapsed*perMinute/60)
	contended := s.sc.Contended > 0 && s.chance.Float64() < s.sc.Contended
	if perMinute == 0 || s.tokens < 1 || contended {
		return false
	}
	s.tokens--
	s.admitted += 1 / growthWindow.Minutes()
	return true
}

// capacity is what a client that knew everything could get in each second, in
// calls. Under a bound on growth it is the steepest ramp that the bound allows.
func (s *service) capacity() []float64 {
	all := make([]float64, int(s.sc.Duration/time.Second))
	admitted := 0.0
	for i := range all {
		q := s.quota(time.Duration(i)*time.Second + time.Second/2)
		if s.sc.Growth > 0 {
			q = min(q, admitted+s.sc.Growth)
			admitted += (q - admitted) / growthWindow.Seconds()
		}
		all[i] = q / 60
	}
	return all
}
