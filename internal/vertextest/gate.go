package vertextest

import (
	"context"
	"sync"
	"time"
)

// gate holds answers that are ready, so that many leave at the same moment: a
// burst is the worst case for a client's memory, and chance never makes the
// same burst twice.
type gate struct {
	wait time.Duration // how long the first of a group waits at most; 0: for ever

	mu      sync.Mutex
	at      int // a group is complete with so many; 0: nobody is held
	waiting int
	opened  chan struct{} // closed when the present group may go
	timer   *time.Timer   // of the present group; nil without wait
}

func newGate(at int, wait time.Duration) *gate {
	return &gate{at: at, wait: wait, opened: make(chan struct{})}
}

// pass waits until the group of the caller is complete or the gate is opened.
func (g *gate) pass(ctx context.Context) error {
	opened := g.join()
	if opened == nil {
		return nil
	}
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		g.leave(opened)
		return context.Cause(ctx)
	}
}

// join enters the present group; it returns nil when nothing is to be waited for.
func (g *gate) join() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at == 0 {
		return nil
	}
	g.waiting++
	if g.waiting >= g.at {
		g.release()
		return nil
	}
	if g.wait > 0 && g.timer == nil {
		g.timer = time.AfterFunc(g.wait, g.open)
	}
	return g.opened
}

// leave takes back a join, unless the group has gone.
func (g *gate) leave(opened <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if opened == g.opened {
		g.waiting--
	}
}

// open lets those go who wait now. Later calls wait for a group of their own.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.release()
}

// release needs mu.
func (g *gate) release() {
	close(g.opened)
	g.opened = make(chan struct{})
	g.waiting = 0
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
}

// set changes the size of a group and lets those go who make a group of that size already.
func (g *gate) set(at int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = at
	if g.waiting >= at {
		g.release()
	}
}

func (g *gate) state() (at, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.at, g.waiting
}
