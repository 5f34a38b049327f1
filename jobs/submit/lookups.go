package submit

import (
	"context"
	"fmt"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
)

// Bounds of looking up references. Campaigns use few references in many rows, so nearly all look-ups end in the cache.
const (
	lookupsAtATime = 32
	lookupCache    = 65_536 // URIs
)

// lookups finds images that do not exist, of references and of turns, beside the reading of the file. What can't be found out counts as existing:
// Vertex reads them with an account of its own, and the job's outcome will tell.
type lookups struct {
	ctx    context.Context
	refs   References
	group  errgroup.Group
	known  *lru.Cache[string, bool]
	mu     sync.Mutex
	absent []missing
}

// missing is an image that does not exist, and the row and column that name it.
type missing struct {
	entry
	column, uri string
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

// checkRow looks up all images that a row's jobs are to see.
func (l *lookups) checkRow(e entry, j *jobs.Job) {
	for _, uri := range j.References {
		l.check(missing{e, "references", uri})
	}
	for i, t := range j.Turns {
		l.check(missing{e, fmt.Sprintf("turn_%d_image", i+1), t.Image})
	}
}

// check looks up one image, waiting while too many look-ups are under way.
func (l *lookups) check(m missing) {
	if l.refs == nil {
		return
	}
	if exists, ok := l.known.Get(m.uri); ok {
		l.note(m, exists)
		return
	}
	l.group.Go(func() error {
		exists, err := l.refs.Exists(l.ctx, m.uri)
		exists = exists || err != nil
		l.known.Add(m.uri, exists)
		l.note(m, exists)
		return nil
	})
}

func (l *lookups) note(m missing, exists bool) {
	if exists {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.absent) <= maxRemembered { // one more than allowed makes rejectLate say so
		l.absent = append(l.absent, m)
	}
}

// wait returns the rows whose references do not exist, once all are looked up.
func (l *lookups) wait() []missing {
	_ = l.group.Wait() // look-ups report through note, never by an error
	return l.absent
}
