package ledger

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/assetmill/assetmill/jobs"
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

	Spent      *spentRecord      `json:"spent,omitempty"`      // claimed, released
	Generation json.RawMessage   `json:"generation,omitempty"` // done
	Attempts   []json.RawMessage `json:"attempts,omitempty"`   // done
}

type spentRecord struct {
	Calls     int               `json:"calls"`
	Throttled int               `json:"throttled"`
	NanoUSD   jobs.USD          `json:"nano_usd"`
	Fallback  bool              `json:"fallback,omitempty"`
	Abandoned int               `json:"abandoned,omitempty"`
	Attempts  []json.RawMessage `json:"attempts,omitempty"`
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

func (r *record) setSpent(s worker.Spent) error {
	attempts, err := encodeAttempts(s.Attempts)
	r.Spent = &spentRecord{Calls: s.Calls, Throttled: s.Throttled, NanoUSD: s.Cost, Fallback: s.Fallback, Abandoned: s.Abandoned, Attempts: attempts}
	return err
}

func (r *record) spent() (worker.Spent, error) {
	if r.Spent == nil {
		return worker.Spent{}, nil
	}
	attempts, err := decodeAttempts(r.Spent.Attempts)
	return worker.Spent{
		Calls: r.Spent.Calls, Throttled: r.Spent.Throttled, Cost: r.Spent.NanoUSD, Fallback: r.Spent.Fallback, Abandoned: r.Spent.Abandoned,
		Attempts: attempts,
	}, err
}

func (r *record) setEnd(end worker.Record) (err error) {
	if r.Generation, err = schemas.Marshal(end.Generation); err != nil {
		return err
	}
	r.Attempts, err = encodeAttempts(end.Attempts)
	return err
}

func (r *record) end() (worker.Record, error) {
	row := &schemas.GenerationRow{}
	if err := schemas.Unmarshal(r.Generation, row); err != nil {
		return worker.Record{}, err
	}
	attempts, err := decodeAttempts(r.Attempts)
	return worker.Record{Generation: row, Attempts: attempts}, err
}

func encodeAttempts(rows []*schemas.AttemptRow) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for _, row := range rows {
		data, err := schemas.Marshal(row)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func decodeAttempts(raw []json.RawMessage) ([]*schemas.AttemptRow, error) {
	var all []*schemas.AttemptRow
	for _, data := range raw {
		row := &schemas.AttemptRow{}
		if err := schemas.Unmarshal(data, row); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}
