package vertex

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/assetmill/assetmill/worker"
)

// rowStatus returns the status of a row as a text; empty: the row has not failed.
func rowStatus(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil || string(raw) == "{}" {
		return strings.TrimSpace(text)
	}
	return string(raw) // a google.rpc.Status, perhaps
}

// statusError is the error that a status quotes, as Google's APIs spell it.
type statusError struct {
	Code    int
	Status  string
	Message string
}

// failed is the error of a row that failed. Such rows are not billed. Vertex has tried them itself for hours, with whatever lane it has;
// so none of their errors says that this worker may not call the model.
func (c *call) failed(status string) *worker.CallError {
	quoted := quotedError(status)
	code := httpCode(quoted, status)
	message := quoted.Message
	if message == "" {
		message = status
	}
	e := &worker.CallError{Status: code, Detail: detail(c.Job, message)}
	if code == 0 {
		e.Kind = worker.Failing
		return e
	}
	switch e.Kind, e.Reason = kindOf(code, message, hasImages(c.Job)); e.Kind {
	case worker.Unanswered, worker.Denied:
		// A row that was cancelled; or refused for a reason that is not its own, and may pass.
		e.Kind = worker.Failing
	}
	return e
}

// quotedError returns the error that a status quotes, such as `Bad Request: {"error":{"code":400,...}}`; zero when it quotes none.
func quotedError(status string) (quoted statusError) {
	at := strings.IndexByte(status, '{')
	if at < 0 {
		return quoted
	}
	var outer struct {
		Error statusError
		statusError
	}
	// What follows the JSON, and fields that are not as expected, don't matter.
	_ = json.NewDecoder(strings.NewReader(status[at:])).Decode(&outer)
	if outer.Error != (statusError{}) {
		return outer.Error
	}
	return outer.statusError
}

// statusWords are words that tell an HTTP status.
var statusWords = map[string]int{
	"resource_exhausted": http.StatusTooManyRequests, "resource exhausted": http.StatusTooManyRequests, "too many requests": http.StatusTooManyRequests,
	"unavailable":       http.StatusServiceUnavailable,
	"deadline_exceeded": http.StatusGatewayTimeout, "deadline exceeded": http.StatusGatewayTimeout,
	"cancelled": statusCanceled, "canceled": statusCanceled,
	"internal":         http.StatusInternalServerError,
	"invalid_argument": http.StatusBadRequest, "failed_precondition": http.StatusBadRequest, "bad request": http.StatusBadRequest,
	"permission_denied": http.StatusForbidden, "forbidden": http.StatusForbidden, "not_found": http.StatusNotFound, "not found": http.StatusNotFound,
}

// codeInJSON finds a code in JSON that is cut.
var codeInJSON = regexp.MustCompile(`"code":\s*([45][0-9]{2})\b`)

// httpCode returns the HTTP status that a row's status tells, or 0.
func httpCode(quoted statusError, status string) int {
	switch {
	case quoted.Code >= http.StatusBadRequest && quoted.Code <= 599:
		return quoted.Code
	case quoted.Code > 0 && quoted.Code <= int(codes.Unauthenticated):
		if code, ok := httpStatuses[codes.Code(quoted.Code)]; ok {
			return code
		}
		return http.StatusInternalServerError
	}
	if m := codeInJSON.FindStringSubmatch(status); m != nil {
		code, _ := strconv.Atoi(m[1]) // three digits
		return code
	}
	// The message is no place to look: it may speak of anything.
	head, _, _ := strings.Cut(strings.ToLower(quoted.Status+" "+status), "{")
	code, first := 0, len(head)
	for words, c := range statusWords {
		if at := strings.Index(head, words); at >= 0 && at < first {
			code, first = c, at
		}
	}
	return code
}
