package telemetry

import (
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestAdvice(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		name          string
		limit, images int64
		want          []string
	}{
		{"no limit", 0, 1 << 40, nil},
		{"half", 512 * mib, 256 * mib, nil},
		{"more than half", 460 * mib, 256 * mib, []string{"at least 569 MiB", "--image-memory to 230 or less"}},
	} {
		got := adviseMemory(tt.limit, tt.images)
		if (got != "") != (len(tt.want) > 0) {
			t.Errorf("%s: %q", tt.name, got)
		}
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", tt.name, got, want)
			}
		}
	}
	// Who follows the advice is not warned again.
	if got := adviseMemory(569*mib*9/10, 256*mib); got != "" {
		t.Errorf("a container as large as advised: %s", got)
	}
	if got := adviseMemory(460*mib, 230*mib); got != "" {
		t.Errorf("--image-memory as small as advised: %s", got)
	}
}

// The limit is the whole process's, so it is set in a process of its own.
func TestLimitMemory(t *testing.T) {
	t.Parallel()
	if os.Getenv("LIMIT_MEMORY_TEST") == "child" {
		limit := LimitMemory(zap.NewNop(), 0)
		if now := debug.SetMemoryLimit(-1); limit == 0 && now != math.MaxInt64 || limit != 0 && now != limit {
			t.Fatalf("returned %d, set %d", limit, now)
		}
		os.Stdout.WriteString("limit=" + strconv.FormatInt(limit, 10) + "\n")
		return
	}
	for _, tt := range []struct{ env, want string }{
		{"GOMEMLIMIT=100MiB", "limit=104857600"}, // set already
		{"GOMEMLIMIT=off", "limit=0"},
		{"AUTOMEMLIMIT=off", "limit=0"},
		{"AUTOMEMLIMIT=lots", "limit=0"}, // wrong, and no reason not to work
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLimitMemory$", "-test.v")
		cmd.Env = append(os.Environ(), "LIMIT_MEMORY_TEST=child", tt.env)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want+"\n") {
			t.Errorf("%s: %v, %s", tt.env, err, out)
		}
	}
}

func TestLimitMemoryTellsTheLog(t *testing.T) {
	t.Setenv("GOMEMLIMIT", strconv.FormatInt(debug.SetMemoryLimit(-1), 10)) // so that this process keeps its own
	core, logs := observer.New(zap.InfoLevel)
	LimitMemory(zap.New(core), 1<<30)
	if logs.FilterMessage("memory").FilterField(zap.Int64("image_bytes", 1<<30)).Len() != 1 {
		t.Errorf("the log has %v", logs.All())
	}
}
