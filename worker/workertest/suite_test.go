package workertest_test

import (
	"testing"

	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/workertest"
)

func TestLedgerInMemory(t *testing.T) {
	shared := workertest.NewLedger()
	workertest.LedgerSuite(t, func(t *testing.T, id string) worker.Ledger { return workertest.Alive(t, shared.Open(id, nil)) })
}

func TestAssetsInMemory(t *testing.T) {
	shared := workertest.NewAssets()
	workertest.AssetsSuite(t, func(*testing.T) worker.Assets { return shared })
}
