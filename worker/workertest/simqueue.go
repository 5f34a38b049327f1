package workertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
)

// Times of the queue.
const (
	// A lease lapses this long after the process that holds it stopped extending it: extensions are for 20 s, and come 5 s before the end.
	shortestLease = 5 * time.Second
	longestLease  = 20 * time.Second
	// maxRetryPause is how long the real adapter holds a message before it gives it back.
	maxRetryPause = 10 * time.Second
	// A message that is given back comes again after a pause that doubles from the first to the longest, as the subscriptions' retry policies
	// have it. Steps of batches are not spaced as far.
	firstRedelivery   = time.Second
	longestRedelivery = 10 * time.Minute
	longestStepPause  = time.Minute
	// window is how far out of order messages come.
	window = 64
)

type messageState uint8

const (
	open messageState = iota
	settledAck
	settledDead
)

// topic says which subscription a message is in.
type topic uint8

const (
	onlineJobs topic = iota
	batchJobs
	handoffs // of batches and of ranges of their output
	topics
)

// message is one published message, some 16 bytes: a day has more than a million.
type message struct {
	job       uint32 // or the number of a hand-off
	published uint32 // milliseconds after the day's beginning
	topic     topic
	kind      messageKind
	state     messageState
	again     bool // deliver it although it is acknowledged
	delivered uint16
}

// broker is the subscriptions that all processes share: at-least-once, in no order, with leases. sim.mu guards it.
type broker struct {
	sim       *sim
	messages  []message
	subs      [topics]subscription
	unsettled int
	resending int // dead letters that their owner is about to send again
	handed    uint64
}

type subscription struct {
	waiting   []int
	receivers []chan int
}

func (q *broker) publish(kind messageKind, t topic, job int) {
	q.sim.mu.Lock()
	defer q.sim.mu.Unlock()
	q.accept(kind, t, job)
}

// accept takes a message. The caller holds sim.mu.
func (q *broker) accept(kind messageKind, t topic, job int) {
	s := q.sim
	q.messages = append(q.messages, message{job: uint32(job), published: s.millis(), kind: kind, topic: t})
	q.unsettled++
	if kind == valid && t != handoffs {
		s.audit.accepted(job)
	}
	if s.cfg.sabotage == droppingQueue && kind == valid && s.pick(job) || s.cfg.sabotage == lostHandoffs && t == handoffs && s.pick(job) {
		q.messages[len(q.messages)-1].state = settledAck
		q.unsettled--
		return
	}
	q.push(len(q.messages) - 1)
}

// push makes a message deliverable. The caller holds sim.mu.
func (q *broker) push(m int) {
	sub := &q.subs[q.messages[m].topic]
	sub.waiting = append(sub.waiting, m)
	q.hand(sub)
}

// hand gives waiting messages to waiting receivers. The caller holds sim.mu.
func (q *broker) hand(sub *subscription) {
	for len(sub.receivers) > 0 && !q.sim.down(svcQueue) {
		m, ok := q.pop(sub)
		if !ok {
			return
		}
		q.handed++
		i := int(q.sim.dice.bits(saltOrder, q.handed, 0) % uint64(len(sub.receivers)))
		sub.receivers[i] <- m
		sub.receivers = slices.Delete(sub.receivers, i, i+1)
	}
}

func (q *broker) pop(sub *subscription) (int, bool) {
	for len(sub.waiting) > 0 {
		i := 0
		if q.sim.may(Reorder) {
			i = int(q.sim.dice.bits(saltOrder, q.handed, 1) % uint64(min(window, len(sub.waiting))))
		}
		m := sub.waiting[i]
		sub.waiting[i] = sub.waiting[0]
		sub.waiting = sub.waiting[1:]
		if q.messages[m].state == open || q.messages[m].again {
			q.messages[m].again = false
			return m, true
		}
	}
	return 0, false
}

// later makes a message deliverable after a pause.
func (q *broker) later(m int, after time.Duration) {
	time.AfterFunc(after, func() {
		q.sim.mu.Lock()
		defer q.sim.mu.Unlock()
		q.push(m)
	})
}

// lapse lets the leases of a process lapse, in time, that died or is frozen.
func (q *broker) lapse(p *process, dead bool) {
	s := q.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make([]int, 0, len(p.leased))
	for m := range p.leased {
		held = append(held, m)
	}
	slices.Sort(held)
	for _, m := range held {
		q.lapseOne(p, m, dead)
	}
}

// lapseOne lets one lease lapse, in time, if its process does not come back before. The caller holds sim.mu.
func (q *broker) lapseOne(p *process, m int, dead bool) {
	s := q.sim
	time.AfterFunc(s.dice.between(saltLease, uint64(m), uint64(p.id), shortestLease, longestLease), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		gone := dead || p.dead() || time.Now().Before(p.frozenUntil) || s.down(svcQueue) || p.cutOff(svcQueue)
		if !gone || p.leased[m] <= 0 || q.messages[m].state != open {
			return
		}
		s.books.LeasesLapsed++
		if dead {
			delete(p.leased, m)
		}
		q.push(m)
	})
}

// subscriber is a subscription as one process sees it.
type subscriber struct {
	*process
	topic  topic
	places int // messages that are handled at a time
}

// Receive implements worker.Queue.
func (p subscriber) Receive(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	if p.sim.cfg.sabotage == greedyQueue {
		p.places *= 2
	}
	slots := make(chan struct{}, p.places)
	var handlers sync.WaitGroup
	for {
		m, err := p.next(ctx, slots)
		if errors.Is(err, errKilled) {
			return err // handlers end by themselves, without effect
		}
		if err != nil {
			break
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			p.deliver(ctx, m, handle)
		})
	}
	ended := make(chan struct{})
	go func() { handlers.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-p.killed:
		return errKilled
	}
}

// next waits for a free place and a message.
func (p subscriber) next(ctx context.Context, slots chan struct{}) (int, error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-p.killed:
		return 0, errKilled
	}
	s, q := p.sim, p.sim.queue
	sub := &q.subs[p.topic]
	if err := p.connect(ctx); err != nil {
		return 0, err
	}
	mine := make(chan int, 1)
	s.mu.Lock()
	sub.receivers = append(sub.receivers, mine)
	q.hand(sub)
	s.mu.Unlock()
	var why error
	select {
	case m := <-mine:
		return m, p.take(m)
	case <-ctx.Done():
		why = context.Cause(ctx)
	case <-p.killed:
		why = errKilled
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(sub.receivers, mine); i >= 0 {
		sub.receivers = slices.Delete(sub.receivers, i, i+1)
	} else {
		q.push(<-mine)
	}
	return 0, why
}

// connect waits until this process reaches the queue.
func (p subscriber) connect(ctx context.Context) error {
	for {
		if err := p.gate(); err != nil {
			return err
		}
		p.sim.mu.Lock()
		out := p.cutOff(svcQueue)
		p.sim.mu.Unlock()
		if !out {
			return nil
		}
		if err := p.pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// take begins the lease of a message that was handed to this process.
func (p subscriber) take(m int) error {
	s, q := p.sim, p.sim.queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead() {
		q.push(m)
		return errKilled
	}
	msg := &q.messages[m]
	msg.delivered++
	if msg.delivered > 1 {
		s.books.Redelivered++
	}
	s.books.Deliveries++
	p.leased[m]++
	if p.held[p.topic]++; p.held[p.topic] > p.room() {
		s.audit.violate(bounded, "%s has %d messages in hand, with room for %d", p.name, p.held[p.topic], p.room())
	}
	if time.Now().Before(p.frozenUntil) {
		q.lapseOne(p.process, m, false)
	}
	if s.may(DuplicateDeliver) && s.dice.roll(saltDuplicate, uint64(m), uint64(msg.delivered)) < 0.005 {
		msg.again = true
		q.later(m, s.dice.between(saltDuplicate, uint64(m), 1<<32, 0, 2*time.Minute))
	}
	if s.cfg.sabotage == eagerQueue && s.pick(m) {
		q.settle(p.process, m, jobs.Verdict{Action: jobs.Ack})
	}
	return nil
}

// room is how many messages the process is to handle at a time.
func (p subscriber) room() int {
	if p.sim.cfg.sabotage == greedyQueue {
		return p.places / 2
	}
	return p.places
}

func (p subscriber) deliver(receiving context.Context, m int, handle func(context.Context, *jobs.Delivery) jobs.Verdict) {
	s, q := p.sim, p.sim.queue
	s.mu.Lock()
	msg := &q.messages[m]
	d := &jobs.Delivery{ID: messageID(m), Data: s.data(msg, p.skew), Published: s.began.Add(time.Duration(msg.published) * time.Millisecond)}
	s.mu.Unlock()
	began := s.now()
	v := handle(context.WithoutCancel(receiving), d)
	s.mu.Lock()
	p.held[p.topic]--
	s.audit.handled(p.process, m, span{began, s.now()})
	s.mu.Unlock()
	if v.Action == jobs.Dead {
		// As in the real adapter: the dead letter first, then the acknowledgement.
		err := p.request(context.Background(), svcQueue, aboutMessage(m), func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.audit.buried(p.process, m, v.Reason, d)
			return nil
		})
		if err != nil {
			v = jobs.Verdict{Action: jobs.Retry, After: maxRetryPause}
		}
	}
	if v.Action != jobs.Ack && v.Action != jobs.Dead {
		_ = retry.Sleep(receiving, min(v.After, maxRetryPause))
	}
	if p.gate() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q.settle(p.process, m, v)
}

// pause is how long a message that is given back waits at most.
func (q *broker) pause(msg *message) time.Duration {
	longest := longestRedelivery
	if msg.topic == handoffs {
		longest = longestStepPause
	}
	return min(firstRedelivery<<min(msg.delivered-1, 16), longest)
}

func messageID(m int) string { return fmt.Sprintf("m%d", m) }

// settle carries out a verdict. The caller holds sim.mu.
func (q *broker) settle(p *process, m int, v jobs.Verdict) {
	s, msg := q.sim, &q.messages[m]
	if p.leased[m]--; p.leased[m] <= 0 {
		delete(p.leased, m)
	}
	about, n := aboutMessage(m), uint64(msg.delivered)
	lease := s.dice.between(saltLease, about, n, shortestLease, longestLease)
	if v.Action == jobs.Retry {
		if msg.state == open {
			pause := q.pause(msg)
			q.later(m, s.dice.between(saltPause, about, n, pause/2, pause))
		}
		return
	}
	if msg.state == open {
		s.audit.settled(m, msg, v)
	}
	lost := s.may(LostAck) && s.dice.roll(saltAck, about, n) < 0.01 || s.down(svcQueue) || p.cutOff(svcQueue)
	if lost {
		if msg.state == open {
			s.books.LostAcks++
			q.later(m, lease)
		}
		return
	}
	if msg.state == open {
		msg.state = settledAck
		if v.Action == jobs.Dead {
			msg.state = settledDead
		}
		q.unsettled--
	}
}
