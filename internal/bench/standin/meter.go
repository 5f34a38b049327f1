package standin

import (
	"context"
	"sync"
)

// Meter is a count that others can wait for. The zero Meter is ready. It is safe for concurrent use.
type Meter struct {
	mu      sync.Mutex
	count   int
	waiters map[*waiter]struct{}
}

type waiter struct {
	at      int
	reached chan struct{}
}

// Add counts n more and returns the count.
func (m *Meter) Add(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count += n
	for w := range m.waiters {
		if m.count >= w.at {
			close(w.reached)
			delete(m.waiters, w)
		}
	}
	return m.count
}

// Count returns the count.
func (m *Meter) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Reach returns when the count is n or more, or with the context's cause when that ends first.
func (m *Meter) Reach(ctx context.Context, n int) error {
	m.mu.Lock()
	if m.count >= n {
		m.mu.Unlock()
		return nil
	}
	w := &waiter{n, make(chan struct{})}
	if m.waiters == nil {
		m.waiters = map[*waiter]struct{}{}
	}
	m.waiters[w] = struct{}{}
	m.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiters, w)
		return context.Cause(ctx)
	}
}
