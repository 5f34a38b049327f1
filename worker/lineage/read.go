package lineage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/assetmill/assetmill/schemas"
)

// Scope is what a question is about. The tables are partitioned by day, so a Since near the submission's first receipt is
// what keeps the answer cheap: without it BigQuery looks through all days.
type Scope struct {
	Submission string
	Since      time.Time // jobs that ended before are not looked at; zero: all
}

// Count is how many jobs of a submission ended in one way, and what their calls cost.
type Count struct {
	Outcome string
	Reason  string
	Jobs    int64
	CostUSD string // US dollars with nine decimals
}

// The tables are asked, not the views: a filter on the submission does not reach below the views' QUALIFY, so a question
// to a view scans every submission. Messages that were no valid jobs are left out: whatever submission they name, it did not publish
// them. A job whose id belongs to another has ended, but its id has not.
const (
	countsSQL = `
SELECT outcome, reason, COUNT(*) AS jobs, SUM(IFNULL(cost_usd, 0)) AS cost_usd
FROM (
  SELECT outcome, reason, cost_usd
  FROM generations_raw
  WHERE submission = @submission AND finished_at >= @since AND (NOT STARTS_WITH(job_id, 'invalid-') OR reason = 'id_conflict')
  QUALIFY ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY finished_at, received_at, worker) = 1
)
GROUP BY outcome, reason
ORDER BY outcome, reason`
	doneSQL = `
SELECT DISTINCT job_id
FROM generations_raw
WHERE submission = @submission AND finished_at >= @since AND NOT STARTS_WITH(job_id, 'invalid-')`
	submissionSQL = `
SELECT *
FROM submissions
WHERE submission = @submission`
)

// Counts returns how the submission's jobs ended, ordered by outcome and reason; jobs that have not ended are not counted.
func (l *Lineage) Counts(ctx context.Context, s Scope) ([]Count, error) {
	it, err := l.scoped(countsSQL, s).Read(ctx)
	var all []Count
	for err == nil {
		var row []bigquery.Value
		if err = it.Next(&row); err != nil {
			break
		}
		c := Count{}
		c.Outcome, _ = row[0].(string)
		c.Reason, _ = row[1].(string)
		c.Jobs, _ = row[2].(int64)
		if cost, ok := row[3].(*big.Rat); ok {
			c.CostUSD = bigquery.NumericString(cost)
		}
		all = append(all, c)
	}
	if !errors.Is(err, iterator.Done) {
		return nil, fmt.Errorf("count the jobs of submission %s: %w", s.Submission, err)
	}
	return all, nil
}

// DoneIDs yields the ids of the submission's jobs that have ended, each once, in no order. After an error it yields no
// more.
func (l *Lineage) DoneIDs(ctx context.Context, s Scope) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		it, err := l.scoped(doneSQL, s).Read(ctx)
		for err == nil {
			var row []bigquery.Value
			if err = it.Next(&row); err != nil {
				break
			}
			id, _ := row[0].(string)
			if !yield(id, nil) {
				return
			}
		}
		if !errors.Is(err, iterator.Done) {
			yield("", fmt.Errorf("list the ended jobs of submission %s: %w", s.Submission, err))
		}
	}
}

// Submission returns the newest receipt of a submission, or nil when there is none.
func (l *Lineage) Submission(ctx context.Context, id string) (*schemas.SubmissionRow, error) {
	q := l.query(submissionSQL)
	q.Parameters = []bigquery.QueryParameter{{Name: "submission", Value: id}}
	it, err := q.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read submission %s: %w", id, err)
	}
	var values []bigquery.Value
	if err := it.Next(&values); errors.Is(err, iterator.Done) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read submission %s: %w", id, err)
	}
	row := &schemas.SubmissionRow{}
	fill(row.ProtoReflect(), it.Schema, values)
	return row, nil
}

func (l *Lineage) query(sql string) *bigquery.Query {
	q := l.client.Query(sql)
	q.DefaultProjectID, q.DefaultDatasetID = l.cfg.Project, l.cfg.Dataset
	return q
}

func (l *Lineage) scoped(sql string, s Scope) *bigquery.Query {
	since := s.Since
	if since.IsZero() {
		since = time.Unix(0, 0)
	}
	q := l.query(sql)
	q.Parameters = []bigquery.QueryParameter{{Name: "submission", Value: s.Submission}, {Name: "since", Value: since.UTC()}}
	return q
}

// fill sets a row message from a result's row. Columns that the message does not have are left out.
func fill(m protoreflect.Message, schema bigquery.Schema, values []bigquery.Value) {
	for i, v := range values {
		f := m.Descriptor().Fields().ByName(protoreflect.Name(schema[i].Name))
		if f == nil || v == nil {
			continue
		}
		list, isList := v.([]bigquery.Value)
		if !f.IsList() {
			if pv, ok := scalar(f, v); ok {
				m.Set(f, pv)
			}
			continue
		}
		for _, item := range list {
			fields, isRecord := item.([]bigquery.Value)
			switch {
			case !isList:
			case isRecord && f.Kind() == protoreflect.MessageKind:
				fill(m.Mutable(f).List().AppendMutable().Message(), schema[i].Schema, fields)
			default:
				if pv, ok := scalar(f, item); ok {
					m.Mutable(f).List().Append(pv)
				}
			}
		}
	}
}

// scalar converts a column's value to what the message holds for it.
func scalar(f protoreflect.FieldDescriptor, v bigquery.Value) (protoreflect.Value, bool) {
	switch v := v.(type) {
	case string:
		return protoreflect.ValueOfString(v), f.Kind() == protoreflect.StringKind
	case int64:
		return protoreflect.ValueOfInt64(v), f.Kind() == protoreflect.Int64Kind
	case bool:
		return protoreflect.ValueOfBool(v), f.Kind() == protoreflect.BoolKind
	case time.Time:
		return protoreflect.ValueOfInt64(v.UnixMicro()), f.Kind() == protoreflect.Int64Kind
	case *big.Rat:
		return protoreflect.ValueOfString(bigquery.NumericString(v)), f.Kind() == protoreflect.StringKind
	}
	return protoreflect.Value{}, false
}
