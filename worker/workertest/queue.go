package workertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Queue is a subscription in memory: it delivers each message until a handler acknowledges it or gives it up.
type Queue struct {
	mu        sync.Mutex
	waiting   []*jobs.Delivery
	wake      chan struct{}
	published [][]byte
	out       int // delivered, and not settled yet
	acked     []string
	dead      []DeadLetter
	retried   []jobs.Verdict
}

// DeadLetter is a message that was given up.
type DeadLetter struct {
	jobs.Delivery
	Verdict jobs.Verdict
}

// NewQueue returns an empty queue.
func NewQueue() *Queue { return &Queue{wake: make(chan struct{}, 1)} }

// Publish adds a message and returns its id.
func (q *Queue) Publish(data []byte, attributes map[string]string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	data = bytes.Clone(data)
	q.published = append(q.published, data)
	id := fmt.Sprintf("m%d", len(q.published))
	q.waiting = append(q.waiting, &jobs.Delivery{ID: id, Data: data, Attributes: maps.Clone(attributes), Published: time.Now()})
	q.signal()
	return id
}

// Redeliver delivers an acknowledged message again, as Pub/Sub may.
func (q *Queue) Redeliver(d *jobs.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, d)
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Receive implements worker.Queue. It handles any number of messages at a time.
func (q *Queue) Receive(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		}
		for d := q.next(); d != nil; d = q.next() {
			handlers.Go(func() { q.settle(ctx, d, handle(context.WithoutCancel(ctx), d)) })
		}
	}
}

func (q *Queue) next() *jobs.Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	d := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.out++
	return d
}

func (q *Queue) settle(ctx context.Context, d *jobs.Delivery, v jobs.Verdict) {
	if v.Action == jobs.Retry {
		select {
		case <-time.After(v.After):
		case <-ctx.Done():
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out--
	switch v.Action {
	case jobs.Ack:
		q.acked = append(q.acked, d.ID)
	case jobs.Dead:
		q.dead = append(q.dead, DeadLetter{*d, v})
	default:
		q.retried = append(q.retried, v)
		q.waiting = append(q.waiting, d)
		q.signal()
	}
}

// Published returns the data of all messages, in the order in which they were published.
func (q *Queue) Published() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.published)
}

// Waiting returns the number of messages that wait for delivery.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// Held returns the number of messages that are neither acknowledged nor given up.
func (q *Queue) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) + q.out
}

// Acked returns the ids of the acknowledged messages, in order.
func (q *Queue) Acked() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.acked...)
}

// Dead returns the messages that were given up, in order.
func (q *Queue) Dead() []DeadLetter {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]DeadLetter(nil), q.dead...)
}

// Retried returns the verdicts that asked for another delivery, in order.
func (q *Queue) Retried() []jobs.Verdict {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]jobs.Verdict(nil), q.retried...)
}
