package telemetry

import (
	"fmt"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// defaultRatio is the share of traces that begin here and are recorded, unless OTEL_TRACES_SAMPLER says otherwise: a million jobs a day
// are a thousand traces. A message whose producer records its trace is recorded whatever the ratio.
const defaultRatio = 0.001

// newSampler reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. The SDK would read them too, but it falls back to recording
// everything where they are wrong.
func newSampler(env func(string) string) (sdktrace.Sampler, error) {
	name, arg := strings.TrimSpace(env("OTEL_TRACES_SAMPLER")), strings.TrimSpace(env("OTEL_TRACES_SAMPLER_ARG"))
	ratio := 1.0
	if name == "" {
		name, ratio = "parentbased_traceidratio", defaultRatio
	}
	if arg != "" && strings.HasSuffix(name, "traceidratio") {
		var err error
		if ratio, err = strconv.ParseFloat(arg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %q; allowed: a share from 0 to 1", arg)
		}
	}
	roots := map[string]sdktrace.Sampler{
		"always_on": sdktrace.AlwaysSample(), "always_off": sdktrace.NeverSample(), "traceidratio": sdktrace.TraceIDRatioBased(ratio),
	}
	root, parentBased := strings.CutPrefix(name, "parentbased_")
	sampler, known := roots[root]
	switch {
	case !known:
		return nil, fmt.Errorf("OTEL_TRACES_SAMPLER is %q; allowed: always_on, always_off, traceidratio, each also with parentbased_ in front", name)
	case parentBased:
		return sdktrace.ParentBased(sampler), nil
	default:
		return sampler, nil
	}
}
