package vertextest

import (
	"encoding/json"
	"errors"
	"net/http"
)

// controlPath is below what no Google API serves. A benchmark whose stand-ins
// are other processes steers them here.
const controlPath = "/_vertextest/"

// maxControlBytes bounds a request to the control endpoint.
const maxControlBytes = 64 << 10

// gateState is the gate as the control endpoint shows and takes it.
type gateState struct {
	At      int `json:"at"`
	Waiting int `json:"waiting"`
}

// control serves the endpoints named in the package documentation.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path[len(controlPath):] {
	case "GET stats":
		writeJSON(w, s.Stats())
	case "GET gate":
		s.writeGate(w)
	case "POST gate":
		var in gateState
		if !readControl(w, r, &in) {
			return
		}
		s.SetGate(in.At)
		s.writeGate(w)
	case "POST gate/open":
		s.OpenGate()
		s.writeGate(w)
	case "POST quota":
		var in QuotaStep
		if !readControl(w, r, &in) {
			return
		}
		s.SetTierRequestsPerMinute(in.Tier, in.RequestsPerMinute)
		writeJSON(w, in)
	case "GET batches":
		writeJSON(w, s.BatchJobs())
	case "POST batches/step":
		s.controlBatch(w, r, func(in batchControl) error { return s.StepBatch(in.Name, in.Rows) })
	case "POST batches/expire":
		s.controlBatch(w, r, func(in batchControl) error { return s.ExpireBatch(in.Name) })
	default:
		writeError(w, notServed(r))
	}
}

// batchControl names a job, and for a step the rows to answer.
type batchControl struct {
	Name string `json:"name"`
	Rows int    `json:"rows"`
}

// controlBatch does something to a job and shows all jobs.
func (s *Server) controlBatch(w http.ResponseWriter, r *http.Request, do func(batchControl) error) {
	var in batchControl
	if !readControl(w, r, &in) {
		return
	}
	if err := do(in); err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = statusError(http.StatusServiceUnavailable)
		}
		writeError(w, e)
		return
	}
	writeJSON(w, s.BatchJobs())
}

func (s *Server) writeGate(w http.ResponseWriter) {
	at, waiting := s.gate.state()
	writeJSON(w, gateState{at, waiting})
}

func readControl(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBytes)).Decode(v); err != nil {
		writeError(w, invalid("%v", err))
		return false
	}
	return true
}

// writeJSON answers 200 with v. A failed write means that the client has gone.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_ = json.NewEncoder(w).Encode(v)
}
