package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

const (
	// memoryShare is the part of the container's memory that the Go runtime may use before it collects garbage ever more eagerly. The rest is for
	// what it doesn't count: the program's own pages, and what the kernel keeps for sockets.
	memoryShare = 0.9
	// imageShare is the part of that limit that images should take at most. The other half is for 3,200 connections with their buffers, rows that
	// wait to be durable, and garbage that is not collected yet.
	imageShare = 0.5
)

// LimitMemory fits the Go runtime to the memory of the container, unless GOMEMLIMIT is set already, and returns the limit in bytes; 0 stands
// for none. It warns when images may take so much of it that the runtime would spend its time collecting garbage. The limit is the
// whole process's: call it once, at the start.
func LimitMemory(log *zap.Logger, imageBytes int64) int64 {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(fromContainer), memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		log.Warn("the container's memory limit could not be applied; set GOMEMLIMIT", zap.Error(err))
		limit = math.MaxInt64
	}
	if limit == math.MaxInt64 {
		limit = 0
	}
	log.Info("memory", zap.Int64("limit_bytes", limit), zap.Int64("image_bytes", imageBytes))
	if advice := adviseMemory(limit, imageBytes); advice != "" {
		log.Warn(advice, zap.Int64("limit_bytes", limit), zap.Int64("image_bytes", imageBytes))
	}
	return limit
}

// fromContainer returns the memory of the process's control group. A process without one, or on a system without them, has no limit.
func fromContainer() (uint64, error) {
	limit, err := memlimit.FromCgroup()
	if errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		return 0, memlimit.ErrNoLimit
	}
	return limit, err
}

// adviseMemory says what to change when images may take too much of the limit.
func adviseMemory(limit, imageBytes int64) string {
	if limit == 0 || float64(imageBytes) <= float64(limit)*imageShare {
		return ""
	}
	return fmt.Sprintf("--image-memory is more than half of the memory: give the container at least %d MiB, or set --image-memory to %d or less",
		int64(math.Ceil(float64(imageBytes)/imageShare/memoryShare))>>20+1, int64(float64(limit)*imageShare)>>20)
}
