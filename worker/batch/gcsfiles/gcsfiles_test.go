package gcsfiles_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/gcsfiles"
)

const bucket = "work"

func open(t *testing.T, spoil func(*http.Response) error) *gcsfiles.Files {
	t.Helper()
	return gcsfiles.New(gcstest.Open(t, bucket, spoil), gcsfiles.Config{Bucket: bucket})
}

func put(t *testing.T, f *gcsfiles.Files, name string, data []byte) {
	t.Helper()
	if err := f.Write(t.Context(), name, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, f *gcsfiles.Files, name string, offset, length int64) []byte {
	t.Helper()
	r, err := f.Open(t.Context(), name, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// content is bytes that no two places have alike.
func content(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(data)
	return data
}

func TestWriteAndOpen(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 8 << 20, 17<<20 + 5} {
		data := content(size)
		err := f.Write(t.Context(), "batches/b/x", func(w io.Writer) error {
			for rest := data; len(rest) > 0; {
				n, err := w.Write(rest[:min(100_000, len(rest))])
				if err != nil {
					return err
				}
				rest = rest[n:]
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := get(t, f, "batches/b/x", 0, -1); !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d other bytes are stored", size, len(got))
		}
	}
	data := content(100)
	put(t, f, "batches/b/y", data)
	for _, r := range [][4]int64{{0, 10, 0, 10}, {90, 10, 90, 100}, {90, 100, 90, 100}, {40, -1, 40, 100}, {40, 0, 40, 40}, {100, -1, 100, 100}, {100, 5, 100, 100}, {200, -1, 100, 100}} {
		if got := get(t, f, "batches/b/y", r[0], r[1]); !bytes.Equal(got, data[r[2]:r[3]]) {
			t.Errorf("%d bytes from %d on: got %d, want %d", r[1], r[0], len(got), r[3]-r[2])
		}
	}
	if _, err := f.Open(t.Context(), "batches/b/none", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

// What was there before stays, and no part of what failed is stored.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	boom := errors.New("boom")
	put(t, f, "batches/b/old", []byte("old"))
	for _, size := range []int{0, 100, 256<<10 + 1, 9 << 20, 16 << 20} {
		for _, name := range []string{"batches/b/old", "batches/b/new"} {
			calls := 0
			err := f.Write(t.Context(), name, func(w io.Writer) error {
				calls++
				if _, err := w.Write(content(size)); err != nil {
					return err
				}
				return boom
			})
			if !errors.Is(err, boom) || calls != 1 {
				t.Errorf("%d bytes: %v after %d calls", size, err, calls)
			}
		}
		if got := get(t, f, "batches/b/old", 0, -1); string(got) != "old" {
			t.Errorf("%d bytes: the old file has %d", size, len(got))
		}
		if _, err := f.Open(t.Context(), "batches/b/new", 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d bytes: a part is stored: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := f.Write(ctx, "batches/b/new", func(w io.Writer) error {
		_, err := w.Write(content(300 << 10))
		cancel()
		return err
	})
	if err == nil {
		t.Error("the context ended, and no error")
	}
	if _, err := f.Open(t.Context(), "batches/b/new", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the context ended: %v", err)
	}
}

// Answers are lost, of single requests and of chunked ones.
func TestWriteAgain(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 300 << 10, 17 << 20} {
		var lost atomic.Int32
		f := open(t, func(r *http.Response) error {
			if r.Request.Method == http.MethodPost && lost.Add(1) <= 2 {
				gcstest.Unavailable(r)
			}
			return nil
		})
		data := content(size)
		calls := 0
		err := f.Write(t.Context(), "batches/b/x", func(w io.Writer) error {
			calls++
			_, err := io.Copy(w, bytes.NewReader(data))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := get(t, f, "batches/b/x", 0, -1); !bytes.Equal(got, data) || calls != 3 {
			t.Errorf("%d bytes: %d are stored, after %d calls", size, len(got), calls)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	for i, name := range []string{"batches/b/output/z/2.jsonl", "batches/b/output/a.jsonl", "batches/b/output/z/1.jsonl", "batches/b/outpu", "batches/c/output/x"} {
		put(t, f, name, content(i))
	}
	got, err := f.List(t.Context(), "batches/b/output/")
	if err != nil {
		t.Fatal(err)
	}
	want := []batch.File{{Name: "batches/b/output/a.jsonl", Size: 1}, {Name: "batches/b/output/z/1.jsonl", Size: 2}, {Name: "batches/b/output/z/2.jsonl", Size: 0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if got, err := f.List(t.Context(), "batches/none/"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSwap(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	const name = "batches/b/state.json"
	if data, generation, err := f.Read(t.Context(), name); err != nil || generation != 0 || data != nil {
		t.Errorf("nothing there: %q, %d, %v", data, generation, err)
	}
	if _, err := f.Swap(t.Context(), name, 7, []byte("x")); err == nil {
		t.Error("a file that is not there has a generation")
	}
	first, err := f.Swap(t.Context(), name, 0, []byte("1"))
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if _, err := f.Swap(t.Context(), name, 0, []byte("1")); !errors.Is(err, batch.ErrSwapped) {
		t.Errorf("created twice: %v", err) // the same content, but not by this writer
	}
	second, err := f.Swap(t.Context(), name, first, []byte("2"))
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	if _, err := f.Swap(t.Context(), name, first, []byte("3")); !errors.Is(err, batch.ErrSwapped) {
		t.Errorf("an old generation: %v", err)
	}
	if data, generation, err := f.Read(t.Context(), name); err != nil || generation != second || string(data) != "2" {
		t.Errorf("%q, %d, %v", data, generation, err)
	}
}

// The answer to a write is lost. It is a success all the same, unless somebody else has written meanwhile.
func TestSwapWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, meanwhile := range []bool{false, true} {
		for _, start := range []bool{false, true} {
			var lose atomic.Bool
			var other func()
			f := open(t, func(r *http.Response) error {
				if r.Request.Method == http.MethodPost && lose.CompareAndSwap(true, false) {
					if other != nil {
						other()
					}
					gcstest.Unavailable(r)
				}
				return nil
			})
			const name = "batches/b/state.json"
			var generation int64
			if start {
				var err error
				if generation, err = f.Swap(t.Context(), name, 0, []byte("before")); err != nil {
					t.Fatal(err)
				}
			}
			if meanwhile {
				other = func() {
					if err := f.Write(context.WithoutCancel(t.Context()), name, func(w io.Writer) error { _, err := w.Write([]byte("other")); return err }); err != nil {
						t.Error(err)
					}
				}
			}
			lose.Store(true)
			next, err := f.Swap(t.Context(), name, generation, []byte("mine"))
			if meanwhile {
				if !errors.Is(err, batch.ErrSwapped) {
					t.Errorf("start %v: somebody else wrote: %v", start, err)
				}
				continue
			}
			if data, now, readErr := f.Read(t.Context(), name); err != nil || readErr != nil || next != now || string(data) != "mine" {
				t.Errorf("start %v: generation %d of %d, %q, %v, %v", start, next, now, data, err, readErr)
			}
		}
	}
}

func TestReadOfALargeFile(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	put(t, f, "batches/b/x", content(16<<20+1))
	if _, _, err := f.Read(t.Context(), "batches/b/x"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	if got := f.URI("batches/b/x"); got != "gs://work/batches/b/x" {
		t.Error(got)
	}
	for uri, want := range map[string]string{
		"gs://work/batches/b/x": "batches/b/x", "gs://work/d/": "d/", "gs://work/": "", "gs://work": "", "gs://works/x": "", "gs://other/work/x": "", "batches/b/x": "",
	} {
		if name, ok := f.Name(uri); ok != (want != "") || ok && name != want {
			t.Errorf("%s: %q, %v", uri, name, ok)
		}
	}
}

func TestServes(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	client := gcstest.Open(t, bucket, func(r *http.Response) error {
		if r.Request.Method == http.MethodGet && strings.HasSuffix(r.Request.URL.Path, "/b/"+bucket) {
			body := fmt.Sprintf(`{"kind":"storage#bucket","name":%q,"location":"EUROPE-WEST4"}`, bucket)
			r.StatusCode, r.Body, r.ContentLength = status, io.NopCloser(strings.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
		}
		return nil
	})
	serves := func(f *gcsfiles.Files, want ...bool) {
		t.Helper()
		for i, region := range []string{"global", "europe-west4", "europe-west1", "eu", ""} {
			if f.Serves(region) != want[i] {
				t.Errorf("serves %q: %v", region, !want[i])
			}
		}
	}
	f := gcsfiles.New(client, gcsfiles.Config{Bucket: bucket})
	serves(f, true, false, false, false, false)
	if err := f.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	serves(f, true, true, false, false, false)
	status = http.StatusForbidden
	f = gcsfiles.New(client, gcsfiles.Config{Bucket: bucket})
	if err := f.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	serves(f, true, false, false, false, false)
	f = gcsfiles.New(client, gcsfiles.Config{Bucket: bucket, AnyLocation: true})
	serves(f, true, true, true, true, true)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	client := gcstest.Open(t, bucket, nil)
	err := gcsfiles.New(client, gcsfiles.Config{Bucket: "none"}).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gs://none does not exist") || !strings.Contains(err.Error(), "ASSETMILL_WORK_BUCKET") {
		t.Errorf("no such bucket: %v", err)
	}
}

// A read that breaks off in the middle goes on where it was.
func TestOpenThatBreaks(t *testing.T) {
	t.Parallel()
	data := content(1 << 20)
	var broken atomic.Int32
	f := open(t, func(r *http.Response) error {
		if r.Request.URL.Query().Get("alt") == "media" && broken.Add(1) == 1 {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(r.Body, 100_000), failing{}), r.Body}
		}
		return nil
	})
	put(t, f, "batches/b/x", data)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := f.Open(ctx, "batches/b/x", 1000, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[1000:]) || broken.Load() != 2 {
		t.Errorf("%d bytes in %d requests, %v", len(got), broken.Load(), err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
