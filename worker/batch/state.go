package batch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Phase is how far a batch has come.
type Phase string

// Phases, in their order.
const (
	Gathered   Phase = "gathered"   // sealed
	Creating   Phase = "creating"   // a Vertex job is about to be created, or was, and nobody knows its name
	Running    Phase = "running"    // the Vertex job exists
	Collecting Phase = "collecting" // its output is cut into ranges, which are being collected
	Closed     Phase = "closed"     // every job has ended or is back in the queue
)

// Then says what becomes of jobs whose rows a batch did not make.
type Then string

// Whereto.
const (
	ThenBatch  Then = "batch"  // into another batch
	ThenOnline Then = "online" // at twice the price, soon
	ThenDrop   Then = "drop"   // they end as cancelled
)

// State is where a batch stands. Only who holds the batch's claim changes it.
type State struct {
	Phase     Phase      `json:"phase"`
	Job       string     `json:"job,omitempty"`        // name of the Vertex job
	JobState  string     `json:"job_state,omitempty"`  // as last seen
	Creates   int        `json:"creates,omitempty"`    // tries to create it
	CreatedAt *time.Time `json:"created_at,omitempty"` // the last try, by the clock of the worker that made it
	Surplus   []string   `json:"surplus,omitempty"`    // Vertex jobs of this batch that should not be
	Output    string     `json:"output,omitempty"`     // folder of the output
	Queued    time.Time  `json:"queued,omitzero"`      // by Vertex's clock, as are the next two
	Started   time.Time  `json:"started,omitzero"`
	Ended     time.Time  `json:"ended,omitzero"`
	// Cancelled says why we asked for the Vertex job's end, if we did.
	Cancelled string  `json:"cancelled,omitempty"`
	Then      Then    `json:"then,omitempty"`   // for rows that were not made
	Reason    string  `json:"reason,omitempty"` // how the Vertex job ended
	Detail    string  `json:"detail,omitempty"` // in words
	Ranges    []Range `json:"ranges,omitempty"`
	Looks     int     `json:"looks,omitempty"`  // at the ranges
	Passed    int     `json:"passed,omitempty"` // rows that are dealt with, when the batch is reconciled
	Totals    *Totals `json:"totals,omitempty"`
	Told      string  `json:"told,omitempty"` // state in the last row of lineage

	generation int64 // of the file
}

// Totals are a batch's books. Done, Refused, Failed and Requeued add up to its rows, but for jobs that ended elsewhere meanwhile.
type Totals struct {
	Done       int      `json:"done"`
	Refused    int      `json:"refused"`
	Failed     int      `json:"failed"`
	Requeued   int      `json:"requeued"`
	Missing    int      `json:"missing"`    // of those requeued or dropped, the ones of which there was no line
	Duplicated int      `json:"duplicated"` // lines beyond the first of a job
	Orphans    int      `json:"orphans"`
	Damaged    int      `json:"damaged"`
	Cost       jobs.USD `json:"cost"`
	Online     jobs.USD `json:"online"` // what the jobs that ended here would have cost online
	Bytes      int64    `json:"bytes"`  // of the output
}

// Range is a part of a batch's output: the lines that begin in it.
type Range struct {
	File   string `json:"file"`
	From   int64  `json:"from"`
	Length int64  `json:"length"`
}

func readState(ctx context.Context, files Files, batch string) (*State, error) {
	data, generation, err := files.Read(ctx, stateName(batch))
	if err != nil {
		return nil, fmt.Errorf("read the batch's state: %w", err)
	}
	s := &State{Phase: Gathered}
	if generation != 0 {
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("read the batch's state: %w", err)
		}
	}
	s.generation = generation
	return s, nil
}

// save writes the state. It fails with ErrSwapped when another worker has changed it, which means that this one was taken for dead.
func (s *State) save(ctx context.Context, files Files, batch string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if s.generation, err = files.Swap(ctx, stateName(batch), s.generation, data); err != nil {
		return fmt.Errorf("write the batch's state: %w", err)
	}
	return nil
}
