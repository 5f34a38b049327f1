package vertex

import (
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/blob"
)

// The sizes of TestBurst. The targets are met with -burst.answers=3200 -burst.kib=1536 -burst.budget=256 and with -burst.answers=1000 -burst.kib=6144 -burst.budget=256.
var (
	burstAnswers = flag.Int("burst.answers", 120, "answers that arrive at the same moment")
	burstKiB     = flag.Int("burst.kib", 1024, "size of an image in KiB")
	burstBudget  = flag.Int("burst.budget", 8, "byte budget in MiB")
	burstHTTP2   = flag.Bool("burst.http2", false, "use HTTP/2")
)

const (
	// perAnswer is what an answer may hold besides the budget, in bytes: goroutines and buffers of both ends, which run in this process.
	perAnswer = 256 << 10
	// connecting is how many calls connect at a time: thousands of TLS handshakes at once take longer than a handshake may.
	connecting = 64
	// uploads is how many images are stored at a time.
	uploads = 16
)

// TestBurst has many answers arrive at the same moment, while the storage takes nothing until each of them is in memory or waits. Memory must stay within the byte budget and the buffers of connections, twice
// that with the garbage collector's leeway, whatever the images add up to.
func TestBurst(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	answers, budget := *burstAnswers, blob.NewBudget(int64(*burstBudget)<<20)
	pic := append(pngImage(t, 4, 4), make([]byte, *burstKiB<<10)...)
	server, arrivals := burstServer(t, answers, candidate("STOP", "", inline("image/png", pic)))
	transport := newTransport(answers, *burstHTTP2)
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	o, err := New(t.Context(), Config{BaseURL: server.URL, NoAuth: true, Budget: budget, Transport: transport, CallTimeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	call, sum := callOf(newJob(t, nil)), crc32.Checksum(pic, crc32.MakeTable(crc32.Castagnoli))

	peak := watchMemory(t)
	storing := make(chan struct{}, uploads)
	opened := make(chan struct{})
	var reserved, received atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		defer close(opened)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for int(received.Load())+budget.Usage().Waiting < answers && t.Context().Err() == nil && !t.Failed() {
			<-tick.C
		}
	})
	start := time.Now()
	for i := range answers {
		if i >= connecting {
			<-arrivals
		}
		all.Go(func() {
			a, err := o.Generate(t.Context(), call)
			if err != nil || a.Image == nil {
				t.Errorf("%+v, %v", a, err)
				return
			}
			defer a.Image.Blob.Release()
			for now := budget.Usage().Reserved; ; {
				if seen := reserved.Load(); now <= seen || reserved.CompareAndSwap(seen, now) {
					break
				}
			}
			received.Add(1)
			<-opened
			storing <- struct{}{}
			defer func() { <-storing }()
			h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
			if n, err := io.Copy(h, a.Image.Blob.NewReader()); n != int64(len(pic)) || err != nil || h.Sum32() != sum {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	all.Wait()
	took, used := time.Since(start), peak()
	bound := 2 * (uint64(budget.Usage().Capacity) + uint64(answers)*perAnswer)
	t.Logf("%d answers of %d KiB in %s: %d MiB at most, %d of them for images; %d MiB are the bound, the images are %d MiB",
		answers, *burstKiB, took.Round(time.Millisecond), used>>20, reserved.Load()>>20, bound>>20, answers*len(pic)>>20)
	if used > bound {
		t.Errorf("%d MiB of memory were used, of at most %d", used>>20, bound>>20)
	}
	if u := budget.Usage(); reserved.Load() > u.Capacity || u.Reserved != 0 || u.Waiting != 0 {
		t.Errorf("%d bytes were reserved at most; at the end %+v", reserved.Load(), u)
	}
}

// burstServer answers once so many requests have come, all of them at once. It tells of each that comes.
func burstServer(t *testing.T, answers int, body string) (_ *httptest.Server, arrivals <-chan struct{}) {
	t.Helper()
	var arrived atomic.Int32
	come := make(chan struct{}, answers)
	all := make(chan struct{})
	answer := []byte(body)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		come <- struct{}{}
		if int(arrived.Add(1)) == answers {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		_, _ = w.Write(answer)
	}))
	server.EnableHTTP2 = *burstHTTP2
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, come
}

// watchMemory follows the memory that the runtime has taken from the system and not given back. peak ends that and returns the most there
// was beyond what there was at first.
func watchMemory(t *testing.T) (peak func() uint64) {
	t.Helper()
	debug.FreeOSMemory()
	first := inUse()
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		most := first
		for {
			select {
			case <-tick.C:
				most = max(most, inUse())
			case <-stop:
				done <- max(most, inUse())
				return
			}
		}
	}()
	return func() uint64 { close(stop); return <-done - first }
}

func inUse() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
