package ledger_test

import (
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/gcs/gcstest"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/workertest"
)

func TestLastBeat(t *testing.T) {
	t.Parallel()
	l := ledger.New(gcstest.Open(t, bucket, nil), bucket, "w1")
	if at := l.LastBeat(); !at.IsZero() {
		t.Errorf("before the first beat: %v", at)
	}
	began := time.Now()
	workertest.Alive(t, l)
	if _, err := l.Claim(t.Context(), "j", [32]byte{}); err != nil { // waits for the first beat
		t.Fatal(err)
	}
	if at := l.LastBeat(); at.Before(began) || at.After(time.Now()) {
		t.Errorf("after it: %v", at)
	}
}
