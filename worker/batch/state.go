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
	Gathered    Phase = "gathered"    // sealed; Vertex may or may not have been asked for a job
	Running     Phase = "running"     // the Vertex job exists
	Collecting  Phase = "collecting"  // it has ended, and what it left behind is being collected
	Reconciling Phase = "reconciling" // all of that is collected, and the other jobs are ended or given back
	Closed      Phase = "closed"      // every job has ended or is back in the queue
)

// Then says what becomes of jobs whose rows a batch did not make.
type Then string

// Whereto.
const (
	ThenBatch  Then = "batch"  // into another batch
	ThenOnline Then = "online" // at twice the price, soon
	ThenDrop   Then = "drop"   // they end as cancelled
)

// Reasons why a Vertex job came to its end, as lineage names them.
const (
	reasonComplete  = "complete"
	reasonPartial   = "partial"
	reasonExpired   = "expired"
	reasonStuck     = "stuck"
	reasonCancelled = "cancelled"
	reasonFailed    = "failed"
)

// State is where a batch stands. Only who holds the batch's claim changes it.
type State struct {
	Phase    Phase    `json:"phase"`
	Creates  int      `json:"creates,omitempty"`   // calls that may have created a Vertex job; counted before each
	Job      string   `json:"job,omitempty"`       // name of the Vertex job that is the batch's
	JobState string   `json:"job_state,omitempty"` // as last seen
	Surplus  []string `json:"surplus,omitempty"`   // names of Vertex jobs of this batch that should not be
	Output   string   `json:"output,omitempty"`    // folder of the output, as Vertex says
	Made     int64    `json:"made,omitempty"`      // rows that Vertex says it made
	// By Vertex's clock.
	Queued  time.Time `json:"queued,omitzero"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	GivenUp string `json:"given_up,omitempty"` // why we asked for the Vertex job's end, if we did: reasonStuck or reasonCancelled
	Then    Then   `json:"then,omitempty"`     // for rows that were not made
	Reason  string `json:"reason,omitempty"`   // how the Vertex job ended
	Detail  string `json:"detail,omitempty"`   // in words

	Ranges  []Range   `json:"ranges,omitempty"` // of the output, a range as often as it is to be collected
	Looks   int       `json:"looks,omitempty"`  // at the ranges, since the last was cut
	Looked  time.Time `json:"looked,omitzero"`  // at the last of them, by the clock of the worker that looked
	Passed  Passed    `json:"passed,omitzero"`
	Totals  *Totals   `json:"totals,omitempty"` // of a closed batch
	Told    string    `json:"told,omitempty"`   // state in the last row of lineage
	Stepped time.Time `json:"stepped,omitzero"` // when a worker was last seen to be at it, to stepNote, by its clock; for people only

	generation int64 // of the file
}

// Ends count jobs by what became of them.
type Ends struct {
	Done     int `json:"done"`
	Refused  int `json:"refused"`
	Failed   int `json:"failed"` // or cancelled
	Requeued int `json:"requeued"`
}

// add counts a job.
func (e *Ends) add(f fate) {
	switch f {
	case fateSucceeded:
		e.Done++
	case fateRefused:
		e.Refused++
	case fateRequeued:
		e.Requeued++
	default:
		e.Failed++
	}
}

func (e *Ends) addAll(more Ends) {
	e.Done, e.Refused, e.Failed, e.Requeued = e.Done+more.Done, e.Refused+more.Refused, e.Failed+more.Failed, e.Requeued+more.Requeued
}

// Passed is how far the jobs that the output did not end are dealt with: all with a row below Rows, and what became of them.
type Passed struct {
	Rows int `json:"rows"`
	Ends
}

// Totals are the books of a closed batch. Its Ends add up to its rows.
type Totals struct {
	Ends
	Missing    int      `json:"missing"`    // jobs of which there was no line
	Duplicated int      `json:"duplicated"` // lines beyond the first of a job
	Orphans    int      `json:"orphans"`    // lines of no job of the batch
	Damaged    int      `json:"damaged"`    // lines that can't be read
	Cost       jobs.USD `json:"cost"`       // of all lines
	Online     jobs.USD `json:"online"`     // what the images that were made would have cost online
	Bytes      int64    `json:"bytes"`      // of the output
}

// Range is a part of a file of a batch's output. Which lines are in it is up to Format.Rows.
type Range struct {
	File   string `json:"file"`
	From   int64  `json:"from"`
	Length int64  `json:"length"`
	// Placed says that only lines are collected that are placed: whose rows are in the range's placement. It is the number of the range
	// that left them undecided; 0: no.
	Placed int `json:"placed,omitempty"`
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
	next, err := files.Swap(ctx, stateName(batch), s.generation, data)
	if err != nil {
		return fmt.Errorf("write the batch's state: %w", err)
	}
	s.generation = next
	return nil
}
