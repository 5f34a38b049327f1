package batch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// wish is what the owner of a batch wants of it.
type wish struct {
	Then Then `json:"then"`
}

// ParseThen reads what is to become of a batch's jobs.
func ParseThen(word string) (Then, error) {
	switch t := Then(word); t {
	case ThenBatch, ThenOnline, ThenDrop:
		return t, nil
	default:
		return "", fmt.Errorf("%q is unknown; allowed: %s, %s, %s", word, ThenOnline, ThenBatch, ThenDrop)
	}
}

// Cancel asks for a batch's end. Whoever runs the batch hears of it at the next look, if the Vertex job has not ended before; jobs whose
// rows are made by then end with their images, and then says what becomes of the others. Asking again changes that, as long as nobody
// has heard.
func Cancel(ctx context.Context, files Files, batch string, then Then) error {
	data, err := json.Marshal(wish{then})
	if err != nil {
		return err
	}
	_, generation, err := files.Read(ctx, cancelName(batch))
	if err == nil {
		_, err = files.Swap(ctx, cancelName(batch), generation, data)
	}
	if err != nil {
		return fmt.Errorf("cancel batch %s: %w", batch, err)
	}
	return nil
}

// readWish returns what a batch's owner wants to become of its jobs; empty: to go on.
func readWish(ctx context.Context, files Files, batch string) (Then, error) {
	data, generation, err := files.Read(ctx, cancelName(batch))
	if err != nil {
		return "", fmt.Errorf("read the wish to cancel: %w", err)
	}
	if generation == 0 {
		return "", nil
	}
	w := wish{}
	if err := json.Unmarshal(data, &w); err != nil {
		return "", fmt.Errorf("read the wish to cancel: %w", err)
	}
	then, err := ParseThen(string(w.Then))
	if err != nil {
		return "", fmt.Errorf("read the wish to cancel: %w", err)
	}
	return then, nil
}

// Status is what is known of a sealed batch from its files.
type Status struct {
	Manifest
	State
	Collected int  // ranges that are collected
	Wish      Then // what the owner wants to become of the jobs, if it is cancelled
}

// stillAfter is how old the last step of a batch may be before the batch is taken to stand still: more than the longest step, the longest pause of
// a subscription (ten minutes) and stepNote together.
const stillAfter = time.Hour

// LastStep returns when a worker was last seen to take the batch further, to some minutes, by that worker's clock. Before the first step it is when
// the batch was sealed.
func (s *Status) LastStep() time.Time {
	if s.Stepped.IsZero() {
		return s.SealedAt
	}
	return s.Stepped
}

// StandsStill reports whether no worker has been at the batch for so long that its hand-off may be lost, see [Resume]. It may also be that no worker
// runs, or that all are busy.
func (s *Status) StandsStill(now time.Time) bool {
	return s.Phase != Closed && now.Sub(s.LastStep()) > stillAfter
}

// ReadStatus returns where a batch stands, whose seal has that manifest.
func ReadStatus(ctx context.Context, files Files, manifest []byte) (*Status, error) {
	s := &Status{}
	if err := json.Unmarshal(manifest, &s.Manifest); err != nil {
		return nil, fmt.Errorf("read the batch's manifest: %w", err)
	}
	state, err := readState(ctx, files, s.Manifest.ID)
	if err != nil {
		return nil, err
	}
	s.State = *state
	if s.Wish, err = readWish(ctx, files, s.Manifest.ID); err != nil {
		return nil, err
	}
	checkpoints, err := files.List(ctx, rangeDir(s.Manifest.ID))
	if err != nil {
		return nil, fmt.Errorf("list the ranges: %w", err)
	}
	s.Collected = len(checkpoints)
	return s, nil
}
