package scalesim

// ringSeconds is longer than any call and what follows it.
const ringSeconds = 512

// state is where a pod is in its life.
type state uint8

const (
	starting state = iota
	ready
	draining
)

// pod is one worker. Its calls are counted by the second in which they end.
type pod struct {
	state    state
	number   int // pods are numbered in the order of their creation
	readyAt  int
	cutAt    int // when calls in flight are cut off; for draining
	waiting  queue
	inFlight int
	slow     int // of these, those that take longer than usual calls
	storing  int // images that are being stored and recorded
	ends     [ringSeconds]ending
	stored   [ringSeconds]int
}

// ending is the calls that end in one second.
type ending struct{ image, again, slow int }

func (p *pod) held() int { return p.waiting.total + p.inFlight + p.storing }

// queue is jobs that wait in a worker, by the second in which they came.
type queue struct {
	cohorts []change
	total   int
}

func (q *queue) push(now, n int) {
	if n == 0 {
		return
	}
	q.total += n
	if last := len(q.cohorts) - 1; last >= 0 && q.cohorts[last].at == now {
		q.cohorts[last].n += n
		return
	}
	q.cohorts = append(q.cohorts, change{now, n})
}

// since is the number of jobs that have waited since a time or longer.
func (q *queue) since(at int) (n int) {
	if last := len(q.cohorts) - 1; last < 0 || q.cohorts[last].at <= at {
		return q.total
	}
	for _, c := range q.cohorts {
		if c.at > at {
			break
		}
		n += c.n
	}
	return n
}

// pop takes those that have waited longest.
func (q *queue) pop(n int) {
	q.total -= n
	for n > 0 {
		first := &q.cohorts[0]
		take := min(n, first.n)
		first.n -= take
		n -= take
		if first.n == 0 {
			q.cohorts = q.cohorts[1:]
		}
	}
}

// settle ends what ends in this second, and returns how many jobs are done.
func (p *pod) settle(now, handling int) int {
	i := now % ringSeconds
	e := p.ends[i]
	p.ends[i] = ending{}
	p.inFlight -= e.image + e.again
	p.slow -= e.slow
	p.waiting.push(now, e.again)
	p.storing += e.image
	p.stored[(now+handling)%ringSeconds] += e.image
	done := p.stored[i]
	p.stored[i] = 0
	p.storing -= done
	return done
}

// begin notes a call that ends at a time.
func (p *pod) begin(end int, again, slow bool) {
	e := &p.ends[end%ringSeconds]
	if again {
		e.again++
	} else {
		e.image++
	}
	e.slow += boolean(slow)
	p.slow += boolean(slow)
	p.inFlight++
}
