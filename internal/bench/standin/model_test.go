package standin

import (
	"bytes"
	"encoding/json"
	"hash/crc32"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const generatePath = "/v1/projects/p/locations/global/publishers/google/models/m:generateContent"

func newModel(t *testing.T, cfg ModelConfig) *Model {
	t.Helper()
	m, err := NewModel(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ask(t *testing.T, m *Model, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader("{}")))
	return w
}

func TestAnswersHoldAPictureOfTheSizeAskedFor(t *testing.T) {
	t.Parallel()
	for _, size := range []int{4 << 10, 3 << 19, 3<<19 + 1} {
		m := newModel(t, ModelConfig{ImageBytes: size})
		var answer struct {
			Candidates []struct {
				FinishReason string
				Content      struct {
					Parts []struct {
						InlineData struct {
							MimeType string
							Data     []byte
						}
					}
				}
			}
			UsageMetadata struct{ TotalTokenCount int }
		}
		if err := json.Unmarshal(ask(t, m, generatePath).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		data := answer.Candidates[0].Content.Parts[0].InlineData.Data
		if len(data) != size || crc32.Checksum(data, castagnoli) != m.Stats().ImageCRC32C || answer.UsageMetadata.TotalTokenCount == 0 {
			t.Errorf("%d bytes instead of %d", len(data), size)
		}
		picture, err := png.Decode(bytes.NewReader(data))
		if err != nil || picture.Bounds().Dx() != side {
			t.Errorf("the picture of %d bytes: %v", size, err)
		}
	}
	if w := ask(t, newModel(t, ModelConfig{}), "/v1/m:countTokens"); w.Code != http.StatusOK {
		t.Errorf("countTokens: %d", w.Code)
	}
	if w := ask(t, newModel(t, ModelConfig{}), "/v1/m:other"); w.Code != http.StatusNotFound {
		t.Errorf("another method: %d", w.Code)
	}
}

func TestCallsTakeTheirTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, ModelConfig{Latency: time.Second})
		for range 20 {
			began := time.Now()
			ask(t, m, generatePath)
			if took := time.Since(began); took < 750*time.Millisecond || took > 1250*time.Millisecond {
				t.Errorf("a call took %s", took)
			}
		}
	})
}

func TestTheGateOpensForAllAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 10
		m := newModel(t, ModelConfig{Latency: time.Second, Gate: calls})
		var all sync.WaitGroup
		var mu sync.Mutex
		answered := map[time.Duration]int{}
		began := time.Now()
		call := func() {
			all.Go(func() {
				ask(t, m, generatePath)
				mu.Lock()
				defer mu.Unlock()
				answered[time.Since(began)]++
			})
		}
		for range calls - 1 {
			call()
		}
		time.Sleep(time.Minute)
		if got := m.Stats(); got.InFlight != calls-1 || m.Begun.Count() != calls-1 {
			t.Errorf("before the last call: %+v", got)
		}
		call()
		all.Wait()
		if answered[time.Minute] != calls-1 {
			t.Errorf("answered at %v", answered)
		}
		if got := m.Stats(); got.Calls != calls || got.Most != calls || got.InFlight != 0 || got.Unfinished != 0 {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m Meter
		reached := make(chan int, 2)
		for _, n := range []int{3, 5} {
			go func() {
				if err := m.Reach(t.Context(), n); err != nil {
					t.Error(err)
				}
				reached <- n
			}()
		}
		synctest.Wait()
		m.Add(2)
		synctest.Wait()
		if len(reached) != 0 {
			t.Error("reached too early")
		}
		m.Add(1)
		if n := <-reached; n != 3 {
			t.Errorf("%d was reached first", n)
		}
		m.Add(7)
		<-reached
		if err := m.Reach(t.Context(), 10); err != nil || m.Count() != 10 {
			t.Errorf("what was reached before: %v at %d", err, m.Count())
		}
	})
}
