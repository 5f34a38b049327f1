package vertextest

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
)

var restEndpoint = regexp.MustCompile(`^/(v1|v1beta1)/(projects/[^/]+/locations/[^/]+/endpoints/[^/:]+):predict$`)

var restPath = regexp.MustCompile(`^/(v1|v1beta1)/(projects/[^/]+/locations/[^/]+/publishers/google/models/[^/:]+):([A-Za-z]+)$`)

// serveREST is the whole REST surface.
func (s *Server) serveREST(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		writeError(w, statusError(http.StatusServiceUnavailable))
		return
	}
	defer s.active.Done()
	if strings.HasPrefix(r.URL.Path, controlPath) {
		s.control(w, r)
		return
	}
	if m := restBatch.FindStringSubmatch(r.URL.Path); m != nil {
		s.batchREST(w, r, m)
		return
	}
	if m := restEndpoint.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodPost {
		s.predictREST(w, r, m[2])
		return
	}
	m := restPath.FindStringSubmatch(r.URL.Path)
	if m == nil || r.Method != http.MethodPost {
		writeError(w, notServed(r))
		return
	}
	res, ok := parseResource(m[2])
	if !ok {
		writeError(w, notServed(r))
		return
	}
	switch m[3] {
	case "generateContent":
		s.generate(w, r, res)
	case "countTokens":
		s.countTokens(w, r, res)
	default:
		writeError(w, notServed(r))
	}
}

func notServed(r *http.Request) *apiError {
	e := statusError(http.StatusNotFound)
	e.Message = "The requested URL was not found on this server: " + r.Method + " " + r.URL.Path
	return e
}

// readTree reads and checks a request body.
func readTree(w http.ResponseWriter, r *http.Request, shape message) (tree, *apiError) {
	body, e := readBody(w, r)
	if e != nil {
		return nil, e
	}
	return decodeTree(body, shape)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, invalid("Request payload size exceeds the limit: %d bytes.", maxRequestBytes)
	}
	if err != nil {
		return nil, statusError(statusClientClosed)
	}
	return body, nil
}

func (s *Server) countTokens(w http.ResponseWriter, r *http.Request, res resource) {
	s.counters.update(func(st *Stats) { st.CountTokens++ })
	t, e := readTree(w, r, countTokensShape())
	if e != nil {
		writeError(w, e)
		return
	}
	model, e := s.lookUp(res)
	if e != nil {
		writeError(w, e)
		return
	}
	c := &Call{Model: res.model, model: model}
	if e := c.setContents(t); e != nil {
		writeError(w, e)
		return
	}
	images := len(c.References) * model.ReferenceTokens
	details := []modalityTokens{{"TEXT", c.inTokens - images}}
	if images > 0 {
		details = append(details, modalityTokens{"IMAGE", images})
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// A failed write means that the client has gone.
	_ = enc.Encode(map[string]any{
		"totalTokens": c.inTokens, "totalBillableCharacters": c.textRunes(), "promptTokensDetails": details,
	})
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request, res resource) {
	s.counters.begin()
	status, err := s.generateStatus(w, r, res)
	s.counters.end(status)
	if err != nil {
		panic(http.ErrAbortHandler) // break the connection: a clean end would look complete to HTTP
	}
}

// generateStatus serves one call and returns the status to count. An error
// means that the body is incomplete.
func (s *Server) generateStatus(w http.ResponseWriter, r *http.Request, res resource) (int, error) {
	t, e := readTree(w, r, generateContentShape())
	var c *Call
	if e == nil {
		c, e = s.newCall(r.Context(), res, t, r.Header)
	}
	if e != nil {
		writeError(w, e)
		return e.Code, nil
	}
	reply, err := s.ask(r.Context(), c)
	if errors.As(err, &e) {
		writeError(w, e)
		return e.Code, nil
	}
	if err != nil {
		return s.noAnswer(w, r, err), nil
	}
	err = s.send(w, r, c, reply)
	if err != nil && !errors.Is(err, errCut) {
		return statusClientClosed, err
	}
	return http.StatusOK, err
}

// noAnswer ends a call that the client left, that the server's closing ended,
// or that failed inside.
func (s *Server) noAnswer(w http.ResponseWriter, r *http.Request, err error) int {
	switch {
	case errors.Is(context.Cause(r.Context()), errClosed), errors.Is(err, errClosed):
		writeError(w, statusError(http.StatusServiceUnavailable))
		return http.StatusServiceUnavailable
	case r.Context().Err() != nil:
		return statusClientClosed
	default:
		writeError(w, statusError(http.StatusInternalServerError))
		return http.StatusInternalServerError
	}
}

// send writes the answer as its fate says and records it. An error means that
// the body is incomplete.
func (s *Server) send(w http.ResponseWriter, r *http.Request, c *Call, reply *reply) error {
	body, err := renderJSON(reply.answer, reply.fate.Escape)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Add("Vary", "Origin")
	h.Add("Vary", "X-Origin")
	h.Add("Vary", "Referer")
	var out io.Writer = w
	finish := func() error { return nil }
	if s.cfg.Gzip && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		out, finish = z, z.Close
	}
	d := delivery{ctx: r.Context(), w: out, flush: http.NewResponseController(w).Flush, body: body, escape: reply.fate.Escape}
	switch reply.fate.Fault {
	case FaultCut:
		err = d.cut()
		s.record(c, reply, false)
		return errors.Join(errCut, err)
	case FaultGarbage:
		err = d.garbage()
		s.record(c, reply, false)
		return errors.Join(err, finish())
	case FaultSlow:
		err = d.slow(s.cfg.SlowBody)
	default:
		err = d.whole()
	}
	s.record(c, reply, err == nil && r.Context().Err() == nil)
	if err != nil {
		return err
	}
	// The last bytes follow the record: a client with a whole answer finds its line.
	if _, err := out.Write(body.last); err != nil {
		return err
	}
	return finish()
}

var errCut = errors.New("body cut on purpose")
