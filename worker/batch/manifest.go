package batch

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// Names of a batch's files.
func dir(batch string) string        { return "batches/" + batch + "/" }
func inputName(batch string) string  { return dir(batch) + "input.jsonl" }
func jobsName(batch string) string   { return dir(batch) + "jobs.jsonl" }
func indexName(batch string) string  { return dir(batch) + "index" }
func stateName(batch string) string  { return dir(batch) + "state.json" }
func cancelName(batch string) string { return dir(batch) + "cancel.json" }
func outputDir(batch string) string  { return dir(batch) + "output/" }
func orphanDir(batch string) string  { return dir(batch) + "orphans/" }
func rangeDir(batch string) string   { return dir(batch) + "ranges/" }

func rangeName(batch string, n int) string { return fmt.Sprintf("%s%05d.json", rangeDir(batch), n) }
func placementName(batch string, n int) string {
	return fmt.Sprintf("%splaced/%05d.json", dir(batch), n)
}

// Manifest is what a batch is, from its sealing to its end. It never changes.
type Manifest struct {
	ID         string      `json:"id"`
	Gatherer   string      `json:"gatherer"` // the worker that gathered it
	Lane       worker.Lane `json:"lane"`
	Region     string      `json:"region"` // data region of its jobs
	Rows       int         `json:"rows"`
	InputBytes int64       `json:"input_bytes"`
	SealedAt   time.Time   `json:"sealed_at"`
}

// entry is one job of a batch: a line of the jobs file.
type entry struct {
	Row       int             `json:"row"`
	Job       json.RawMessage `json:"job"` // schemas.Job
	Ticket    int64           `json:"ticket"`
	Spent     json.RawMessage `json:"spent,omitempty"` // worker.Spent, when there is any
	MessageID string          `json:"message_id"`
	Published time.Time       `json:"published"`
	Received  time.Time       `json:"received"`
	Trace     string          `json:"trace,omitempty"`
}

// row is a job of a batch, with what is needed to conclude it.
type row struct {
	number int
	worker.Admitted
}

func encodeEntry(w io.Writer, number int, a *worker.Admitted) error {
	job, err := schemas.Marshal(a.Job.Message())
	if err != nil {
		return err
	}
	e := entry{Row: number, Job: job, Ticket: a.Ticket.Generation, MessageID: a.MessageID, Published: a.Published, Received: a.Received, Trace: a.Trace}
	if e.Spent, err = worker.EncodeSpent(a.Spent); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(e)
}

func decodeEntry(data []byte, c *jobs.Catalogue) (*row, error) {
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	m := &schemas.Job{}
	if err := schemas.Unmarshal(e.Job, m); err != nil {
		return nil, err
	}
	j, err := c.Parse(m)
	if err != nil {
		return nil, err
	}
	spent, err := worker.DecodeSpent(e.Spent)
	if err != nil {
		return nil, err
	}
	return &row{e.Row, worker.Admitted{
		Job: j, Ticket: worker.Ticket{JobID: j.ID, Digest: j.Digest(), Generation: e.Ticket}, Spent: spent,
		MessageID: e.MessageID, Published: e.Published, Received: e.Received, Trace: e.Trace,
	}}, nil
}

// The index has an item for each row, and one for the end: where its entry begins in the jobs file, and the hash of its request.
const indexItem = 8 + 32

// index is a batch's index: 44 bytes a row in memory.
type index struct {
	rows   int
	data   []byte  // rows+1 items
	byHash []int32 // the rows, by the hash of their request and then by number
}

func appendIndex(b []byte, offset int64, hash [32]byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(offset)), hash[:]...)
}

func parseIndex(data []byte, rows int) (*index, error) {
	if len(data) != (rows+1)*indexItem {
		return nil, fmt.Errorf("the index has %d bytes; %d rows need %d", len(data), rows, (rows+1)*indexItem)
	}
	x := &index{rows: rows, data: data, byHash: make([]int32, rows)}
	for i := range x.byHash {
		x.byHash[i] = int32(i)
	}
	slices.SortFunc(x.byHash, func(a, b int32) int {
		return cmp.Or(bytes.Compare(x.hash(int(a)), x.hash(int(b))), cmp.Compare(a, b))
	})
	return x, nil
}

// offset returns where a row's entry begins; that of the row behind the last is the end.
func (x *index) offset(row int) int64 { return int64(binary.BigEndian.Uint64(x.data[row*indexItem:])) }

func (x *index) hash(row int) []byte { return x.data[row*indexItem+8 : (row+1)*indexItem] }

// equals returns the rows whose requests have a hash, in order. The caller must not change them.
func (x *index) equals(hash [32]byte) []int32 {
	from, found := slices.BinarySearchFunc(x.byHash, hash, func(row int32, hash [32]byte) int { return bytes.Compare(x.hash(int(row)), hash[:]) })
	if !found {
		return nil
	}
	count, _ := slices.BinarySearchFunc(x.byHash[from:], hash, func(row int32, hash [32]byte) int {
		return cmp.Or(bytes.Compare(x.hash(int(row)), hash[:]), -1) // the place behind the last
	})
	return x.byHash[from : from+count]
}

// has reports whether there is a row of that number, and its request has the hash.
func (x *index) has(row int32, hash [32]byte) bool {
	return row >= 0 && int(row) < x.rows && bytes.Equal(x.hash(int(row)), hash[:])
}

func readIndex(ctx context.Context, files Files, m *Manifest) (*index, error) {
	r, err := files.Open(ctx, indexName(m.ID), 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, int64(m.Rows+1)*indexItem+1))
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return parseIndex(data, m.Rows)
}

// entryOf reads one row's job.
func entryOf(ctx context.Context, files Files, m *Manifest, x *index, number int, c *jobs.Catalogue) (*row, error) {
	from, to := x.offset(number), x.offset(number+1)
	r, err := files.Open(ctx, jobsName(m.ID), from, to-from)
	if err != nil {
		return nil, fmt.Errorf("read row %d: %w", number, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, to-from))
	if err != nil {
		return nil, fmt.Errorf("read row %d: %w", number, err)
	}
	found, err := decodeEntry(data, c)
	if err != nil {
		return nil, fmt.Errorf("row %d: %w", number, err)
	}
	if found.number != number {
		return nil, fmt.Errorf("row %d: the index leads to row %d", number, found.number)
	}
	return found, nil
}

// entries calls each for all rows, in their order.
func entries(ctx context.Context, files Files, m *Manifest, c *jobs.Catalogue, each func(*row) error) error {
	r, err := files.Open(ctx, jobsName(m.ID), 0, -1)
	if err != nil {
		return fmt.Errorf("read the jobs: %w", err)
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	for n := range m.Rows {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read the jobs: row %d: %w", n, err)
		}
		found, err := decodeEntry(bytes.TrimSpace(line), c)
		if err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		if err := each(found); err != nil {
			return err
		}
	}
	return nil
}
