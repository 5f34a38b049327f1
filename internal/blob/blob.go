// Package blob holds image bytes between the model and the storage: in pooled blocks of one size, counted against a
// budget, with their CRC32C computed as they arrive.
//
// A Blob is written once, then read any number of times, so that a failed upload never needs a second paid call. Its owner
// must call [Blob.Release] exactly when nobody reads it any more; the blocks then go back to the pool and the bytes back to
// the budget. A Blob is not safe for concurrent use while it is written.
package blob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// blockSize is the unit of pooling. The budget counts bytes, not blocks: the last block of a blob is half empty on average, which is a fiftieth of
// an image of 1.5 MiB and a third of one of 100 KB. Smaller blocks cost more calls on the way to the socket.
const blockSize = 64 << 10

// ErrTooLarge says that an image is larger than the limit it was reserved with.
var ErrTooLarge = errors.New("image is larger than the limit")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Budget bounds the bytes of all blobs that exist at a time. It is safe for concurrent use.
type Budget struct {
	sem      *semaphore.Weighted
	capacity int64
	reserved atomic.Int64
	waiting  atomic.Int64
	pool     *sync.Pool
	whole    *Budget // that this one is a part of; nil: of none
}

// NewBudget returns a budget of capacity bytes.
func NewBudget(capacity int64) *Budget {
	return &Budget{
		sem:      semaphore.NewWeighted(capacity),
		capacity: capacity,
		pool:     &sync.Pool{New: func() any { return new([blockSize]byte) }},
	}
}

// Part returns a budget of at most capacity bytes of b: what is reserved of it counts in both. It keeps one kind of work from taking all that
// others need too.
func (b *Budget) Part(capacity int64) *Budget {
	capacity = min(capacity, b.capacity)
	return &Budget{sem: semaphore.NewWeighted(capacity), capacity: capacity, pool: b.pool, whole: b}
}

// Reserve waits until want bytes are free and returns an empty blob that may grow to limit bytes. A want over the whole
// capacity is cut to it, so that one large image can always pass, alone. The error is ctx's.
func (b *Budget) Reserve(ctx context.Context, want, limit int64) (*Blob, error) {
	want = min(want, b.capacity)
	if err := b.acquire(ctx, want); err != nil {
		return nil, fmt.Errorf("wait for the byte budget: %w", context.Cause(ctx))
	}
	return &Blob{budget: b, reserved: want, limit: limit}, nil
}

// acquire takes bytes, of a part first: whoever has its turn there waits for the whole like everybody else.
func (b *Budget) acquire(ctx context.Context, n int64) error {
	b.waiting.Add(1)
	err := b.sem.Acquire(ctx, n)
	b.waiting.Add(-1)
	if err != nil {
		return err
	}
	if b.whole != nil {
		if err := b.whole.acquire(ctx, n); err != nil {
			b.sem.Release(n)
			return err
		}
	}
	b.reserved.Add(n)
	return nil
}

// Usage is how much of a budget is in use at one moment.
type Usage struct {
	Reserved int64 // bytes that blobs hold or may still grow to
	Capacity int64 // bytes
	Waiting  int   // calls of Reserve that wait for bytes
}

// Usage returns what is in use now.
func (b *Budget) Usage() Usage {
	return Usage{Reserved: b.reserved.Load(), Capacity: b.capacity, Waiting: int(b.waiting.Load())}
}

// release gives bytes back.
func (b *Budget) release(n int64) {
	b.reserved.Add(-n)
	b.sem.Release(n)
	if b.whole != nil {
		b.whole.release(n)
	}
}

// Blob is the bytes of one image.
type Blob struct {
	budget   *Budget
	reserved int64
	limit    int64
	blocks   []*[blockSize]byte
	size     int64
	crc      uint32
}

// Write appends p. It fails with [ErrTooLarge] when the blob would pass its limit. A blob that outgrows its reservation goes on
// growing: its bytes are already on their way, and waiting here, among others that wait likewise, could be for ever. The
// reservation is sized so that this is rare.
func (b *Blob) Write(p []byte) (int, error) {
	if b.size+int64(len(p)) > b.limit {
		return 0, fmt.Errorf("%w of %d bytes", ErrTooLarge, b.limit)
	}
	b.crc = crc32.Update(b.crc, castagnoli, p)
	written := len(p)
	for len(p) > 0 {
		n := copy(b.free(), p)
		b.size += int64(n)
		p = p[n:]
	}
	return written, nil
}

// free returns the unused end of the last block, taking a new one when it is full.
func (b *Blob) free() []byte {
	used := int(b.size % blockSize)
	if used == 0 && int64(len(b.blocks))*blockSize == b.size {
		b.blocks = append(b.blocks, b.budget.pool.Get().(*[blockSize]byte))
	}
	return b.blocks[len(b.blocks)-1][used:]
}

// Reset empties the blob, keeping its reservation, for bytes that turn out not to be the image.
func (b *Blob) Reset() {
	b.freeBlocks()
	b.blocks, b.size, b.crc = nil, 0, 0
}

func (b *Blob) freeBlocks() {
	for _, block := range b.blocks {
		b.budget.pool.Put(block)
	}
}

// Settle gives back what was reserved beyond the bytes written. Call it once the image is complete.
func (b *Blob) Settle() {
	if surplus := b.reserved - b.size; surplus > 0 {
		b.budget.release(surplus)
		b.reserved = b.size
	}
}

// Len returns the number of bytes written.
func (b *Blob) Len() int64 { return b.size }

// CRC32C returns the Castagnoli checksum of the bytes written.
func (b *Blob) CRC32C() uint32 { return b.crc }

// NewReader returns a reader from the start. Each reader is independent of the others.
func (b *Blob) NewReader() io.Reader { return &reader{blob: b} }

// Release ends the blob's life. Later calls do nothing; readers made before must not be used after.
func (b *Blob) Release() {
	if b == nil || b.budget == nil {
		return
	}
	b.freeBlocks()
	b.budget.release(b.reserved)
	*b = Blob{}
}

// reader reads a blob from the start.
type reader struct {
	blob *Blob
	at   int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.blob.size {
		return 0, io.EOF
	}
	n := copy(p, r.next())
	r.at += int64(n)
	return n, nil
}

// next returns what is left of the block at the reader's position.
func (r *reader) next() []byte {
	start := r.at % blockSize
	end := min(blockSize, start+r.blob.size-r.at)
	return r.blob.blocks[r.at/blockSize][start:end]
}

// WriteTo writes the rest to w without a buffer between.
func (r *reader) WriteTo(w io.Writer) (n int64, err error) {
	for r.at < r.blob.size {
		m, err := w.Write(r.next())
		n += int64(m)
		r.at += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
