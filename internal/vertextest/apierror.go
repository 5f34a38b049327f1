package vertextest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// statusClientClosed is what Google's logs call a call whose client left first.
const statusClientClosed = 499

// apiError is an error as Google's APIs send it.
type apiError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Status  string `json:"status"`
	Details []any  `json:"details"`

	retryAfter time.Duration // 0: not told
}

func (e *apiError) Error() string {
	return strconv.Itoa(e.Code) + " " + e.Status + ": " + e.Message
}

// canonical is the one table from HTTP status to the canonical code and the
// text that the service sends when it has nothing more to say.
func canonical(code int) (name string, grpcCode codes.Code, text string) {
	switch code {
	case http.StatusBadRequest:
		return "INVALID_ARGUMENT", codes.InvalidArgument, "Request contains an invalid argument."
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED", codes.Unauthenticated, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential."
	case http.StatusForbidden:
		return "PERMISSION_DENIED", codes.PermissionDenied, "Permission 'aiplatform.endpoints.predict' denied on resource (or it may not exist)."
	case http.StatusNotFound:
		return "NOT_FOUND", codes.NotFound, "Requested entity was not found."
	case http.StatusConflict:
		return "ABORTED", codes.Aborted, "The operation was aborted."
	case http.StatusTooManyRequests:
		return "RESOURCE_EXHAUSTED", codes.ResourceExhausted, "Resource exhausted, please try again later."
	case statusClientClosed:
		return "CANCELLED", codes.Canceled, "The operation was cancelled."
	case http.StatusInternalServerError:
		return "INTERNAL", codes.Internal, "Internal error encountered."
	case http.StatusNotImplemented:
		return "UNIMPLEMENTED", codes.Unimplemented, "Operation is not implemented, or supported, or enabled."
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE", codes.Unavailable, "The service is currently unavailable."
	case http.StatusGatewayTimeout:
		return "DEADLINE_EXCEEDED", codes.DeadlineExceeded, "Deadline expired before operation could complete."
	default:
		return "UNKNOWN", codes.Unknown, http.StatusText(code)
	}
}

func statusError(code int) *apiError {
	name, _, text := canonical(code)
	return &apiError{Code: code, Status: name, Message: text}
}

func invalid(format string, args ...any) *apiError {
	e := statusError(http.StatusBadRequest)
	e.Message = fmt.Sprintf(format, args...)
	return e
}

func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// grpcError is e as a gRPC status.
func (e *apiError) grpcError() error {
	_, code, _ := canonical(e.Code)
	if e.Status == "FAILED_PRECONDITION" {
		code = codes.FailedPrecondition
	}
	st := status.New(code, e.Message)
	if e.retryAfter > 0 {
		seconds := time.Duration(wholeSeconds(e.retryAfter)) * time.Second
		if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(seconds)}); err == nil {
			st = with // only a status of OK takes no details
		}
	}
	return st.Err()
}

// writeError sends e in the REST shape. A failed write means that the client
// has gone, which nobody is left to be told.
func writeError(w http.ResponseWriter, e *apiError) {
	out := *e
	if out.Details == nil {
		out.Details = []any{}
	}
	body, err := json.MarshalIndent(map[string]any{"error": out}, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("vertextest: error body: %v", err)) // details are built here, so this is a bug
	}
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(wholeSeconds(e.retryAfter)))
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(out.Code)
	_, _ = w.Write(append(body, '\n'))
}
