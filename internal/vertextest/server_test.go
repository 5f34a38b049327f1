package vertextest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/assetmill/assetmill/internal/vertextest"
)

const proPath = "/v1/projects/p/locations/global/publishers/google/models/gemini-3-pro-image:generateContent"

// start runs a server for one test.
func start(t *testing.T, cfg vertextest.Config) *vertextest.Server {
	t.Helper()
	s, err := vertextest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// client returns an HTTP client with its own connections.
func client(t *testing.T, s *vertextest.Server, protocol string) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	switch protocol {
	case "h1":
		tr.Protocols.SetHTTP1(true)
	case "h2c":
		tr.Protocols.SetUnencryptedHTTP2(true)
	case "h2":
		tr.Protocols.SetHTTP2(true)
	default:
		t.Fatalf("protocol %q", protocol)
	}
	if strings.HasPrefix(s.URL(), "https:") {
		tr.TLSClientConfig = tlsConfig(s)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// request is the body of a plain request for one image.
func request(prompt string) string {
	b, err := json.Marshal(prompt)
	if err != nil {
		panic(err)
	}
	return `{"contents":[{"role":"user","parts":[{"text":` + string(b) + `}]}]}`
}

func jsonBody(s string) io.Reader { return strings.NewReader(s) }

// post sends body and returns status and body of the answer.
func post(t *testing.T, c *http.Client, url, body string, headers ...string) (int, []byte) {
	t.Helper()
	status, got, err := tryPost(t.Context(), c, url, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return status, got
}

func tryPost(ctx context.Context, c *http.Client, url, body string, headers ...string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, got, err
}

// response is what a client reads of an answer.
type response struct {
	Candidates []struct {
		Content *struct {
			Parts []struct {
				Text             string
				Thought          bool
				ThoughtSignature string
				InlineData       *struct {
					MIMEType string `json:"mimeType"`
					Data     []byte
				}
				FileData *struct {
					MIMEType string `json:"mimeType"`
					FileURI  string `json:"fileUri"`
				}
			}
		}
		FinishReason  string
		FinishMessage string
	}
	PromptFeedback *struct{ BlockReason string }
	UsageMetadata  *struct {
		PromptTokenCount, CandidatesTokenCount, ThoughtsTokenCount, TotalTokenCount int
		TrafficType                                                                 string
		CandidatesTokensDetails                                                     []struct {
			Modality   string
			TokenCount int
		}
	}
	ModelVersion, ResponseID, CreateTime string
}

// images returns the images of an answer, without thoughts.
func (r response) images() [][]byte {
	var out [][]byte
	for _, c := range r.Candidates {
		if c.Content == nil {
			continue
		}
		for _, p := range c.Content.Parts {
			if p.InlineData != nil && !p.Thought {
				out = append(out, p.InlineData.Data)
			}
		}
	}
	return out
}

func decode(t *testing.T, body []byte) response {
	t.Helper()
	var r response
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("answer is not JSON: %v\n%.300s", err, body)
	}
	return r
}

// generate posts a request that must succeed.
func generate(t *testing.T, s *vertextest.Server, body string, headers ...string) response {
	t.Helper()
	status, got := post(t, client(t, s, "h1"), s.URL()+proPath, body, headers...)
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, got)
	}
	return decode(t, got)
}

// errorOf returns the message of an error in Google's shape.
func errorOf(t *testing.T, status int, body []byte) (message, canonical string) {
	t.Helper()
	var e struct {
		Error struct {
			Code            int
			Message, Status string
			Details         []json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("error body %q: %v", body, err)
	}
	if e.Error.Code != status || e.Error.Details == nil {
		t.Errorf("status %d, error body %s: want the same code, and details", status, body)
	}
	return e.Error.Message, e.Error.Status
}

// safeBuffer is a call log to read while the server writes.
type safeBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	lines int
	more  chan struct{} // closed and replaced when a line comes; nil: nobody waits
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines++
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
	return s.b.Write(p)
}

// wait returns when the log has n lines.
func (s *safeBuffer) wait(t *testing.T, n int) {
	t.Helper()
	for {
		s.mu.Lock()
		if s.lines >= n {
			s.mu.Unlock()
			return
		}
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-t.Context().Done():
			t.Fatalf("fewer than %d lines in the call log", n)
		}
	}
}

func (s *safeBuffer) records(t *testing.T) []vertextest.CallRecord {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []vertextest.CallRecord
	dec := json.NewDecoder(bytes.NewReader(s.b.Bytes()))
	for {
		var r vertextest.CallRecord
		if err := dec.Decode(&r); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		protocol string
		tls      bool
		major    int
	}{{"h1", false, 1}, {"h2c", false, 2}, {"h1", true, 1}, {"h2", true, 2}} {
		t.Run(fmt.Sprintf("%s tls=%v", tc.protocol, tc.tls), func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			s := start(t, vertextest.Config{TLS: tc.tls, CallLog: &log})
			c := client(t, s, tc.protocol)
			prompt := "A lighthouse, " + tc.protocol
			resp, err := c.Post(s.URL()+proPath, "application/json", strings.NewReader(request(prompt)))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.ProtoMajor != tc.major {
				t.Errorf("HTTP/%d, want HTTP/%d", resp.ProtoMajor, tc.major)
			}
			if resp.ContentLength != -1 {
				t.Errorf("Content-Length %d, want a streamed body", resp.ContentLength)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			// The line is there as soon as the body is.
			recs := log.records(t)
			r := decode(t, body)
			imgs := r.images()
			if len(imgs) != 1 || len(recs) != 1 {
				t.Fatalf("%d images, %d log lines; want 1 of each", len(imgs), len(recs))
			}
			if hash, ok := vertextest.PromptHash(imgs[0]); !ok || hash != sum([]byte(prompt)) {
				t.Errorf("prompt hash %q %v, want %q", hash, ok, sum([]byte(prompt)))
			}
			if rec := recs[0]; rec.Image != sum(imgs[0]) || rec.Bytes != len(imgs[0]) || rec.Result != "image" || !rec.Delivered {
				t.Errorf("log line %+v does not describe the image", rec)
			}
		})
	}
}

func TestAdvertisesHundredStreams(t *testing.T) {
	t.Parallel()
	plain, secure := start(t, vertextest.Config{}), start(t, vertextest.Config{TLS: true})
	hostOf := func(s *vertextest.Server) string { _, host, _ := strings.Cut(s.URL(), "://"); return host }
	for name, tc := range map[string]struct {
		addr string
		s    *vertextest.Server
		tls  bool
	}{
		"h2c":      {hostOf(plain), plain, false},
		"h2":       {hostOf(secure), secure, true},
		"grpc":     {plain.GRPCAddr(), plain, false},
		"grpc tls": {secure.GRPCAddr(), secure, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conn net.Conn
			var err error
			if tc.tls {
				conf := tlsConfig(tc.s)
				conf.NextProtos = []string{"h2"}
				conn, err = tls.Dial("tcp", tc.addr, conf)
			} else {
				conn, err = net.Dial("tcp", tc.addr)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := maxStreams(t, conn); got != 100 {
				t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS %d, want 100", got)
			}
		})
	}
}

// maxStreams opens HTTP/2 on conn and returns what the server's settings allow.
func maxStreams(t *testing.T, conn net.Conn) uint32 {
	t.Helper()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(conn, conn)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if settings, ok := f.(*http2.SettingsFrame); ok && !settings.IsAck() {
			n, _ := settings.Value(http2.SettingMaxConcurrentStreams)
			return n
		}
	}
}

func TestStreamLimitSpreadsOverConnections(t *testing.T) {
	t.Parallel()
	const calls = 150
	arrived := make(chan struct{}, calls)
	s := start(t, vertextest.Config{Hook: func(_ *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		arrived <- struct{}{}
		f.Fault = vertextest.FaultHang
		return f
	}})
	c := client(t, s, "h2c")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() { _, _, _ = tryPost(ctx, c, s.URL()+proPath, request("x")) })
	}
	for range calls {
		<-arrived
	}
	if st := s.Stats(); st.Conns < 2 || st.InFlight != calls || st.PeakInFlight != calls {
		t.Errorf("%d calls in flight on %d connections, want %d on at least 2", st.InFlight, st.Conns, calls)
	}
	cancel()
	wg.Wait()
}

func TestCloseEndsCalls(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	arrived := make(chan struct{}, 2)
	s, err := vertextest.Start(vertextest.Config{CallLog: &log, Hook: func(_ *vertextest.Call, f vertextest.Fate) vertextest.Fate {
		arrived <- struct{}{}
		return f
	}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, prompt := range []string{"[[fault:hang]]", "[[latency:10m]]"} {
		wg.Go(func() {
			if status, _, err := tryPost(t.Context(), client(t, s, "h1"), s.URL()+proPath, request(prompt)); err == nil && status == http.StatusOK {
				t.Errorf("%s: answered although the server closed", prompt)
			}
		})
		<-arrived
	}
	for range 2 { // closing twice is allowed
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if st := s.Stats(); st.InFlight != 0 || len(log.records(t)) != 0 {
		t.Errorf("%d in flight, log %v after Close; want none", st.InFlight, log.records(t))
	}
}

func TestStartRefusesBadConfig(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]vertextest.Config{
		"shares over 1":   {Refusals: vertextest.Refusals{Prompt: 0.6, Output: 0.6}},
		"negative share":  {Faults: vertextest.Faults{Cut: -0.1}},
		"share over 1":    {TextPart: 1.5},
		"latency":         {MaxLatency: time.Hour},
		"image bytes":     {ImageBytes: 1 << 40},
		"quota":           {RequestsPerMinute: -1},
		"tier quota":      {TierRequestsPerMinute: map[string]float64{vertextest.TierFlex: -1}},
		"no such address": {Addr: "256.0.0.1:0"},
		"address in use":  {GRPCAddr: "nonsense"},
		"noise over 1":    {QuotaNoise: 1.1},
		"growth":          {QuotaGrowth: -1},
		"gate":            {GateAt: -1},
		"steps unordered": {QuotaSteps: []vertextest.QuotaStep{{After: time.Minute}, {After: time.Second}}},
		"no storage":      {DirectOutput: map[string]vertextest.DirectOutput{"m": vertextest.DirectHonoured}},
		"batch rows":      {Batch: vertextest.Batch{Faults: vertextest.BatchFaults{Cut: 0.6, Missing: 0.6}}},
		"batch copies":    {Batch: vertextest.Batch{Faults: vertextest.BatchFaults{MaxCopies: 20}}},
		"batch times":     {Batch: vertextest.Batch{Pending: -1}},
		"batch shards":    {Batch: vertextest.Batch{ShardRows: -1}},
		"batch files":     {Batch: vertextest.Batch{ShardRows: 1, GrowRows: 1}},
		"direct output":   {DirectOutput: map[string]vertextest.DirectOutput{"m": 9}},
	} {
		if s, err := vertextest.Start(cfg); err == nil {
			t.Errorf("%s: started", name)
			_ = s.Close()
		}
	}
}

func tlsConfig(s *vertextest.Server) *tls.Config { return &tls.Config{RootCAs: s.CertPool()} }
