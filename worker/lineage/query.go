package lineage

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"
)

// Rows is the result of a query. It is not safe for concurrent use.
type Rows struct {
	Columns []string
	// Bytes is how much BigQuery said it would read, which is what it charges for.
	Bytes int64

	it    *bigquery.RowIterator
	first []bigquery.Value // read ahead, because the columns are known only then
	err   error            // of the first row
}

// Query runs one SELECT of an analyst. Tables and views are found by their bare names. A statement that would change
// anything is refused before it runs, and so is one that would read more than maxBytes bytes (0: no bound). Put values into
// params, never into sql.
func (l *Lineage) Query(ctx context.Context, sql string, maxBytes int64, params ...bigquery.QueryParameter) (*Rows, error) {
	if !readsOnly(sql) {
		return nil, errors.New("query: only a single SELECT is run here")
	}
	q := l.query(sql)
	q.Parameters = params
	q.DryRun = true
	job, err := q.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	rows := &Rows{}
	kind := "unknown"
	if s := job.LastStatus().Statistics; s != nil {
		rows.Bytes = s.TotalBytesProcessed
		if details, ok := s.Details.(*bigquery.QueryStatistics); ok {
			kind = details.StatementType
		}
	}
	if kind != "SELECT" {
		return nil, fmt.Errorf("query: only a single SELECT is run here, not a statement of type %s", kind)
	}
	if maxBytes > 0 && rows.Bytes > maxBytes {
		return nil, fmt.Errorf("query: it would read %d bytes, more than the bound of %d; filter by finished_at, or name the columns", rows.Bytes, maxBytes)
	}
	q.DryRun = false
	q.MaxBytesBilled = maxBytes
	if rows.it, err = q.Read(ctx); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	if rows.err = rows.it.Next(&rows.first); rows.err != nil && !errors.Is(rows.err, iterator.Done) {
		return nil, fmt.Errorf("query: %w", rows.err)
	}
	for _, f := range rows.it.Schema {
		rows.Columns = append(rows.Columns, f.Name)
	}
	return rows, nil
}

// Next returns the next row, or [io.EOF] after the last. The values are what encoding/json writes as one would expect:
// nil, bool, int64, float64, string, []any for a list, map[string]any for a record. A TIMESTAMP is a string of RFC 3339 in
// UTC, a NUMERIC a string of decimal digits.
func (r *Rows) Next() ([]any, error) {
	values, err := r.first, r.err
	if values == nil && err == nil {
		err = r.it.Next(&values)
	}
	r.first = nil
	if errors.Is(err, iterator.Done) {
		r.err = err
		return nil, io.EOF
	}
	if err != nil {
		r.err = err
		return nil, fmt.Errorf("query: %w", err)
	}
	row := make([]any, len(values))
	for i, v := range values {
		row[i] = plain(r.it.Schema[i], v)
	}
	return row, nil
}

// plain makes a value fit for encoding/json.
func plain(f *bigquery.FieldSchema, v bigquery.Value) any {
	if list, ok := v.([]bigquery.Value); ok {
		return plainList(f, list)
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case *big.Rat:
		if f.Type == bigquery.BigNumericFieldType {
			return bigquery.BigNumericString(v)
		}
		return bigquery.NumericString(v)
	default: // civil.Date and its like, intervals, ranges
		return fmt.Sprint(v)
	}
}

// plainList makes a list or a record fit for encoding/json; the client has one type for both.
func plainList(f *bigquery.FieldSchema, list []bigquery.Value) any {
	if f.Repeated {
		item := *f
		item.Repeated = false
		all := make([]any, len(list))
		for i, v := range list {
			all[i] = plain(&item, v)
		}
		return all
	}
	record := map[string]any{}
	for i, v := range list {
		record[f.Schema[i].Name] = plain(f.Schema[i], v)
	}
	return record
}
