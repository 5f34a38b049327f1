package ledger_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/ledger"
)

func TestControls(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	owner, w := ledger.NewControls(client, bucket), ledger.NewControls(client, bucket)
	if got, err := w.Control(t.Context(), "s-1"); got != worker.Proceed || err != nil {
		t.Errorf("without a wish: %v, %v", got, err)
	}
	for _, want := range []worker.Control{worker.Pause, worker.Cancel, worker.Proceed} {
		if err := owner.Set(t.Context(), "s-1", want); err != nil {
			t.Fatal(err)
		}
		if got, err := w.Ask(t.Context(), "s-1"); got != want || err != nil {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
		if got, err := w.Control(t.Context(), "s-1"); got != worker.Proceed || err != nil {
			t.Errorf("asked %v again within seconds: %v", got, err)
		}
	}
}

func TestControlsGrowOld(t *testing.T) {
	client := gcstest.Open(t, bucket, nil)
	if err := ledger.NewControls(client, bucket).Set(t.Context(), "s-1", worker.Pause); err != nil {
		t.Fatal(err)
	}
	w := ledger.NewControls(client, bucket)
	asked := ledger.AgeOf(w, "s-1")
	if asked != 0 {
		t.Fatal("known before it was asked for")
	}
	if _, err := w.Control(t.Context(), "s-1"); err != nil {
		t.Fatal(err)
	}
	ledger.Backdate(w, "s-1", time.Minute)
	if err := ledger.NewControls(client, bucket).Set(t.Context(), "s-1", worker.Cancel); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Control(t.Context(), "s-1"); got != worker.Cancel || err != nil {
		t.Errorf("an old answer was given again: %v, %v", got, err)
	}
}

// What others take for dead, over time. A look can only follow the last by so much, or watching begins anew.
func TestTakenForDead(t *testing.T) {
	for name, c := range map[string]struct {
		looks []ledger.Look
		want  bool
	}{
		"never seen":                           {nil, false},
		"seen once":                            {[]ledger.Look{{At: 0, Generation: 1}}, false},
		"beating":                              {[]ledger.Look{{At: 0, Generation: 1}, {At: 10, Generation: 2}, {At: 20, Generation: 3}, {At: 30, Generation: 4}}, false},
		"silent for less than the bound":       {[]ledger.Look{{At: 0, Generation: 1}, {At: 9, Generation: 1}, {At: 19, Generation: 1}}, false},
		"silent for the bound":                 {[]ledger.Look{{At: 0, Generation: 1}, {At: 10, Generation: 1}, {At: 20, Generation: 1}}, true},
		"a gap in the watching":                {[]ledger.Look{{At: 0, Generation: 1}, {At: 3600, Generation: 1}}, false},
		"watched anew after the gap":           {[]ledger.Look{{At: 0, Generation: 1}, {At: 3600, Generation: 1}, {At: 3610, Generation: 1}, {At: 3620, Generation: 1}}, true},
		"first seen at the end of a slow look": {[]ledger.Look{{At: 0, Took: 8, Generation: 1}, {At: 10, Generation: 1}, {At: 20, Generation: 1}}, false},
		"came back":                            {[]ledger.Look{{At: 0, Generation: 1}, {At: 10, Generation: 1}, {At: 20, Generation: 1}, {At: 25, Generation: 2}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := ledger.TakenForDead(c.looks); got != c.want {
					t.Errorf("taken for dead: %v", got)
				}
			})
		})
	}
}
