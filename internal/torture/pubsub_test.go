//go:build linux

package torture

import (
	"context"
	"net"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/assetmill/assetmill/internal/localcloud"
)

// startPubSub serves a Pub/Sub that keeps to each stream's bound of outstanding messages, as the real one does. pstest alone
// sends all it has to whoever asks first: there it waits, leased and unread, while other workers have nothing to do, and when that worker
// stops or dies nobody gets it for the length of a lease. The scenarios would measure this.
func startPubSub() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	fake := localcloud.NewPubSub(time.Now)
	f := &flowServer{GServer: &fake.GServer, holders: map[string]*flowStream{}}
	front := grpc.NewServer()
	pubsubpb.RegisterPublisherServer(front, f.GServer)
	pubsubpb.RegisterSubscriberServer(front, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = front.Serve(l) }) // ends with Stop
	return l.Addr().String(), func() {
		front.Stop()
		serving.Wait()
		_ = fake.Close()
	}, nil
}

// flowServer is pstest with flow control.
type flowServer struct {
	*pstest.GServer
	mu      sync.Mutex
	holders map[string]*flowStream // by ack id
}

// flowStream is a stream and what it has outstanding.
type flowStream struct {
	pubsubpb.Subscriber_StreamingPullServer
	server  *flowServer
	sending sync.Mutex
	most    int           // 0: no bound; guarded by server.mu
	out     int           // guarded by server.mu
	room    chan struct{} // has a token when something was settled
}

// StreamingPull implements pubsubpb.SubscriberServer.
func (f *flowServer) StreamingPull(s pubsubpb.Subscriber_StreamingPullServer) error {
	return f.GServer.StreamingPull(&flowStream{Subscriber_StreamingPullServer: s, server: f, room: make(chan struct{}, 1)})
}

// Recv reads the bound from the stream's first request, and answers the client's pings: pstest answers them while it holds the lock of
// the whole server, and would wait there for a Send that waits for room.
func (s *flowStream) Recv() (*pubsubpb.StreamingPullRequest, error) {
	for {
		req, err := s.Subscriber_StreamingPullServer.Recv()
		if err != nil {
			return nil, err
		}
		if req.GetSubscription() != "" {
			s.server.mu.Lock()
			s.most = int(req.GetMaxOutstandingMessages())
			s.server.mu.Unlock()
			return req, nil
		}
		if err := s.transmit(&pubsubpb.StreamingPullResponse{}); err != nil {
			return nil, err
		}
	}
}

// Send sends, and then waits until there is room for more: pstest hands a message to a stream only when its Send has returned.
func (s *flowStream) Send(res *pubsubpb.StreamingPullResponse) error {
	s.server.mu.Lock()
	for _, m := range res.GetReceivedMessages() {
		s.server.holders[m.GetAckId()] = s
		s.out++
	}
	s.server.mu.Unlock()
	if err := s.transmit(res); err != nil {
		return err
	}
	for s.full() {
		select {
		case <-s.room:
		case <-s.Context().Done():
			return nil
		}
	}
	return nil
}

// transmit sends from any goroutine; a stream's own Send takes one at a time.
func (s *flowStream) transmit(res *pubsubpb.StreamingPullResponse) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.Subscriber_StreamingPullServer.Send(res)
}

func (s *flowStream) full() bool {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.most > 0 && s.out >= s.most
}

// settle takes messages off what is outstanding.
func (f *flowServer) settle(ackIDs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ackIDs {
		s, held := f.holders[id]
		if !held {
			continue
		}
		delete(f.holders, id)
		s.out--
		select {
		case s.room <- struct{}{}:
		default:
		}
	}
}

// Acknowledge implements pubsubpb.SubscriberServer.
func (f *flowServer) Acknowledge(ctx context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	f.settle(req.GetAckIds())
	return f.GServer.Acknowledge(ctx, req)
}

// ModifyAckDeadline implements pubsubpb.SubscriberServer.
func (f *flowServer) ModifyAckDeadline(ctx context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	if req.GetAckDeadlineSeconds() == 0 {
		f.settle(req.GetAckIds())
	}
	return f.GServer.ModifyAckDeadline(ctx, req)
}
