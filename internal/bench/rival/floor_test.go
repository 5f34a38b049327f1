package rival

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func answerOf(picture []byte) string {
	return "{\n  \"inlineData\": {\n    \"mimeType\": \"image/png\",\n    \"data\": \"" + base64.StdEncoding.EncodeToString(picture) + "\"\n  },\n  \"more\": \"text\"\n}\n"
}

func picture(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(p)
	return p
}

// stored is a storage that keeps what is put, by path.
type stored struct {
	mu  sync.Mutex
	all map[string][]byte
}

func (s *stored) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPut {
		http.Error(w, "put it whole", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[r.URL.Path] = data
}

func TestFloorRelays(t *testing.T) {
	t.Parallel()
	const jobs = 20
	image := picture(300_001)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ":generateContent") || r.ProtoMajor != 1 {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, answerOf(image))
	}))
	t.Cleanup(model.Close)
	for name, tc := range map[string]struct {
		decode bool
		want   []byte
	}{"as it comes": {false, []byte(answerOf(image))}, "decoded": {true, image}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stored{all: map[string][]byte{}}
			storage := httptest.NewServer(s)
			t.Cleanup(storage.Close)
			cfg := FloorConfig{ModelURL: model.URL, StorageURL: storage.URL, Bucket: "b", Project: "p", Jobs: jobs, InFlight: 3, Decode: tc.decode}
			if err := Floor(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			for i := range jobs {
				if got := s.all[fmt.Sprintf("/b/floor/%d", i)]; !bytes.Equal(got, tc.want) {
					t.Errorf("job %d: %d bytes instead of %d", i, len(got), len(tc.want))
				}
			}
			if len(s.all) != jobs {
				t.Errorf("%d objects", len(s.all))
			}
		})
	}
}

func TestFloorFails(t *testing.T) {
	t.Parallel()
	nothing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(nothing.Close)
	err := Floor(context.Background(), FloorConfig{ModelURL: nothing.URL, StorageURL: nothing.URL, Jobs: 5, InFlight: 2})
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a model that is not there: %v", err)
	}
}

func TestImageReader(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 2, 3, 1000, relayBlock, 3*relayBlock + 1} {
		want := picture(size)
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(answerOf(want)), "byte by byte": iotest.OneByteReader(strings.NewReader(answerOf(want))),
			"halves": iotest.HalfReader(strings.NewReader(answerOf(want))), "with the end": iotest.DataErrReader(strings.NewReader(answerOf(want))),
		} {
			if got, err := io.ReadAll(&imageReader{from: r}); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %s: %d bytes: %v", size, how, len(got), err)
			}
		}
	}
	for name, text := range map[string]string{
		"no image": `{"candidates": []}`, "not base64": `{"data": "%%%%"}`, "cut off": `{"data": "AAAA`, "nothing": "",
		"far away": `{"x": "` + strings.Repeat(" ", relayBlock) + `", "data": "AAAA"}`,
	} {
		if got, err := io.ReadAll(&imageReader{from: strings.NewReader(text)}); err == nil {
			t.Errorf("%s: %d bytes and no error", name, len(got))
		}
	}
}
