package lineage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/bigquery/storage/managedwriter"
	"cloud.google.com/go/bigquery/storage/managedwriter/adapt"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/support/bundler"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
)

const (
	// gatherTime is how long a row waits for company. Against the tens of milliseconds of an append and the seconds of a
	// call it costs nothing.
	gatherTime = 5 * time.Millisecond
	// maxRequestRows bounds what is sent again when one row of a request is refused.
	maxRequestRows = 500
	// maxRequestBytes keeps a request, with its schema, well below BigQuery's 10 MB. More than 1 MB brings no more
	// throughput. A row is at most about 0.2 MB: the bounds of package jobs.
	maxRequestBytes = 4 << 20
	// maxWaitingBytes bounds the rows in memory, per table: 3,200 calls in flight with rows of 20 KB.
	maxWaitingBytes = 64 << 20
	// maxRequests is how many requests of a table are under way. With 500 rows and 300 ms each, the slowest that an append
	// should be, four move 6,000 rows a second; a worker ends 250 jobs a second at its peak.
	maxRequests = 4
	// attemptTimeout bounds one request. An append takes well under a second; one that takes this long sits on a
	// connection that is dead.
	attemptTimeout = 30 * time.Second
	firstPause     = 100 * time.Millisecond
	maxPause       = 5 * time.Second // the longest that a recovered BigQuery stays unused
)

// appender appends the rows of one table.
type appender struct {
	table    string // project.dataset.table
	ctx      context.Context
	retrying func(table string, rows int, err error)
	bundler  *bundler.Bundler
	connect  func(ctx context.Context) (*managedwriter.ManagedStream, error)

	mu     sync.Mutex
	stream *managedwriter.ManagedStream // nil: to be opened
}

// entry is one row and the caller that waits for it.
type entry struct {
	ctx    context.Context
	row    []byte
	answer chan error            // holds one, so that nobody waits for a caller that has left
	last   atomic.Pointer[error] // why it is not durable yet
}

// newAppender makes the appender for the table whose rows are messages like the example. ctx ends its work.
func (l *Lineage) newAppender(ctx context.Context, example proto.Message) (*appender, error) {
	descriptor := example.ProtoReflect().Descriptor()
	schema, err := adapt.NormalizeDescriptor(descriptor)
	if err != nil {
		return nil, err
	}
	nullable(schema)
	name, _ := proto.GetExtension(descriptor.Options(), schemas.E_Table).(string)
	a := &appender{table: l.tableName(name), ctx: ctx, retrying: l.cfg.Retrying}
	if a.retrying == nil {
		a.retrying = func(string, int, error) {}
	}
	a.connect = func(ctx context.Context) (*managedwriter.ManagedStream, error) {
		return l.writer.NewManagedStream(ctx,
			managedwriter.WithDestinationTable(managedwriter.TableParentFromParts(l.cfg.Project, l.cfg.Dataset, name)),
			managedwriter.WithType(managedwriter.DefaultStream),
			managedwriter.WithSchemaDescriptor(schema))
	}
	a.bundler = bundler.NewBundler(&entry{}, func(batch any) { a.send(batch.([]*entry)) })
	a.bundler.DelayThreshold = gatherTime
	a.bundler.BundleCountThreshold = maxRequestRows
	a.bundler.BundleByteThreshold = maxRequestBytes
	a.bundler.BundleByteLimit = maxRequestBytes
	a.bundler.BufferedByteLimit = maxWaitingBytes
	a.bundler.HandlerLimit = maxRequests
	return a, nil
}

func (l *Lineage) tableName(table string) string {
	return l.cfg.Project + "." + l.cfg.Dataset + "." + table
}

// append blocks until the row is durable, refused, or ctx has ended.
func (a *appender) append(ctx context.Context, m proto.Message) error {
	if err := checkRow(m.ProtoReflect()); err != nil {
		return fmt.Errorf("append to %s: %w: %w", a.table, ErrRefused, err)
	}
	row, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("append to %s: %w: %w", a.table, ErrRefused, err) // a string that is not UTF-8
	}
	if a.ctx.Err() != nil {
		return fmt.Errorf("append to %s: %w", a.table, ErrClosed)
	}
	e := &entry{ctx: ctx, row: row, answer: make(chan error, 1)}
	err = a.bundler.AddWait(ctx, e, len(row))
	if errors.Is(err, bundler.ErrOversizedItem) {
		err = fmt.Errorf("%w: it has %d bytes, more than %d", ErrRefused, len(row), maxRequestBytes)
	}
	if err == nil {
		err = a.wait(e)
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", a.table, err)
	}
	return nil
}

func (a *appender) wait(e *entry) error {
	var err error
	select {
	case answer := <-e.answer:
		return answer
	case <-e.ctx.Done():
		err = context.Cause(e.ctx)
	case <-a.ctx.Done():
		err = ErrClosed
	}
	select {
	case answer := <-e.answer: // both happened; the answer says more
		return answer
	default:
	}
	if last := e.last.Load(); last != nil {
		return fmt.Errorf("%w; last failure: %w", err, *last)
	}
	return err
}

// send appends a batch and answers every caller, trying again until all have their answer or have left.
func (a *appender) send(batch []*entry) {
	pause := gax.Backoff{Initial: firstPause, Max: maxPause}
	for {
		batch = waiting(batch)
		if len(batch) == 0 || a.ctx.Err() != nil {
			return
		}
		f := classify(a.sendOnce(batch))
		switch {
		case f == nil:
			answer(batch, nil)
			return
		case len(f.rows) > 0: // nothing of the request was stored; the other rows are sound
			batch = refuse(batch, f.rows)
			continue
		case f.kind == refused && len(batch) > 1: // somewhere in the batch is a row that spoils it
			a.send(batch[:len(batch)/2])
			a.send(batch[len(batch)/2:])
			return
		case f.kind == refused:
			answer(batch, fmt.Errorf("%w: %w", ErrRefused, f.err))
			return
		case f.kind == hopeless:
			answer(batch, f.err)
			return
		}
		for _, e := range batch {
			e.last.Store(&f.err)
		}
		a.retrying(a.table, len(batch), f.err)
		if gax.Sleep(a.ctx, pause.Pause()) != nil {
			return
		}
	}
}

// waiting returns the entries whose callers are still there.
func waiting(batch []*entry) []*entry {
	var left []*entry
	for _, e := range batch {
		if e.ctx.Err() == nil {
			left = append(left, e)
		}
	}
	return left
}

func answer(batch []*entry, err error) {
	for _, e := range batch {
		e.answer <- err
	}
}

// refuse answers the rows at the given places and returns the others.
func refuse(batch []*entry, rows map[int]string) []*entry {
	var rest []*entry
	for i, e := range batch {
		if reason, ok := rows[i]; ok {
			e.answer <- fmt.Errorf("%w: %s", ErrRefused, reason)
		} else {
			rest = append(rest, e)
		}
	}
	return rest
}

// sendOnce makes one request and waits for its answer.
func (a *appender) sendOnce(batch []*entry) error {
	stream, err := a.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(a.ctx, attemptTimeout, errors.New("no answer in time"))
	defer cancel()
	rows := make([][]byte, len(batch))
	for i, e := range batch {
		rows[i] = e.row
	}
	result, err := stream.AppendRows(ctx, rows)
	if err != nil {
		a.drop(stream)
		return err
	}
	resp, err := result.FullResponse(ctx)
	if bad := resp.GetRowErrors(); len(bad) > 0 {
		return &rowErrors{bad}
	}
	if err != nil && resp.GetError() == nil {
		a.drop(stream) // the connection failed, not the request
	}
	return err
}

// open returns the stream, opening it if need be.
func (a *appender) open() (*managedwriter.ManagedStream, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream != nil {
		return a.stream, nil
	}
	// The stream keeps the context, so a time-out must not end it once it is open.
	ctx, cancel := context.WithCancelCause(a.ctx)
	timer := time.AfterFunc(attemptTimeout, func() { cancel(errors.New("no answer in time")) })
	stream, err := a.connect(ctx)
	if err != nil || !timer.Stop() {
		cancel(nil)
		return nil, errors.Join(err, context.Cause(ctx))
	}
	a.stream = stream
	return stream, nil
}

// drop closes a stream that failed, so that the next request opens another. The client keeps some failures for ever.
func (a *appender) drop(stream *managedwriter.ManagedStream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream == stream {
		a.stream = nil
		_ = stream.Close() // it always says EOF; requests under way fail and are sent again
	}
}
