// Package lineage stores what became of every job in BigQuery, and reads it back.
//
// Rows are appended through the Storage Write API's default stream. An append returns when BigQuery has said that the row is
// durable, so a message that is acknowledged afterwards is never without its row. Rows are gathered into requests, many
// requests are under way at a time, and what fails for a passing reason is sent again until the caller's context ends: a row
// is stored at least once, and the views keep one per key. A row that BigQuery refuses fails alone.
//
// An unset field becomes NULL: an empty string, a 0 in a field without `optional`, an empty list excepted (BigQuery has
// no NULL lists).
//
// Reading takes parameters only, never values put into SQL, and counts from the tables: there are no counters that could
// drift.
//
// The package creates no tables; Terraform does. Check says what is missing.
package lineage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/bigquery/storage/managedwriter"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// ErrRefused says that a row can never be stored as it is. Trying again is useless.
var ErrRefused = worker.ErrRowRefused

// ErrClosed says that lineage was closed before the row was known to be durable.
var ErrClosed = errors.New("lineage is closed")

// keepaliveTime is how long a connection may be silent before it is probed, so that one that broke without a word is
// found in a minute and not by the kernel's quarter of an hour. Google's own Java client uses the same.
const keepaliveTime = time.Minute

// Config says where the tables are and how to reach them.
type Config struct {
	Project string // of the dataset; it is also billed for queries
	Dataset string
	REST    []option.ClientOption // for queries and table metadata; none: Google Cloud with default credentials
	GRPC    []option.ClientOption // for appends; none: Google Cloud with default credentials
	// Retrying, if not nil, is told of every request that failed and will be sent again. It must not block.
	Retrying func(table string, rows int, err error)
}

// Lineage appends and reads rows. It is safe for concurrent use.
type Lineage struct {
	cfg     Config
	client  *bigquery.Client
	writer  *managedwriter.Client
	stop    context.CancelFunc // ends all appends
	stopped <-chan struct{}

	generations, attempts, submissions, batches *appender
}

// New makes the clients. It does not talk to BigQuery: see [Lineage.Check]. The context's values are kept, its end is not:
// appends go on until [Lineage.Close].
func New(ctx context.Context, cfg Config) (*Lineage, error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lineage{cfg: cfg, stop: stop, stopped: ctx.Done()}
	if err := l.connect(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("lineage: %w", err)
	}
	return l, nil
}

func (l *Lineage) connect(ctx context.Context) error {
	var err error
	if l.client, err = bigquery.NewClient(ctx, l.cfg.Project, l.cfg.REST...); err != nil {
		return err
	}
	probe := option.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime}))
	options := append([]option.ClientOption{probe}, l.cfg.GRPC...)
	if l.writer, err = managedwriter.NewClient(ctx, l.cfg.Project, options...); err != nil {
		return errors.Join(err, l.client.Close())
	}
	if l.generations, err = l.newAppender(ctx, &schemas.GenerationRow{}); err != nil {
		return err
	}
	if l.attempts, err = l.newAppender(ctx, &schemas.AttemptRow{}); err != nil {
		return err
	}
	if l.submissions, err = l.newAppender(ctx, &schemas.SubmissionRow{}); err != nil {
		return err
	}
	l.batches, err = l.newAppender(ctx, &schemas.BatchRow{})
	return err
}

// AppendGeneration stores a job's terminal outcome and returns when the row is durable. An error that is not [ErrRefused]
// leaves open whether the row is stored; to append it again is safe.
func (l *Lineage) AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error {
	return l.generations.append(ctx, row)
}

// AppendAttempt stores a call, as AppendGeneration does.
func (l *Lineage) AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error {
	return l.attempts.append(ctx, row)
}

// AppendSubmission stores a receipt, as AppendGeneration does.
func (l *Lineage) AppendSubmission(ctx context.Context, row *schemas.SubmissionRow) error {
	return l.submissions.append(ctx, row)
}

// AppendBatch stores a batch's state, as AppendGeneration does.
func (l *Lineage) AppendBatch(ctx context.Context, row *schemas.BatchRow) error {
	return l.batches.append(ctx, row)
}

func (l *Lineage) appenders() []*appender {
	return []*appender{l.generations, l.attempts, l.submissions, l.batches}
}

// Close sends the rows that are waiting, waits for their answers, and closes the clients. When ctx ends first, it gives up:
// the appends still waiting fail with [ErrClosed]. Nothing may be appended after Close has begun.
func (l *Lineage) Close(ctx context.Context) error {
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		for _, a := range l.appenders() {
			a.bundler.Flush()
		}
	}()
	var err error
	select {
	case <-flushed:
	case <-ctx.Done():
		err = fmt.Errorf("close lineage with rows that are not durable: %w", context.Cause(ctx))
	}
	l.stop()
	<-flushed
	return errors.Join(err, l.writer.Close(), l.client.Close())
}
