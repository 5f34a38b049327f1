package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/assetmill/assetmill/internal/bench/rival"
	"github.com/assetmill/assetmill/internal/bench/standin"
	"github.com/assetmill/assetmill/schemas"
)

const (
	assetBucket = "bench-assets"
	workBucket  = "bench-work"
	dataset     = "assetmill"
	// stopLimit bounds a contender's stop when nothing is in flight any more, and a stand-in's.
	stopLimit = 30 * time.Second
	// startLimit bounds the start of a stand-in.
	startLimit = 30 * time.Second
	// turnLimit bounds a turn. It is several times what one takes on a machine that is busy with other work.
	turnLimit = 5 * time.Minute
	// burstMemory is the worker's memory limit (GOMEMLIMIT) in a burst: nine tenths of a container of 1 GiB.
	burstMemory = "GOMEMLIMIT=921MiB"
)

// turn is one contender's work on one case, with stand-ins of its own.
type turn struct {
	*bench
	benchCase
	who     contender
	project string // of its own, so that an emulator that outlives the turn mixes nothing up
	dir     string

	running                     []*process // stand-ins
	model, storage, rows, queue addresses
	picture                     standin.ModelStats
}

// sample is what a turn has measured.
type sample struct {
	CPUPerAsset float64 // milliseconds
	Rate        float64 // assets per second
	PeakMiB     float64
	StandInCPU  float64 // milliseconds of all stand-ins for an asset
	Idle        float64 // share of the machine's processors, from 0 to 1
	Failures    int
	Calls       int
	Redelivered int
}

// take runs the turn.
func (t *turn) take(ctx context.Context) (s sample, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, turnLimit, fmt.Errorf("%s has not come to its end within %s", t.who, turnLimit))
	defer cancel()
	defer func() {
		for _, p := range t.running {
			err = errors.Join(err, p.stop(stopLimit))
		}
	}()
	if err := t.openStandIns(ctx); err != nil {
		return sample{}, err
	}
	if !t.isFloor() {
		if err := t.publish(ctx); err != nil {
			return sample{}, err
		}
	}
	p, err := t.startContender()
	if err != nil {
		return sample{}, err
	}
	broken := t.watch(ctx, p, &s)
	err = t.count(context.WithoutCancel(ctx), &s) // before the stop, in which what was too late may still be done
	if stopped := p.stop(stopLimit); broken == nil {
		broken = stopped
	}
	if broken != nil { // that a contender breaks down is a result, too
		t.say("%s: %v", t.who, broken)
		s.Failures = max(s.Failures, 1)
	}
	return s, err
}

func (t *turn) isFloor() bool { return t.who == theFloor || t.who == decodedFloor }

// openStandIns starts what the contender talks to.
func (t *turn) openStandIns(ctx context.Context) (err error) {
	t.model, err = t.serve(ctx, role{Name: modelRole, Model: t.modelConfig()})
	if err != nil {
		return err
	}
	if err := t.stats(ctx, t.model, &t.picture); err != nil {
		return err
	}
	storage := standin.StorageConfig{Bucket: assetBucket}
	if !t.isFloor() {
		storage.CRC32C = t.picture.ImageCRC32C
	}
	if t.storage, err = t.serve(ctx, role{Name: storageRole, Storage: storage}); err != nil {
		return err
	}
	if t.isFloor() {
		return nil
	}
	if t.rows, err = t.serve(ctx, role{Name: rowsRole}); err != nil {
		return err
	}
	if t.queue.GRPC = t.Emulator; t.Emulator == "" {
		t.queue, err = t.serve(ctx, role{Name: queueRole})
	}
	return err
}

func (t *turn) modelConfig() standin.ModelConfig {
	cfg := standin.ModelConfig{ImageBytes: t.imageBytes, Latency: t.latency}
	if t.burst {
		cfg.Gate = t.inFlight
	}
	return cfg
}

// serve starts a stand-in and waits until it is ready.
func (t *turn) serve(ctx context.Context, r role) (a addresses, err error) {
	r.Cert, r.Key = t.cert, t.key
	// Garbage of the stand-ins is small, and collecting it less often leaves more of the machine to who is measured.
	p, err := t.startRole(r, "GOGC=400")
	if err != nil {
		return a, err
	}
	t.running = append(t.running, p)
	if err := p.out.SetReadDeadline(time.Now().Add(startLimit)); err != nil {
		return a, err
	}
	if err := json.NewDecoder(p.out).Decode(&a); err != nil {
		return a, fmt.Errorf("%s is not ready: %w%s", r.Name, err, p.lastWords())
	}
	return a, ctx.Err()
}

// startRole starts a process of this very program.
func (t *turn) startRole(r role, env ...string) (*process, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	env = append(append(os.Environ(), RoleVariable+"="+string(text)), env...)
	return start(r.Name, filepath.Join(t.dir, r.Name+".log"), env, true, t.self)
}

func (t *turn) startContender() (*process, error) {
	env := []string{
		"SSL_CERT_FILE=" + t.cert,
		"STORAGE_EMULATOR_HOST=" + t.storage.HTTPS,
		"PUBSUB_EMULATOR_HOST=" + t.queue.GRPC,
		"GOMAXPROCS=" + strconv.Itoa(t.cores),
	}
	switch t.who {
	case theFloor, decodedFloor:
		return t.startRole(role{Name: floorRole, Floor: rival.FloorConfig{
			ModelURL: t.model.HTTPS, StorageURL: t.storage.HTTPS, Bucket: assetBucket, Project: t.project,
			Jobs: t.jobs(), InFlight: t.inFlight, Decode: t.who == decodedFloor,
		}}, env...)
	case theNaive:
		return t.startRole(role{Name: naiveRole, Naive: rival.NaiveConfig{
			Project: t.project, Subscription: schemas.SubscriptionOnline, Bucket: assetBucket, Dataset: dataset, Table: "generations_raw",
			ModelURL: t.model.HTTPS, BigQueryURL: t.rows.HTTPS, InFlight: t.inFlight,
		}}, env...)
	}
	env = append(os.Environ(), append(env,
		"ASSETMILL_PROJECT="+t.project, "ASSETMILL_BUCKET="+assetBucket, "ASSETMILL_WORK_BUCKET="+workBucket, "ASSETMILL_DATASET="+dataset,
		"VERTEX_EMULATOR_HOST="+t.model.HTTPS, "BIGQUERY_EMULATOR_HOST="+t.rows.HTTPS, "BIGQUERY_STORAGE_EMULATOR_HOST="+t.rows.GRPC,
		"VERTEX_GRPC_EMULATOR_HOST="+t.rows.GRPC, // for batches and dedicated endpoints, of which there are none here
	)...)
	if t.burst {
		env = append(env, burstMemory)
	}
	argv := append([]string{
		t.worker, "worker", "--concurrency", strconv.Itoa(t.inFlight), "--streams", strconv.Itoa(t.streams()), "--log-level", "warn",
	}, t.WorkerArgs...)
	return start(string(theWorker), filepath.Join(t.dir, "worker.log"), env, false, argv...)
}

// streams is how many streams the worker pulls with: as many as in the cloud. The official emulator sends all messages on one, whatever the others
// could take.
func (t *turn) streams() int {
	if t.Emulator != "" {
		return 1
	}
	return 2
}

// progress is the stand-in that knows how many assets are done.
func (t *turn) progress() addresses {
	if t.isFloor() {
		return t.storage
	}
	return t.rows
}

// watch looks at the contender when the measuring begins, when it ends, and when all is done.
func (t *turn) watch(ctx context.Context, p *process, s *sample) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.over, func() { cancel(context.Cause(p.over)) })()
	begin := func() error { return reach(ctx, t.progress(), t.warm) }
	if t.burst {
		begin = func() error { return reach(ctx, t.model, 1) }
	}
	if err := begin(); err != nil {
		return err
	}
	first, err := t.look(p)
	if err != nil {
		return err
	}
	flood := first
	if t.burst { // the rate is that of the flood, from the moment at which it begins
		if err := reach(ctx, t.model, t.inFlight); err != nil {
			return err
		}
		if flood, err = t.look(p); err != nil {
			return err
		}
	}
	measured := t.jobs()
	if !t.burst {
		measured = t.measured
	}
	if err := reach(ctx, t.progress(), t.warm+measured); err != nil {
		return err
	}
	last, err := t.look(p)
	if err != nil {
		return err
	}
	s.CPUPerAsset = (last.cpu - first.cpu).Seconds() * 1000 / float64(measured)
	s.StandInCPU = (last.standIns - first.standIns).Seconds() * 1000 / float64(measured)
	s.Rate = float64(measured) / last.at.Sub(flood.at).Seconds()
	s.Idle = (last.idle - flood.idle).Seconds() / (last.machine - flood.machine).Seconds()
	if err := reach(ctx, t.progress(), t.jobs()); err != nil {
		return err
	}
	last, err = t.look(p)
	s.PeakMiB = float64(last.peak) / mib
	return err
}

// usage is what was used up to a moment.
type usage struct {
	at            time.Time
	cpu           time.Duration // of the contender
	peak          int64         // of the contender, in bytes
	standIns      time.Duration // CPU of all of them
	machine, idle time.Duration // of all processors
}

func (t *turn) look(p *process) (u usage, err error) {
	u.at = time.Now()
	if u.cpu, err = cpuTime(p.cmd.Process.Pid); err != nil {
		return u, err
	}
	if u.peak, err = peakMemory(p.cmd.Process.Pid); err != nil {
		return u, err
	}
	for _, s := range t.running {
		cpu, err := cpuTime(s.cmd.Process.Pid)
		if err != nil {
			return u, err
		}
		u.standIns += cpu
	}
	u.machine, u.idle, err = machineTime()
	return u, err
}

// count fills in what became of the jobs.
func (t *turn) count(ctx context.Context, s *sample) error {
	var model standin.ModelStats
	var storage standin.StorageStats
	var rows standin.RowsStats
	var queue standin.QueueStats
	if err := errors.Join(t.stats(ctx, t.model, &model), t.stats(ctx, t.storage, &storage)); err != nil {
		return err
	}
	s.Calls = model.Calls
	if t.isFloor() {
		s.Failures = t.jobs() - int(storage.Assets)
		return nil
	}
	if err := t.stats(ctx, t.rows, &rows); err != nil {
		return err
	}
	if t.queue.Control != "" {
		if err := t.stats(ctx, t.queue, &queue); err != nil {
			return err
		}
	}
	s.Failures = t.jobs() - rows.Succeeded + int(storage.Damaged)
	s.Redelivered = queue.Redelivered
	if rows.Reason != "" {
		t.say("a job ended as %s", rows.Reason)
	}
	return nil
}

// stats asks a stand-in for its counts.
func (t *turn) stats(ctx context.Context, a addresses, into any) error {
	resp, err := get(ctx, a.Control+"/stats")
	if err != nil {
		return fmt.Errorf("ask a stand-in: %w", err)
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// reach returns when a stand-in has counted to n.
func reach(ctx context.Context, a addresses, n int) error {
	resp, err := get(ctx, fmt.Sprintf("%s/reach?n=%d", a.Control, n))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, errors.Join(fmt.Errorf("%s: %s", url, resp.Status), resp.Body.Close())
	}
	return resp, nil
}
