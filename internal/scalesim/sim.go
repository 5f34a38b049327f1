package scalesim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// sim is a scenario on its way. Times are seconds.
type sim struct {
	*Scenario
	rng      *rand.Rand
	lanes    []*lane
	pods     []*pod // in the order of their creation
	scaler   autoscaler
	arrivals []arrival

	now     int
	queue   int // messages that no worker holds
	arrived int
	done    int
	oldest  int // index into arrivals of the first of which jobs are not done
	created int // pods

	queueSeen, workersSeen lagged
	result                 *Result
	counts                 // over the current minute
}

// arrival is an Arrival at work.
type arrival struct {
	Arrival
	begin, over int
	came        int
}

// counts are sums over a minute.
type counts struct{ images, attempts, throttles int }

// Run simulates a scenario. It fails if the scenario makes no sense.
func Run(sc *Scenario) (*Result, error) {
	if err := sc.check(); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	total := 0
	for _, a := range sc.Arrivals {
		total += a.Jobs
	}
	s := newSim(sc)
	for s.now = 0; s.now < secs(sc.Length); s.now++ {
		s.second()
		if sc.UntilDone && s.done == total {
			break
		}
	}
	s.finish()
	return s.result, nil
}

func newSim(sc *Scenario) *sim {
	s := &sim{
		Scenario: sc, rng: rand.New(rand.NewPCG(sc.Seed, 0)), result: &Result{},
		scaler:      autoscaler{rules: sc.Rules, replicas: sc.Rules.MinWorkers},
		queueSeen:   lagged{every: secs(sc.Metrics.QueueEvery), hidden: secs(sc.Metrics.QueueHidden)},
		workersSeen: lagged{every: secs(sc.Metrics.WorkerEvery), hidden: secs(sc.Metrics.WorkerHidden)},
	}
	for i := range sc.Lanes {
		s.lanes = append(s.lanes, newLane(&sc.Lanes[i]))
	}
	for _, a := range slices.SortedStableFunc(slices.Values(sc.Arrivals), func(a, b Arrival) int { return cmp.Compare(a.At, b.At) }) {
		s.arrivals = append(s.arrivals, arrival{Arrival: a, begin: secs(a.At), over: max(1, secs(a.Over))})
		if a.Name != "" {
			s.result.Campaigns = append(s.result.Campaigns, CampaignEnd{Name: a.Name, Jobs: a.Jobs, At: a.At + a.Over})
		}
	}
	return s
}

// second lets one second pass.
func (s *sim) second() {
	s.arrive()
	for _, l := range s.lanes {
		l.tick(s.now, s.callers())
	}
	s.settle()
	s.pull()
	s.call()
	s.scale()
	s.result.PodSeconds += len(s.pods)
	if s.now%60 == 59 {
		s.sample()
	}
}

func (s *sim) arrive() {
	for i := range s.arrivals {
		a := &s.arrivals[i]
		if s.now < a.begin {
			break
		}
		due := a.Jobs
		if gone := s.now - a.begin + 1; gone < a.over {
			due = a.Jobs * gone / a.over
		}
		s.queue += due - a.came
		s.arrived += due - a.came
		a.came = due
	}
}

// callers is how many workers may begin calls.
func (s *sim) callers() (n int) {
	for _, p := range s.pods {
		n += boolean(p.state == ready)
	}
	return n
}

// settle ends calls, starts workers that are up, and takes away those that have stopped.
func (s *sim) settle() {
	left := s.pods[:0]
	for _, p := range s.pods {
		done := p.settle(s.now, secs(s.Worker.Handling))
		s.done += done
		s.images += done
		if p.state == starting && s.now >= p.readyAt {
			p.state = ready
		}
		if p.state == draining && s.now >= p.cutAt && p.inFlight > 0 {
			s.result.Lost += p.inFlight
			s.result.LostSlow += p.slow
			s.queue += p.inFlight
			p.ends, p.inFlight, p.slow = [ringSeconds]ending{}, 0, 0
		}
		if p.state == draining {
			// What comes back for another call is left to others.
			s.queue += p.waiting.total
			p.waiting = queue{}
			if p.held() == 0 {
				continue
			}
		}
		left = append(left, p)
	}
	clear(s.pods[len(left):])
	s.pods = left
}

// pull lets the workers take messages. Each second another is first.
func (s *sim) pull() {
	for i := range s.pods {
		if s.queue == 0 {
			return
		}
		p := s.pods[(i+s.now)%len(s.pods)]
		if p.state != ready {
			continue
		}
		n := min(s.queue, s.Worker.Concurrency-p.held())
		p.waiting.push(s.now, n)
		s.queue -= n
	}
}

// call begins calls on each lane, shared out evenly among the workers whose jobs wait for it.
func (s *sim) call() {
	workers := s.callers()
	for _, l := range s.lanes {
		since := s.now - secs(l.spec.Spill)
		want := 0
		for _, p := range s.pods {
			want += p.waiting.since(since)
		}
		n := min(want, l.room())
		if n == 0 {
			continue
		}
		taken := l.attempt(n, workers, want > n)
		s.attempts += n
		s.throttles += n - taken
		s.share(l, since, taken)
	}
}

func (s *sim) share(l *lane, since, n int) {
	for offset := s.now; n > 0; offset++ {
		wanting := 0
		for _, p := range s.pods {
			wanting += boolean(p.waiting.since(since) > 0)
		}
		each := max(1, n/wanting)
		for i := range s.pods {
			p := s.pods[(i+offset)%len(s.pods)]
			k := min(each, n, p.waiting.since(since))
			s.begin(l, p, k)
			n -= k
		}
	}
}

func (s *sim) begin(l *lane, p *pod, n int) {
	p.waiting.pop(n)
	for range n {
		length, slow := l.length(s.rng)
		again := l.spec.Calls.Again > 0 && s.rng.IntN(million) < l.spec.Calls.Again
		l.again += boolean(again)
		p.begin(s.now+length, again, slow)
	}
	l.begun += n
}

// scale shows the metrics to the autoscaler, and makes the fleet as large as it asks for.
func (s *sim) scale() {
	q, w := s.queueSeen.at(s.now, s.measure), s.workersSeen.at(s.now, s.measure)
	want := s.scaler.step(s.now, s.callers(), seen{
		backlog: q.backlog, oldest: q.oldest, inFlight: w.inFlight, waiting: w.waiting, capacity: w.capacity, throttled: w.throttled,
	})
	alive := 0
	for _, p := range s.pods {
		alive += boolean(p.state != draining)
	}
	for ; alive < want; alive++ {
		s.created++
		spread := secs(s.Pods.StartMax) - secs(s.Pods.StartMin)
		s.pods = append(s.pods, &pod{number: s.created, readyAt: s.now + secs(s.Pods.StartMin) + s.rng.IntN(spread+1)})
	}
	for ; alive > want; alive-- {
		s.stop(s.victim())
	}
}

// measure is the truth.
func (s *sim) measure() seen {
	m := seen{backlog: s.arrived - s.done, oldest: s.age()}
	for _, p := range s.pods {
		if p.state != starting {
			m.inFlight += p.inFlight
			m.waiting += p.waiting.total
			m.capacity += s.Worker.Concurrency
		}
	}
	attempts, throttles := 0, 0
	for _, l := range s.lanes {
		attempts += l.attempts.sum
		throttles += l.throttles.sum
	}
	if attempts > 0 {
		m.throttled = 1000 * throttles / attempts
	}
	return m
}

// age is how long ago the oldest job came that is not done, taken that jobs are done in the order in which they come.
func (s *sim) age() int {
	if s.done == s.arrived {
		return 0
	}
	// Arrivals may overlap: find the second in which the job came by what had come until then.
	for low, high := s.oldest, s.now; ; {
		middle := (low + high) / 2
		if s.cameUntil(middle) > s.done {
			high = middle
		} else {
			low = middle + 1
		}
		if low >= high {
			s.oldest = low
			return s.now - low
		}
	}
}

// cameUntil is the number of jobs that came until the end of a second.
func (s *sim) cameUntil(at int) (n int) {
	for i := range s.arrivals {
		a := &s.arrivals[i]
		switch gone := at - a.begin + 1; {
		case gone <= 0:
			return n
		case gone < a.over:
			n += a.Jobs * gone / a.over
		default:
			n += a.Jobs
		}
	}
	return n
}

// victim is the pod that goes first when the fleet shrinks: one that is not ready yet, else the one that has been ready for the shortest time, as in a
// ReplicaSet.
func (s *sim) victim() *pod {
	var v *pod
	for _, p := range s.pods {
		if p.state != draining && (v == nil || p.readyAt >= v.readyAt) {
			v = p
		}
	}
	return v
}

// stop tells a pod to stop. It gives back what waits.
func (s *sim) stop(p *pod) {
	if p.state == ready {
		s.result.Stops++
		s.result.InFlightAtStops += p.inFlight
	}
	s.queue += p.waiting.total
	p.state, p.cutAt, p.waiting = draining, s.now+secs(s.Worker.Grace), queue{}
}

// lagged shows samples late.
type lagged struct {
	every, hidden int
	samples       []sampled
}

type sampled struct {
	at int
	seen
}

func (l *lagged) at(now int, measure func() seen) seen {
	if now%l.every == 0 {
		l.samples = append(l.samples, sampled{now, measure()})
	}
	for len(l.samples) > 1 && l.samples[1].at+l.hidden <= now {
		l.samples = l.samples[1:]
	}
	if len(l.samples) == 0 || l.samples[0].at+l.hidden > now {
		return seen{}
	}
	return l.samples[0].seen
}

func (sc *Scenario) check() error {
	switch {
	case sc.Length <= 0 || sc.Length > maxLength:
		return fmt.Errorf("length %s is not up to %s", sc.Length, maxLength)
	case len(sc.Lanes) == 0:
		return fmt.Errorf("no lane")
	case sc.Worker.Concurrency < 1 || sc.Rules.MaxWorkers < 1 || sc.Rules.PerWorker < 1:
		return fmt.Errorf("no worker")
	case sc.Pods.StartMin > sc.Pods.StartMax:
		return fmt.Errorf("pods start after %s at least and %s at most", sc.Pods.StartMin, sc.Pods.StartMax)
	}
	for _, d := range []time.Duration{sc.Metrics.QueueEvery, sc.Metrics.WorkerEvery, sc.Rules.Poll} {
		if d < time.Second {
			return fmt.Errorf("an interval of %s is shorter than a second", d)
		}
	}
	for _, a := range sc.Arrivals {
		if a.Jobs < 0 || a.At < 0 || a.Over < 0 {
			return fmt.Errorf("%d jobs arrive after %s, within %s", a.Jobs, a.At, a.Over)
		}
	}
	for _, l := range sc.Lanes {
		c := l.Calls
		switch {
		case len(l.Quota) == 0 || l.Quota[0].At != 0:
			return fmt.Errorf("lane %s has no quota at the beginning", l.Name)
		case !(0 < c.Shortest && c.Shortest < c.Mean && c.Mean < c.Longest):
			return fmt.Errorf("calls of lane %s take from %s, %s on average, to %s", l.Name, c.Shortest, c.Mean, c.Longest)
		case c.Slow > 0 && c.SlowUpTo <= c.Longest:
			return fmt.Errorf("slow calls of lane %s take up to %s, others %s", l.Name, c.SlowUpTo, c.Longest)
		case secs(max(c.Longest, c.SlowUpTo)+sc.Worker.Handling) >= ringSeconds:
			return fmt.Errorf("calls of lane %s may take %d s at most", l.Name, ringSeconds)
		}
	}
	return nil
}
