package ledger

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

type state string

const (
	claimed  state = "claimed"
	released state = "released"
	done     state = "done"
)

// record is what the ledger stores of one job, as JSON. Rows are in the form in which messages travel.
type record struct {
	State  state     `json:"state"`
	Worker string    `json:"worker"`
	Batch  string    `json:"batch,omitempty"` // claimed: the batch that the job is gathered into
	Nonce  string    `json:"nonce"`           // tells one write from another
	Digest string    `json:"digest"`          // of the job's content
	At     time.Time `json:"at"`              // by the worker's clock; for people only

	Spent      json.RawMessage   `json:"spent,omitempty"`      // claimed, released
	Generation json.RawMessage   `json:"generation,omitempty"` // done
	Attempts   []json.RawMessage `json:"attempts,omitempty"`   // done
}

// holder names whoever has the claim, for people.
func (r *record) holder() string {
	if r.Batch != "" {
		return "batch " + r.Batch
	}
	return r.Worker
}

func (r *record) encode() ([]byte, error) { return json.Marshal(r) }

func decode(in io.Reader) (*record, error) {
	var r record
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return nil, err
	}
	switch r.State {
	case claimed, released, done:
		return &r, nil
	default:
		return nil, fmt.Errorf("state %q is unknown: a newer assetmill wrote it?", r.State)
	}
}

func (r *record) setSpent(s worker.Spent) (err error) {
	r.Spent, err = worker.EncodeSpent(s)
	return err
}

func (r *record) setEnd(end worker.Record) (err error) {
	if r.Generation, err = schemas.Marshal(end.Generation); err != nil {
		return err
	}
	r.Attempts, err = worker.EncodeAttempts(end.Attempts)
	return err
}

func (r *record) end() (worker.Record, error) {
	row := &schemas.GenerationRow{}
	if err := schemas.Unmarshal(r.Generation, row); err != nil {
		return worker.Record{}, err
	}
	attempts, err := worker.DecodeAttempts(r.Attempts)
	return worker.Record{Generation: row, Attempts: attempts}, err
}
