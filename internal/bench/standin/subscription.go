package standin

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/assetmill/assetmill/schemas"
)

// subscription is the messages that wait or are leased, and the streams that take them.
type subscription struct {
	resource *pubsubpb.Subscription

	mu          sync.Mutex
	ready       []*pubsubpb.PubsubMessage
	leases      map[string]*lease // by ack id
	streams     []*stream
	next        int // stream to be served
	ids         int // ack ids given
	acked       int
	redelivered int
}

// lease is a message that somebody has, or that rests after it was given back.
type lease struct {
	message  *pubsubpb.PubsubMessage
	holder   *stream // nil while it rests
	deadline time.Time
}

// stream is one StreamingPull. Its fields are guarded by the subscription's lock.
type stream struct {
	most    int // outstanding messages; 0: no bound
	out     int
	pings   int
	pending []*pubsubpb.ReceivedMessage
	signal  chan struct{} // has a token when there is something to send
}

func (s *stream) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func newSubscription(resource *pubsubpb.Subscription) *subscription {
	return &subscription{resource: resource, leases: map[string]*lease{}}
}

// wanted returns the messages that the subscription's filter lets through.
func (s *subscription) wanted(messages []*pubsubpb.PubsubMessage) []*pubsubpb.PubsubMessage {
	filter := s.resource.GetFilter()
	return slices.DeleteFunc(slices.Clone(messages), func(m *pubsubpb.PubsubMessage) bool {
		batch := m.GetAttributes()[schemas.AttributeMode] == "batch"
		return filter == schemas.BatchFilter && !batch || filter == schemas.OnlineFilter && batch
	})
}

func (s *subscription) addTo(stats *QueueStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Acked += s.acked
	stats.Redelivered += s.redelivered
	stats.Waiting += len(s.ready)
	stats.Leased += len(s.leases)
}

func (s *subscription) add(messages []*pubsubpb.PubsubMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, messages...)
	s.dispatch()
}

func (s *subscription) open(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append(s.streams, st)
	s.dispatch()
}

// close forgets a stream. What it has stays leased until its deadline, as with the real service.
func (s *subscription) close(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = slices.DeleteFunc(s.streams, func(other *stream) bool { return other == st })
}

// dispatch hands messages to the streams that have room, one after the other. The caller holds the lock.
func (s *subscription) dispatch() {
	deadline := time.Now().Add(firstLease)
	full := 0 // streams in a row that have no room
	for len(s.ready) > 0 && full < len(s.streams) {
		s.next = (s.next + 1) % len(s.streams)
		st := s.streams[s.next]
		if st.most > 0 && st.out >= st.most {
			full++
			continue
		}
		full = 0
		m := s.ready[0]
		s.ready[0] = nil
		s.ready = s.ready[1:]
		s.ids++
		id := strconv.Itoa(s.ids)
		s.leases[id] = &lease{m, st, deadline}
		st.out++
		st.pending = append(st.pending, &pubsubpb.ReceivedMessage{AckId: id, Message: m})
		st.wake()
	}
}

// pending takes what is to be sent on a stream.
func (s *subscription) pending(st *stream) (answers []*pubsubpb.StreamingPullResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range st.pings {
		answers = append(answers, &pubsubpb.StreamingPullResponse{})
	}
	for some := range slices.Chunk(st.pending, maxDelivery) {
		answers = append(answers, &pubsubpb.StreamingPullResponse{ReceivedMessages: some})
	}
	st.pings, st.pending = 0, nil
	return answers
}

// listen takes a stream's requests: acknowledgements, extensions, and pings, which want an answer.
func (s *subscription) listen(server pubsubpb.Subscriber_StreamingPullServer, st *stream) error {
	for {
		req, err := server.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.ack(req.GetAckIds())
		for i, id := range req.GetModifyDeadlineAckIds() {
			if i < len(req.GetModifyDeadlineSeconds()) {
				s.modify([]string{id}, time.Duration(req.GetModifyDeadlineSeconds()[i])*time.Second)
			}
		}
		s.mu.Lock()
		st.pings++
		s.mu.Unlock()
		st.wake()
	}
}

func (s *subscription) ack(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if l, ok := s.leases[id]; ok {
			s.acked++
			l.leave()
			delete(s.leases, id)
		}
	}
	s.dispatch()
}

// leave takes a message off what its stream has outstanding.
func (l *lease) leave() {
	if l.holder != nil {
		l.holder.out--
		l.holder = nil
	}
}

// modify extends leases, or with no time gives messages back, to rest for a while.
func (s *subscription) modify(ids []string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		l, ok := s.leases[id]
		if !ok || l.holder == nil {
			continue
		}
		if l.deadline = now.Add(d); d == 0 {
			l.leave()
			l.deadline = now.Add(nackPause)
		}
	}
	s.dispatch()
}

// expire makes messages ready whose leases have run out, or that have rested.
func (s *subscription) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.leases {
		if now.After(l.deadline) {
			l.leave()
			delete(s.leases, id)
			s.redelivered++
			s.ready = append(s.ready, l.message)
		}
	}
	s.dispatch()
}
