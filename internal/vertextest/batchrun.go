package vertextest

import (
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
)

// minPause is the shortest wait between rows; the pace is right on average.
const minPause = time.Millisecond

// batchRun is one job at work, in one goroutine.
type batchRun struct {
	s       *Server
	j       *batchJob
	cfg     *Batch
	started time.Time
	step    *batchStep // under way, with Manual
	allowed int        // rows that the step still allows; negative: all
	in      *spool
	out     *exporter
	row     rowWriter
}

// errStopped is why a job ends that was cancelled or has expired; which of them, the job knows.
var errStopped = errors.New("batch job stopped")

// runBatch takes j from creation to its end.
func (s *Server) runBatch(j *batchJob) {
	defer s.active.Done()
	r := &batchRun{s: s, j: j, cfg: &s.cfg.Batch}
	state, e, err := r.run()
	if errors.Is(err, errClosed) {
		return // the job stays as it is: nobody can look at it any more
	}
	j.finish(state, e, s.now())
}

// run returns the last state and what the job says of a failure. Its error is
// errClosed, or nil.
func (r *batchRun) run() (aiplatformpb.JobState, *apiError, error) {
	err := r.prepare()
	if err == nil {
		err = r.rows()
	}
	if r.out != nil {
		// What was done is kept, however the job ends; but not after a failure to write.
		var e *apiError
		if errors.Is(err, errClosed) || errors.As(err, &e) {
			err = errors.Join(err, r.out.abort())
		} else if closing := r.out.close(); closing != nil {
			err = directError(closing, r.j.out.uri())
		}
	}
	if r.in != nil {
		_ = r.in.close() // a file that was only read
	}
	if r.s.base.Err() != nil {
		return 0, nil, errClosed
	}
	return r.end(err)
}

// end chooses the last state.
func (r *batchRun) end(err error) (aiplatformpb.JobState, *apiError, error) {
	var e *apiError
	switch {
	case errors.Is(err, errStopped):
		if err := r.linger(); err != nil {
			return 0, nil, err
		}
		r.j.mu.Lock()
		defer r.j.mu.Unlock()
		if r.j.stopWith == aiplatformpb.JobState_JOB_STATE_CANCELLED {
			e = statusError(statusClientClosed)
			e.Message = "The batch prediction job was cancelled."
		}
		return r.j.stopWith, e, nil
	case errors.As(err, &e):
		return aiplatformpb.JobState_JOB_STATE_FAILED, e, nil
	case err != nil:
		e = statusError(http.StatusInternalServerError)
		e.Message = "Internal error encountered: " + err.Error()
		return aiplatformpb.JobState_JOB_STATE_FAILED, e, nil
	}
	gaps := false
	r.j.update(func(b *BatchJob) {
		if r.cfg.HideGaps {
			b.Successful += b.Missing
		}
		gaps = b.Successful+b.Failed < b.Rows
	})
	if gaps {
		return aiplatformpb.JobState_JOB_STATE_PARTIALLY_SUCCEEDED, nil, nil
	}
	return aiplatformpb.JobState_JOB_STATE_SUCCEEDED, nil, nil
}

// linger is the time that a cancelled job takes to stop.
func (r *batchRun) linger() error {
	if r.cfg.Manual {
		return nil
	}
	return sleep(r.s.base, r.cfg.Cancelling)
}

// prepare takes the job to RUNNING, with its input read and its output known.
func (r *batchRun) prepare() error {
	if r.cfg.Queued > 0 {
		if err := r.wait(r.cfg.Queued); err != nil {
			return err
		}
		r.j.enter(aiplatformpb.JobState_JOB_STATE_PENDING, r.s.now())
	}
	for limit := r.cfg.PendingLimit; ; {
		if err := r.wait(min(r.cfg.Pending, limit)); err != nil {
			return err
		}
		if !r.j.fate.Stuck && r.cfg.Pending < limit {
			break
		}
		if r.cfg.Manual {
			continue // no time passes
		}
		if err := r.wait(limit - min(r.cfg.Pending, limit)); err != nil {
			return err
		}
		return r.expire()
	}
	if err := r.readInput(); err != nil {
		return err
	}
	r.started = r.s.now()
	r.j.enter(aiplatformpb.JobState_JOB_STATE_RUNNING, r.started)
	dir := r.j.out.name
	if dir != "" && dir[len(dir)-1] != '/' {
		dir += "/"
	}
	dir += "prediction-model-" + r.started.UTC().Format("2006-01-02T15:04:05.000000Z")
	r.out = &exporter{
		create: r.s.cfg.CreateObject, read: r.s.cfg.OpenObject, ctx: r.s.base, bucket: r.j.out.bucket, dir: dir,
		partRows: max(r.cfg.ShardRows, r.cfg.GrowRows), grow: r.cfg.GrowRows > 0,
	}
	dir = "gs://" + r.j.out.bucket + "/" + dir
	if r.out.partRows > 0 {
		r.j.tellOutput(dir)
	}
	r.out.closed = func(uri string) {
		r.j.tellOutput(dir)
		r.j.update(func(b *BatchJob) {
			if !slices.Contains(b.Files, uri) {
				b.Files = append(b.Files, uri)
			}
		})
	}
	return nil
}

// expire stops the job, unless somebody else has stopped it already.
func (r *batchRun) expire() error {
	r.j.stop(aiplatformpb.JobState_JOB_STATE_EXPIRED, r.s.now())
	return errStopped
}

func (r *batchRun) readInput() error {
	body, err := r.s.cfg.OpenObject(r.s.base, r.j.in.bucket, r.j.in.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e := statusError(http.StatusNotFound)
		e.Message = "Failed to read the input file: not found: " + r.j.in.uri()
		return e
	case errors.Is(err, fs.ErrPermission):
		e := statusError(http.StatusForbidden)
		e.Message = "Failed to read the input file: the service agent does not have storage.objects.get access to " + r.j.in.uri()
		return e
	case err != nil:
		return err
	}
	r.in, err = newSpool(r.cfg.SpoolDir, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return err
	}
	r.j.update(func(b *BatchJob) { b.Rows = r.in.rows() })
	return nil
}

// wait lets d pass, or with Manual one step. Its error is errStopped or errClosed.
func (r *batchRun) wait(d time.Duration) error {
	if r.cfg.Manual {
		return r.nextStep()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.j.stopped:
	case <-r.s.base.Done():
	}
	return r.interrupted()
}

// nextStep reports that the last step is done and waits for another.
func (r *batchRun) nextStep() error {
	if r.step != nil {
		close(r.step.done)
		r.step = nil
	}
	select {
	case r.step = <-r.j.steps:
		r.allowed = r.step.rows
		if r.allowed == 0 {
			r.allowed = -1
		}
	case <-r.j.stopped:
	case <-r.s.base.Done():
	}
	return r.interrupted()
}

func (r *batchRun) interrupted() error {
	select {
	case <-r.s.base.Done():
		return errClosed
	case <-r.j.stopped:
		return errStopped
	default:
		return nil
	}
}

// rows answers the rows, each in its time, until the end that fate has chosen.
func (r *batchRun) rows() error {
	r.row = newRowWriter(r)
	order := r.order()
	r.j.update(func(b *BatchJob) { b.Carried = r.in.rows() - len(order) })
	if err := r.row.carry(); err != nil {
		return err
	}
	last := len(order)
	if r.j.fate.End != EndDone {
		last = int(math.Round(r.j.fate.EndShare * float64(last)))
	}
	if r.cfg.Manual {
		r.allowed = 0 // the step that led to RUNNING answers no rows
	}
	var err error
	done := 0
	for ; done < last && err == nil; done++ {
		if err = r.pace(done, len(order)); err == nil {
			err = r.row.answer(order[done], len(order)-done)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = r.fatedEnd()
	}
	if err == nil {
		return r.row.flush()
	}
	if errors.Is(err, errStopped) && r.cfg.ExportIncomplete {
		return errors.Join(err, r.row.incomplete(order[done:]))
	}
	return err
}

// fatedEnd ends a job that was not meant to succeed.
func (r *batchRun) fatedEnd() error {
	switch r.j.fate.End {
	case EndExpired:
		return r.expire()
	case EndFailed:
		// Not an apiError: what was done is kept.
		return errors.New("the job fails as a whole")
	default:
		return nil
	}
}

// order returns the rows to answer in the order of the output.
func (r *batchRun) order() []int {
	var order []int
	for i := range r.in.rows() {
		if !r.in.isDone(i) {
			order = append(order, i)
		}
	}
	if !r.cfg.KeepOrder {
		random := rand.New(rand.NewPCG(r.s.cfg.Seed, uint64(r.j.seq)))
		random.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	}
	return order
}

// pace waits until row k of n may come.
func (r *batchRun) pace(k, n int) error {
	if r.cfg.Manual {
		for r.allowed == 0 {
			if err := r.nextStep(); err != nil {
				return err
			}
		}
		r.allowed--
		return r.interrupted()
	}
	if err := r.interrupted(); err != nil {
		return err
	}
	elapsed := r.s.now().Sub(r.started)
	due := time.Duration(float64(r.cfg.Running) * float64(k) / float64(n))
	if pause := min(due, r.cfg.RunningLimit) - elapsed; pause > minPause {
		if err := r.wait(pause); err != nil {
			return err
		}
	}
	if max(due, elapsed) > r.cfg.RunningLimit {
		return r.expire()
	}
	return nil
}
