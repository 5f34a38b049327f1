package blob

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func randomBytes(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(p)
	return p
}

// free reports whether n bytes of the budget are free at this moment.
func free(b *Budget, n int64) bool {
	if !b.sem.TryAcquire(n) {
		return false
	}
	b.sem.Release(n)
	return true
}

func reserve(t *testing.T, b *Budget, want, limit int64) *Blob {
	t.Helper()
	bl, err := b.Reserve(t.Context(), want, limit)
	if err != nil {
		t.Fatal(err)
	}
	return bl
}

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, blockSize - 1, blockSize, blockSize + 1, 3*blockSize + 7} {
		for _, step := range []int{1 << 20, blockSize, 4093} {
			data := randomBytes(size)
			b := reserve(t, NewBudget(4<<20), int64(size), int64(size))
			for rest := data; len(rest) > 0; {
				n, err := b.Write(rest[:min(step, len(rest))])
				if err != nil || n != min(step, len(rest)) {
					t.Fatalf("wrote %d: %v", n, err)
				}
				rest = rest[n:]
			}
			if b.Len() != int64(size) {
				t.Errorf("Len is %d, want %d", b.Len(), size)
			}
			if want := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)); b.CRC32C() != want {
				t.Errorf("%d bytes: CRC32C is %08x, want %08x", size, b.CRC32C(), want)
			}
			if err := iotest.TestReader(b.NewReader(), data); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			var out bytes.Buffer
			if n, err := b.NewReader().(io.WriterTo).WriteTo(&out); n != int64(size) || err != nil || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("%d bytes: WriteTo wrote %d, %v", size, n, err)
			}
			b.Release()
		}
	}
}

func TestReadersAreIndependent(t *testing.T) {
	t.Parallel()
	data := randomBytes(2 * blockSize)
	b := reserve(t, NewBudget(1<<20), int64(len(data)), int64(len(data)))
	defer b.Release()
	if _, err := b.Write(data); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got, err := io.ReadAll(b.NewReader()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
}

// fails is a writer that takes some blocks and then fails.
type fails struct{ blocks int }

var errFull = errors.New("full")

func (f *fails) Write(p []byte) (int, error) {
	if f.blocks == 0 {
		return 0, errFull
	}
	f.blocks--
	return len(p), nil
}

func TestWriteToStopsAtAnError(t *testing.T) {
	t.Parallel()
	b := reserve(t, NewBudget(1<<20), 10, 1<<20)
	defer b.Release()
	if _, err := b.Write(randomBytes(3 * blockSize)); err != nil {
		t.Fatal(err)
	}
	if n, err := b.NewReader().(io.WriterTo).WriteTo(&fails{blocks: 2}); n != 2*blockSize || !errors.Is(err, errFull) {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	b := reserve(t, NewBudget(1<<20), 10, 10)
	defer b.Release()
	if _, err := b.Write(make([]byte, 10)); err != nil {
		t.Errorf("a blob of the limit: %v", err)
	}
	if n, err := b.Write([]byte{1}); n != 0 || !errors.Is(err, ErrTooLarge) || b.Len() != 10 {
		t.Errorf("a byte over: wrote %d, %v; length %d", n, err, b.Len())
	}
}

func TestBudgetIsReturned(t *testing.T) {
	t.Parallel()
	const capacity = 1 << 20
	budget := NewBudget(capacity)
	steps := map[string]func(b *Blob) error{
		"nothing written":    func(*Blob) error { return nil },
		"less than reserved": func(b *Blob) error { _, err := b.Write(make([]byte, 10)); return err },
		"settled":            func(b *Blob) error { _, err := b.Write(make([]byte, 10)); b.Settle(); b.Settle(); return err },
		"more than reserved": func(b *Blob) error { _, err := b.Write(make([]byte, capacity/2)); b.Settle(); return err },
		"reset":              func(b *Blob) error { _, err := b.Write(make([]byte, capacity/2)); b.Reset(); return err },
		"settled, reset, regrown": func(b *Blob) error {
			b.Settle()
			b.Reset()
			_, err := b.Write(make([]byte, 10))
			b.Settle()
			return err
		},
		"released twice": func(b *Blob) error { b.Release(); return nil },
	}
	for name, step := range steps {
		b := reserve(t, budget, capacity/4, capacity)
		if err := step(b); err != nil {
			t.Fatal(err)
		}
		b.Release()
		if !free(budget, capacity) {
			t.Errorf("%s: bytes are missing from the budget", name)
		}
	}
	(*Blob)(nil).Release()
}

func TestSettleGivesBackTheSurplus(t *testing.T) {
	t.Parallel()
	budget := NewBudget(100)
	b := reserve(t, budget, 80, 100)
	if _, err := b.Write(make([]byte, 30)); err != nil {
		t.Fatal(err)
	}
	if free(budget, 21) {
		t.Error("more is free than was left by the reservation")
	}
	b.Settle()
	if !free(budget, 70) || free(budget, 71) {
		t.Error("not 70 bytes are free")
	}
	b.Release()
}

func TestReset(t *testing.T) {
	t.Parallel()
	b := reserve(t, NewBudget(1<<20), 10, 1<<20)
	defer b.Release()
	for _, text := range []string{"a thought", "the image"} {
		b.Reset()
		if _, err := b.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b.NewReader())
		if err != nil || string(got) != text || b.Len() != int64(len(text)) || b.CRC32C() != crc32.Checksum(got, castagnoli) {
			t.Errorf("got %q, %v, length %d", got, err, b.Len())
		}
	}
}

func TestReserveWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(100)
		first := reserve(t, budget, 60, 100)
		start := time.Now()
		time.AfterFunc(time.Minute, first.Release)
		second := reserve(t, budget, 60, 100)
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("waited %v", waited)
		}
		why := errors.New("no time")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := budget.Reserve(ctx, 60, 100); !errors.Is(err, why) {
			t.Errorf("error %v, want %v", err, why)
		}
		second.Release()
	})
}

func TestReserveMoreThanThereIs(t *testing.T) {
	t.Parallel()
	budget := NewBudget(100)
	b := reserve(t, budget, 1000, 1000)
	if free(budget, 1) {
		t.Error("a large image does not pass alone")
	}
	b.Release()
	if !free(budget, 100) {
		t.Error("bytes are missing from the budget")
	}
}

func TestUsageTellsWhatIsReservedAndWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000)
		first := reserve(t, b, 700, 2000)
		second := make(chan *Blob)
		go func() { second <- reserve(t, b, 5000, 5000) }()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { _, err := b.Reserve(ctx, 900, 900); gone <- err }()
		synctest.Wait()
		if got := b.Usage(); got != (Usage{Reserved: 700, Capacity: 1000, Waiting: 2}) {
			t.Errorf("one blob and two that wait: %+v", got)
		}
		cancel()
		<-gone
		if _, err := first.Write(randomBytes(300)); err != nil {
			t.Fatal(err)
		}
		first.Settle()
		if got := b.Usage(); got != (Usage{Reserved: 300, Capacity: 1000, Waiting: 1}) {
			t.Errorf("after settling, with one that left: %+v", got)
		}
		first.Release()
		(<-second).Release()
		if got := b.Usage(); got != (Usage{Capacity: 1000}) {
			t.Errorf("at the end: %+v", got)
		}
	})
}

func TestPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		whole := NewBudget(100)
		part, all := whole.Part(40), whole.Part(1000)
		first := reserve(t, part, 30, 100)
		if free(part, 11) || !free(part, 10) || free(whole, 71) || !free(whole, 70) {
			t.Error("30 bytes of the part are not 30 of both")
		}
		// The part is full though the whole is not.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if b, err := part.Reserve(ctx, 20, 100); err == nil {
			t.Error("the part has given more than it has")
			b.Release()
		}
		// The whole is full though the part is not; who gives up leaves nothing behind.
		other := reserve(t, all, 70, 70)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if b, err := part.Reserve(ctx, 5, 100); err == nil {
			t.Error("the part has given more than the whole has")
			b.Release()
		}
		if got := part.Usage(); got != (Usage{Reserved: 30, Capacity: 40}) {
			t.Errorf("the part: %+v", got)
		}
		other.Release()
		if _, err := first.Write(randomBytes(10)); err != nil {
			t.Fatal(err)
		}
		first.Settle()
		if !free(part, 30) || free(part, 31) || !free(whole, 90) || free(whole, 91) {
			t.Error("what was not needed is not free in both")
		}
		first.Release()
		if !free(part, 40) || !free(whole, 100) || whole.Usage() != (Usage{Capacity: 100}) {
			t.Errorf("at the end: %+v, %+v", part.Usage(), whole.Usage())
		}
	})
}
