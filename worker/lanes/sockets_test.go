package lanes_test

import (
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
	"github.com/assetmill/assetmill/worker/vertex"
)

var whole = flag.Bool("upload", false, "play 900 jobs at 600 a minute over sockets, which takes a minute and a half")

// upload is so many jobs on a service with a hidden quota whose calls take a second.
type upload struct {
	jobs      int
	perMinute float64
	inFlight  int
}

// TestUploadOverSockets is the lanes and the Vertex client of a worker against a service of real sockets, as `docs/pacing.md` tells of it.
func TestUploadOverSockets(t *testing.T) {
	t.Parallel()
	u, within, throttled := upload{60, 300, 64}, 40*time.Second, 20 // mostly the search for the quota, on a machine that may be busy
	if *whole {
		u = upload{900, 600, 64}
		ideal := time.Duration(float64(u.jobs)/u.perMinute*float64(time.Minute)) + time.Second
		within = ideal * 11 / 10
	}
	took, n := u.play(t)
	t.Logf("%d jobs at %.0f a minute: %s, %d answers of 429", u.jobs, u.perMinute, took, n)
	if took > within {
		t.Errorf("took %s, want at most %s", took, within)
	}
	if n > throttled {
		t.Errorf("%d answers of 429, want at most %d", n, throttled)
	}
}

// play returns how long all jobs took and how many answers were 429.
func (u upload) play(t *testing.T) (time.Duration, int) {
	server, err := vertextest.Start(vertextest.Config{
		RequestsPerMinute: u.perMinute, MinLatency: time.Second, MaxLatency: time.Second, PlainPictures: true, ImageBytes: 100_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	catalogue := jobs.DefaultCatalogue()
	set := lanes.New(lanes.Default("p", "", catalogue), lanes.Options{MaxInFlight: u.inFlight, Worker: "w1", Seed: 1})
	set.Hear(time.Now(), time.Now(), nil) // there is no other worker
	model, err := vertex.New(t.Context(), vertex.Config{
		Lanes: set.Lanes(), BaseURL: server.URL(), NoAuth: true, Budget: blob.NewBudget(256 << 20), UserAgent: "assetmill/test", MaxConns: u.inFlight,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	var throttled atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range u.jobs {
		j, err := catalogue.Parse(&schemas.Job{Prompt: fmt.Sprintf("a cup, number %d", i), Campaign: "spring", Client: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { serve(t, set, model, j, &throttled) })
	}
	wg.Wait()
	return time.Since(began), int(throttled.Load())
}

// serve makes calls for a job until one is answered.
func serve(t *testing.T, set *lanes.Set, model *vertex.Online, j *jobs.Job, throttled *atomic.Int64) {
	for attempt := 1; ; attempt++ {
		permit, err := set.Next(t.Context(), j)
		if err != nil {
			t.Error(err)
			return
		}
		answer, err := model.Generate(t.Context(), worker.Call{Job: j, Lane: permit.Lane(), Attempt: attempt})
		permit.End(err)
		var ce *worker.CallError
		switch {
		case err == nil:
			if answer.Image == nil {
				t.Errorf("no image: %+v", answer)
				return
			}
			answer.Image.Blob.Release()
			return
		case !errors.As(err, &ce) || ce.Kind != worker.Throttled:
			t.Error(err)
			return
		}
		throttled.Add(1)
	}
}
