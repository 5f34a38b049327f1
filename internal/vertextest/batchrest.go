package vertextest

import (
	"net/http"
	"regexp"
	"strconv"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

var restBatch = regexp.MustCompile(`^/(?:v1|v1beta1)/(projects/[^/]+/locations/[^/]+)/batchPredictionJobs(/[^/:]+)?(:cancel)?$`)

// batchREST serves the JSON form of JobService. m are the matches of restBatch.
func (s *Server) batchREST(w http.ResponseWriter, r *http.Request, m []string) {
	parent, name := m[1], m[1]+"/batchPredictionJobs"+m[2]
	var out proto.Message = &emptypb.Empty{}
	var e *apiError
	switch {
	case m[3] != "" && m[2] != "" && r.Method == http.MethodPost:
		e = s.cancelBatch(name)
	case m[3] != "":
		e = notServed(r)
	case m[2] == "" && r.Method == http.MethodPost:
		out, e = s.createBatchREST(w, r, parent)
	case m[2] == "" && r.Method == http.MethodGet:
		out, e = s.listBatchesREST(r, parent)
	case m[2] != "" && r.Method == http.MethodGet:
		out, e = s.getBatch(name)
	case m[2] != "" && r.Method == http.MethodDelete:
		out, e = s.deleteOperation(name)
	default:
		e = notServed(r)
	}
	if e != nil {
		writeError(w, e)
		return
	}
	body, err := protojson.Marshal(out)
	if err != nil {
		writeError(w, statusError(http.StatusInternalServerError))
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_, _ = w.Write(body) // a failed write means that the client has gone
}

func (s *Server) createBatchREST(w http.ResponseWriter, r *http.Request, parent string) (proto.Message, *apiError) {
	body, e := readBody(w, r)
	if e != nil {
		return nil, e
	}
	job := &aiplatformpb.BatchPredictionJob{}
	if err := protojson.Unmarshal(body, job); err != nil {
		return nil, invalid("Invalid JSON payload received. %v", err)
	}
	return s.createBatch(r.Context(), parent, job)
}

func (s *Server) listBatchesREST(r *http.Request, parent string) (proto.Message, *apiError) {
	query := r.URL.Query()
	size, err := strconv.ParseInt("0"+query.Get("pageSize"), 10, 32)
	if err != nil {
		return nil, invalid("Invalid value at 'page_size' (TYPE_INT32), %q", query.Get("pageSize"))
	}
	return s.listBatches(parent, query.Get("filter"), int32(size), query.Get("pageToken"))
}
