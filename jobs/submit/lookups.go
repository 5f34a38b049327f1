package submit

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"
)

// Bounds of looking up references. Campaigns use few references in many rows, so nearly all look-ups end in the cache.
const (
	lookupsAtATime = 32
	lookupCache    = 65_536 // URIs
)

// lookups finds references that do not exist, beside the reading of the file. What can't be found out counts as existing:
// Vertex reads references with an account of its own, and the job's outcome will tell.
type lookups struct {
	ctx    context.Context
	refs   References
	group  errgroup.Group
	known  *lru.Cache[string, bool]
	mu     sync.Mutex
	absent []missing
}

// missing is a row whose reference does not exist.
type missing struct {
	entry
	uri string
}

func newLookups(ctx context.Context, refs References) *lookups {
	known, err := lru.New[string, bool](lookupCache)
	if err != nil {
		panic(err) // only for a size below 1
	}
	l := &lookups{ctx: ctx, refs: refs, known: known}
	l.group.SetLimit(lookupsAtATime)
	return l
}

// check looks up one row's reference, waiting while too many look-ups are under way.
func (l *lookups) check(e entry, uri string) {
	if l.refs == nil {
		return
	}
	if exists, ok := l.known.Get(uri); ok {
		l.note(e, uri, exists)
		return
	}
	l.group.Go(func() error {
		exists, err := l.refs.Exists(l.ctx, uri)
		exists = exists || err != nil
		l.known.Add(uri, exists)
		l.note(e, uri, exists)
		return nil
	})
}

func (l *lookups) note(e entry, uri string, exists bool) {
	if exists {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.absent) <= maxRemembered { // one more than allowed makes rejectLate say so
		l.absent = append(l.absent, missing{e, uri})
	}
}

// wait returns the rows whose references do not exist, once all are looked up.
func (l *lookups) wait() []missing {
	_ = l.group.Wait() // look-ups report through note, never by an error
	return l.absent
}
