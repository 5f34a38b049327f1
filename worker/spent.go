package worker

import (
	"encoding/json"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// spentRecord is Spent as it is stored.
type spentRecord struct {
	Calls     int               `json:"calls"`
	Throttled int               `json:"throttled"`
	NanoUSD   jobs.USD          `json:"nano_usd"`
	Fallback  bool              `json:"fallback,omitempty"`
	Abandoned int               `json:"abandoned,omitempty"`
	Attempts  []json.RawMessage `json:"attempts,omitempty"` // in the form in which messages travel
}

// EncodeSpent returns what was spent as JSON.
func EncodeSpent(s Spent) (json.RawMessage, error) {
	attempts, err := EncodeAttempts(s.Attempts)
	if err != nil {
		return nil, err
	}
	return json.Marshal(spentRecord{
		Calls: s.Calls, Throttled: s.Throttled, NanoUSD: s.Cost, Fallback: s.Fallback, Abandoned: s.Abandoned, Attempts: attempts,
	})
}

// DecodeSpent reads what EncodeSpent returned; nothing stands for nothing spent.
func DecodeSpent(data json.RawMessage) (Spent, error) {
	if len(data) == 0 {
		return Spent{}, nil
	}
	var r spentRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return Spent{}, err
	}
	attempts, err := DecodeAttempts(r.Attempts)
	return Spent{Calls: r.Calls, Throttled: r.Throttled, Cost: r.NanoUSD, Fallback: r.Fallback, Abandoned: r.Abandoned, Attempts: attempts}, err
}

// EncodeAttempts returns rows in the form in which messages travel.
func EncodeAttempts(rows []*schemas.AttemptRow) ([]json.RawMessage, error) {
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

// DecodeAttempts reads what EncodeAttempts returned.
func DecodeAttempts(raw []json.RawMessage) ([]*schemas.AttemptRow, error) {
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
