package doctor

import (
	"net/http"
	"time"

	"github.com/googleapis/gax-go/v2"

	"github.com/assetmill/assetmill/internal/retry"
)

// maxTries bounds how often a look is sent that a service was too busy to answer. One look of a hundred that fails for a moment must not
// read like a defect.
const maxTries = 3

// transport sends looks again that failed for a passing reason, and shows the dates of answers to a clock.
type transport struct {
	base  http.RoundTripper
	clock *clock
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	backoff := gax.Backoff{Initial: 200 * time.Millisecond, Max: time.Second}
	for try := 1; ; try++ {
		sent := time.Now()
		resp, err := t.base.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		t.clock.see(resp.Header.Get("Date"), sent, time.Now())
		// Only a GET has no body that would have to be sent once more.
		if req.Method != http.MethodGet || try == maxTries || resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
			return resp, nil
		}
		resp.Body.Close()
		if err := retry.Sleep(req.Context(), backoff.Pause()); err != nil {
			return nil, err
		}
	}
}
