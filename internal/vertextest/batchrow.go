package vertextest

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
)

// rowWriter answers rows and exports them.
type rowWriter struct {
	*batchRun
	buf    []byte // of one input line
	copies copyHeap
	random *rand.Rand
	turn   int // rows answered so far
}

func newRowWriter(r *batchRun) rowWriter {
	return rowWriter{batchRun: r, random: rand.New(rand.NewPCG(r.s.cfg.Seed+1, uint64(r.j.seq)))}
}

// carry exports the rows that an earlier job had done, as they are.
func (w *rowWriter) carry() error {
	for i := range w.in.rows() {
		if !w.in.isDone(i) {
			continue
		}
		if err := w.interrupted(); err != nil {
			return err
		}
		line, err := w.in.line(i, w.buf)
		if err != nil {
			return err
		}
		w.buf = line
		if err := w.export(func(out io.Writer) error { _, err := out.Write(line); return err }); err != nil {
			return err
		}
		w.j.update(func(b *BatchJob) { b.Successful++ })
	}
	return nil
}

// answer answers row i, of so many that are left, and what is due besides.
func (w *rowWriter) answer(i, left int) error {
	fate, err := w.one(i, false)
	if err != nil {
		return err
	}
	w.turn++
	for range fate.Copies {
		heap.Push(&w.copies, rowCopy{due: w.turn + w.random.IntN(left), row: i})
	}
	if fate.Orphan {
		if err := w.orphan(i); err != nil {
			return err
		}
	}
	for len(w.copies) > 0 && w.copies[0].due <= w.turn {
		if err := w.copy(); err != nil {
			return err
		}
	}
	return nil
}

// flush exports the copies that are still due when all rows are answered.
func (w *rowWriter) flush() error {
	for len(w.copies) > 0 {
		if err := w.copy(); err != nil {
			return err
		}
	}
	return nil
}

func (w *rowWriter) copy() error {
	c := heap.Pop(&w.copies).(rowCopy)
	_, err := w.one(c.row, true)
	return err
}

// one answers row i once.
func (w *rowWriter) one(i int, again bool) (RowFate, error) {
	line, err := w.in.line(i, w.buf)
	if err != nil {
		return RowFate{}, err
	}
	w.buf = line
	var row struct {
		Request json.RawMessage `json:"request"`
	}
	if err := json.Unmarshal(line, &row); err != nil {
		return RowFate{}, fmt.Errorf("row %d: %w", i, err)
	}
	c, e := w.s.newBatchCall(w.s.base, w.j, row.Request)
	if e != nil {
		return RowFate{}, w.fail(row.Request, RowFate{}, e, again)
	}
	fate := w.s.decideRow(c)
	switch {
	case fate.Missing:
		w.j.update(func(b *BatchJob) {
			if !again {
				b.Missing++
			}
		})
		return fate, nil
	case fate.FailStatus != 0:
		return fate, w.fail(row.Request, fate, statusError(fate.FailStatus), again)
	}
	return fate, w.succeed(row.Request, c, fate, again)
}

// fail exports a row without an answer.
func (w *rowWriter) fail(request []byte, f RowFate, e *apiError, again bool) error {
	text, err := json.Marshal(map[string]any{"error": map[string]any{"code": e.Code, "message": e.Message, "status": e.Status}})
	if err != nil {
		return err
	}
	row, err := newOutRow(request, f, http.StatusText(e.Code)+": "+string(text), w.s.now(), nil)
	if err != nil {
		return err
	}
	if err := w.export(row.write); err != nil {
		return err
	}
	w.j.update(func(b *BatchJob) {
		if again {
			b.Duplicates++
		} else {
			b.Failed++
		}
	})
	if !again {
		w.j.addFailure(e)
	}
	return nil
}

// succeed asks the model, bills and exports.
func (w *rowWriter) succeed(request []byte, c *Call, f RowFate, again bool) error {
	a, err := w.bill(c, f)
	if err != nil {
		return err
	}
	if !f.Lost {
		row, err := newOutRow(request, f, "", w.s.now(), a)
		if err != nil {
			return err
		}
		if err := w.export(row.write); err != nil {
			return err
		}
	}
	w.j.update(func(b *BatchJob) {
		if !again {
			b.Successful++
		} else if !f.Lost {
			b.Duplicates++
		}
		if f.Lost {
			b.Lost++
		}
		if f.Damage != DamageNone && !f.Lost {
			b.Damaged++
		}
	})
	return nil
}

// bill makes the answer and writes its line of the call log.
func (w *rowWriter) bill(c *Call, f RowFate) (*answer, error) {
	a, err := w.s.answer(w.s.base, c, f.Fate)
	if err != nil {
		return nil, err
	}
	w.s.record(c, &reply{answer: a, at: w.s.now(), batch: w.j.info.Name}, !f.Lost && f.Damage == DamageNone)
	if a.image() != nil {
		w.j.update(func(b *BatchJob) { b.Billed++ })
	}
	return a, nil
}

// orphan exports a row with a request that nobody sent.
func (w *rowWriter) orphan(i int) error {
	request, err := json.Marshal(map[string]any{"contents": []any{map[string]any{
		"role": "user", "parts": []any{map[string]any{"text": fmt.Sprintf("Nobody asked for this, number %d of job %s", i, w.j.id())}},
	}}})
	if err != nil {
		return err
	}
	c, e := w.s.newBatchCall(w.s.base, w.j, request)
	if e != nil {
		return e
	}
	f := RowFate{Fate: Fate{Bytes: w.s.cfg.ImageBytes}}
	a, err := w.bill(c, f)
	if err != nil {
		return err
	}
	row, err := newOutRow(request, f, "", w.s.now(), a)
	if err != nil {
		return err
	}
	w.j.update(func(b *BatchJob) { b.Orphans++ })
	return w.export(row.write)
}

// incomplete exports rows that the job did not get to.
func (w *rowWriter) incomplete(rows []int) error {
	for _, i := range rows {
		line, err := w.in.line(i, w.buf)
		if err != nil {
			return err
		}
		w.buf = line
		var row struct {
			Request json.RawMessage `json:"request"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
		out, err := newOutRow(row.Request, RowFate{}, "The job ended before this request was processed.", w.s.now(), nil)
		if err != nil {
			return err
		}
		if err := w.export(out.write); err != nil {
			return err
		}
	}
	return nil
}

// export writes one line of the output. Its error is an *apiError: a job that
// cannot write fails.
func (w *rowWriter) export(write func(io.Writer) error) error {
	if err := w.out.row(write); err != nil {
		if w.s.base.Err() != nil {
			return errClosed
		}
		var e *apiError
		if errors.As(directError(err, w.j.out.uri()), &e) && e.Code == http.StatusInternalServerError {
			e.Message = "Failed to write the output: " + err.Error()
		}
		return e
	}
	w.j.update(func(b *BatchJob) { b.Exported++ })
	return nil
}

// rowCopy is a further answer to a row, due after so many rows.
type rowCopy struct{ due, row int }

// copyHeap implements heap.Interface, the next due first.
type copyHeap []rowCopy

func (h copyHeap) Len() int           { return len(h) }
func (h copyHeap) Less(a, b int) bool { return h[a].due < h[b].due }
func (h copyHeap) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }

// Push implements heap.Interface.
func (h *copyHeap) Push(x any) { *h = append(*h, x.(rowCopy)) }

// Pop implements heap.Interface.
func (h *copyHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
