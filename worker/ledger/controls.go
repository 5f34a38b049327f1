package ledger

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/worker"
)

const (
	// controlAge is how old an answer may be: how long after `assetmill cancel` a worker may still begin calls. A worker asks
	// once in that time for each submission that it works on, not for each job.
	controlAge = 5 * time.Second
	// maxControls bounds the submissions that are remembered. One that is forgotten is asked for again.
	maxControls = 4096
	// maxControlBytes bounds what is read back; the words below are shorter.
	maxControlBytes = 64
)

// words are the controls as they are stored, and as status prints them.
var words = map[worker.Control]string{worker.Proceed: "proceed", worker.Pause: "pause", worker.Cancel: "cancel"}

// Controls keeps what the owners of submissions want, in the work bucket as `control/<submission>`; where there is no object,
// jobs proceed. It implements worker.Controls and is safe for concurrent use.
type Controls struct {
	bucket *storage.BucketHandle

	mu    sync.Mutex
	known *lru.Cache[string, answer]
}

type answer struct {
	control worker.Control
	at      time.Time
}

// NewControls returns the controls in a bucket.
func NewControls(client *storage.Client, bucket string) *Controls {
	known, err := lru.New[string, answer](maxControls)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Controls{bucket: client.Bucket(bucket), known: known}
}

func (c *Controls) object(submission string) *storage.ObjectHandle {
	return c.bucket.Object("control/" + submission)
}

// Control implements worker.Controls. The answer is at most five seconds old.
func (c *Controls) Control(ctx context.Context, submission string) (worker.Control, error) {
	// Held while asking, so that a thousand jobs of one submission ask once.
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.known.Get(submission); ok && time.Since(a.at) < controlAge {
		return a.control, nil
	}
	began := time.Now()
	control, err := c.Ask(ctx, submission)
	if err == nil {
		c.known.Add(submission, answer{control, began})
	}
	return control, err
}

// Ask returns the submission's control as it is now.
func (c *Controls) Ask(ctx context.Context, submission string) (worker.Control, error) {
	var text []byte
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		r, err := c.object(submission).NewReader(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		text, err = io.ReadAll(io.LimitReader(r, maxControlBytes))
		return err
	})
	if gcs.NotFound(err) {
		return worker.Proceed, nil
	}
	if err != nil {
		return worker.Proceed, fmt.Errorf("control of %s: %w", submission, err)
	}
	for control, word := range words {
		if word == string(text) {
			return control, nil
		}
	}
	return worker.Proceed, fmt.Errorf("control of %s is %q: a newer assetmill wrote it?", submission, text)
}

// Set changes what is to become of the submission's jobs.
func (c *Controls) Set(ctx context.Context, submission string, control worker.Control) error {
	err := retry.Do(ctx, gcs.Retryable, func(ctx context.Context) error {
		_, err := gcs.Put(ctx, c.object(submission), "text/plain", []byte(words[control]))
		return err
	})
	if err != nil {
		return fmt.Errorf("control of %s: %w", submission, err)
	}
	return nil
}

// ControlWord is a control as people read it.
func ControlWord(control worker.Control) string { return words[control] }
