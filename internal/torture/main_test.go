//go:build linux

package torture

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// fullSizes is the variable that asks for the sizes of the promises, one scenario after the other: `make torture`.
const fullSizes = "ASSETMILL_TORTURE_FULL"

// binary is the assetmill that is tested, built from this tree.
var binary string

func TestMain(m *testing.M) {
	if cfg := os.Getenv(cloudRole); cfg != "" {
		if err := serveCloud(cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(withBinary(m))
}

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "assetmill-torture-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "assetmill")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/assetmill")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build assetmill:", err)
		return 1
	}
	// The scenarios wait for other processes; how many run side by side has nothing to do with the number of cores.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if len(ended.all) > 0 && os.Getenv(fullSizes) != "" {
		printBooks(os.Stdout, ended.all)
	}
	return code
}

// shares returns the shares of the jobs, in percent, at which harm is done: those given, or in full size those of the promises.
func shares(small ...int) []int {
	if os.Getenv(fullSizes) != "" {
		return []int{30, 50, 70}
	}
	return small
}

// sized returns the plan that was asked for. Small scenarios run side by side, full ones alone.
func sized[P plan | batchPlan](t *testing.T, small, full P) P {
	t.Helper()
	if os.Getenv(fullSizes) != "" {
		return full
	}
	t.Parallel()
	return small
}
