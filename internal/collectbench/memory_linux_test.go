package collectbench

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"

	"github.com/assetmill/assetmill/worker/batch"
)

// Memory does not grow with the output. Here it is what is alive on the heap, that of the stand-ins included; TestMemoryOfLargeOutputs measures a process.
func TestMemoryDoesNotGrow(t *testing.T) {
	const (
		imageBytes = 1 << 20
		few, many  = 24, 96 // images: 32 and 128 MiB of output
		// most is for the images, the buffers of fifty connections at both ends, and what every process has.
		most = 40 << 20
		// slack is a twelfth of what the larger output has more. What is alive at a moment depends on the moment.
		slack = 8 << 20
	)
	s := setup{imageBytes: 8 << 20, rangeBytes: 4 << 20} // so that there are always two ranges at a time
	small := heapOfCollecting(t, ask{few, imageBytes}, s)
	large := heapOfCollecting(t, ask{many, imageBytes}, s)
	t.Logf("32 MiB of output: %s; 128 MiB: %s", small, large)
	if large.half > small.half+slack || large.most > most {
		t.Errorf("alive while %d images are collected: %s; while %d are: %s", many, large, few, small)
	}
	s.files = func(f batch.Files) batch.Files { return &keeper{Files: f} }
	if keeping := heapOfCollecting(t, ask{few, imageBytes}, s); keeping.half <= small.half+slack || keeping.most <= most {
		t.Errorf("alive in a collector that keeps what it reads: %s; this test would not notice", keeping)
	}
}

// heap is how many bytes are alive half of the time, and at most.
type heap struct{ half, most float64 }

func (h heap) String() string {
	return fmt.Sprintf("%.0f MiB half of the time, %.0f MiB at most", h.half/(1<<20), h.most/(1<<20))
}

// heapOfCollecting collects an output in this process, and returns what was alive.
func heapOfCollecting(t *testing.T, a ask, s setup) heap {
	t.Helper()
	cloud, err := openCloud(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cloud.close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := openCollector(t.Context(), &cloud.place, s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ranges, err := c.cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop := watchHeap()
	err = c.collect(t.Context(), ranges)
	peak := stop()
	if err == nil {
		err = c.finish(t.Context())
	}
	if s := cloud.storage.Stats(); err != nil || s.Damaged > 0 || int(s.Assets) != a.Rows {
		t.Fatalf("%+v, %v", s, err)
	}
	return peak
}

// watchHeap collects garbage again and again, and looks at what is left. stop returns what that was half of the time, and at most.
func watchHeap() (stop func() heap) {
	ctx, cancel := context.WithCancel(context.Background())
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var seen []uint64
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			runtime.GC()
			metrics.Read(live)
			seen = append(seen, live[0].Value.Uint64())
			if ctx.Err() != nil {
				return
			}
		}
	})
	return func() heap {
		cancel()
		watch.Wait()
		slices.Sort(seen)
		return heap{float64(seen[len(seen)/2]), float64(seen[len(seen)-1])}
	}
}

// keeper are files of which all that is read is kept.
type keeper struct {
	batch.Files

	mu   sync.Mutex
	kept [][]byte
}

func (k *keeper) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	r, err := k.Files.Open(ctx, name, offset, length)
	return keepingReader{r, k}, err
}

type keepingReader struct {
	io.ReadCloser
	keeper *keeper
}

func (r keepingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	r.keeper.kept = append(r.keeper.kept, slices.Clone(p[:n]))
	return n, err
}

// fullVariable asks for the tests that take minutes.
const fullVariable = "ASSETMILL_COLLECT_FULL"

// The collector's process needs no more memory for an output ten times as large, but for a tenth, and at most half a gigabyte. When garbage is collected
// is a matter of luck, so the smaller output has three tries to show its peak.
func TestMemoryOfLargeOutputs(t *testing.T) {
	if os.Getenv(fullVariable) == "" {
		t.Skip("set " + fullVariable + "=1 to collect outputs of 2 and 20 GB, in minutes")
	}
	const most = 512 << 20
	for _, size := range []int{1_500_000, 6_000_000} {
		t.Run(mb(size)+"MB", func(t *testing.T) {
			rows := int(2e9) / (size / 3 * 4)
			var small int64
			for range 3 {
				small = max(small, peakOfCollecting(t, ask{rows, size}))
			}
			if large := peakOfCollecting(t, ask{10 * rows, size}); large > small+small/10 || large > most {
				t.Errorf("the peak of the larger output is %d bytes, that of the smaller %d", large, small)
			}
		})
	}
}

// peakOfCollecting collects an output in a process of its own, and returns that one's largest resident set.
func peakOfCollecting(t *testing.T, a ask) int64 {
	t.Helper()
	r, stop, err := startCloud(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	f, err := contend(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%5.1f GB of %s MB images: %6.1f s, %5.1f s of CPU, peak %3d MiB", float64(r.Place.Size)/1e9, mb(a.ImageBytes), f.Seconds, f.CPU, f.Peak>>20)
	return f.Peak
}
