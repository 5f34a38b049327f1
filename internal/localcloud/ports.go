package localcloud

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// Ports are the TCP ports to ask for on the loopback interface. 0 is any free one.
type Ports struct {
	PubSub, Storage, BigQuery, BigQueryStorage, Vertex, VertexGRPC int
}

// DefaultPorts are those that each emulator is known by, and two of Vertex's own.
var DefaultPorts = Ports{PubSub: 8085, Storage: 4443, BigQuery: 9050, BigQueryStorage: 9060, Vertex: 8790, VertexGRPC: 8791}

const loopback = "127.0.0.1"

// listen returns a listener on the port, or on a free one when it is taken.
func (Ports) listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	}
	return l, err
}

// address returns what a server that opens its own listener should be told: the port if it is free now, else any free one. A
// port that is taken in between makes that server's start fail; the next start finds another.
func (p Ports) address(port int) string {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil || port == 0 {
		port = 0
	}
	if err == nil {
		_ = l.Close() // never accepted anything
	}
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}
