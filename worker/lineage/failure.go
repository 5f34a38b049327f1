package lineage

import (
	"errors"
	"fmt"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kind says what a failed request means for its rows.
type kind int

const (
	passing  kind = iota // send it again
	refused              // at least one row can never be stored
	hopeless             // no row can be stored until somebody changes the table or its permissions
)

// failure is a request that stored nothing, or of which it isn't known.
type failure struct {
	kind kind
	rows map[int]string // refused rows by their place in the request, where BigQuery named them
	err  error
}

// rowErrors is an answer that names the rows that are wrong.
type rowErrors struct{ rows []*storagepb.RowError }

// Error implements error.
func (r *rowErrors) Error() string { return fmt.Sprintf("%d rows are refused", len(r.rows)) }

// classify returns nil for a request that was stored. What it does not know is passing: to send a row twice is harmless, to
// give it up is not.
func classify(err error) *failure {
	if err == nil {
		return nil
	}
	var bad *rowErrors
	if errors.As(err, &bad) {
		rows := map[int]string{}
		for _, r := range bad.rows {
			rows[int(r.GetIndex())] = fmt.Sprintf("%s (%s)", r.GetMessage(), r.GetCode())
		}
		return &failure{kind: refused, rows: rows, err: err}
	}
	switch statusCode(err) {
	case codes.NotFound:
		return &failure{kind: hopeless, err: fmt.Errorf("the table or its dataset does not exist: %w", err)}
	case codes.PermissionDenied, codes.Unauthenticated:
		return &failure{kind: hopeless, err: fmt.Errorf("%s is missing: %w", writeRole, err)}
	case codes.InvalidArgument:
		if schemaMismatch(err) {
			return &failure{kind: hopeless, err: fmt.Errorf("the table lacks a column that this version writes: %w", err)}
		}
		return &failure{kind: refused, err: err}
	}
	return &failure{kind: passing, err: err}
}

func statusCode(err error) codes.Code {
	if api, ok := apierror.FromError(err); ok {
		return api.GRPCStatus().Code()
	}
	return status.Code(err)
}

func schemaMismatch(err error) bool {
	api, ok := apierror.FromError(err)
	if !ok {
		return false
	}
	detail := &storagepb.StorageError{}
	return api.Details().ExtractProtoMessage(detail) == nil && detail.GetCode() == storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS
}
