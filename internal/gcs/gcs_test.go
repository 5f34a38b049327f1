package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"syscall"
	"testing"

	"google.golang.org/api/googleapi"
)

func TestRetryable(t *testing.T) {
	t.Parallel()
	broken := &url.Error{Op: "Post", URL: "http://127.0.0.1/upload", Err: io.EOF}
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"a connection that broke", broken, true},
		{"what Write and Close return when it broke", errors.Join(broken, broken), true},
		{"the same, wrapped", fmt.Errorf("store: %w", errors.Join(broken, broken)), true},
		{"broken, and given up by the writer's own context", errors.Join(broken, context.Canceled), true},
		{"refused", &url.Error{Op: "Post", Err: syscall.ECONNREFUSED}, true},
		{"unavailable", fmt.Errorf("claim: %w", &googleapi.Error{Code: 503}), true},
		{"precondition", errors.Join(&googleapi.Error{Code: 412}, &googleapi.Error{Code: 412}), false},
		{"forbidden", errors.Join(&googleapi.Error{Code: 403}, io.EOF), false},
		{"another", errors.New("record: state is unknown"), false},
	} {
		if got := Retryable(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
