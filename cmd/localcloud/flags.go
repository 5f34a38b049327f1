package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
)

// cloudFlags are the flags that say how the local cloud behaves.
type cloudFlags struct {
	dir         string
	latency     latencyRange
	quota       float64
	refusalRate float64
	faultRate   float64
	seed        uint64
	tls         bool
	plain       bool
	direct      bool
	batchTime   time.Duration
}

func (f *cloudFlags) register(flags *pflag.FlagSet, latency latencyRange) {
	f.latency = latency
	flags.StringVar(&f.dir, "dir", ".local", "folder for all state: images, tables, call log, addresses")
	flags.Var(&f.latency, "latency", "how long the model takes, as MIN-MAX")
	flags.Float64Var(&f.quota, "quota", 0, "requests per minute that the model takes before it answers 429; 0: no limit")
	flags.Float64Var(&f.refusalRate, "refusal-rate", 0, "share of prompts that the model refuses, 0 to 1")
	flags.Float64Var(&f.faultRate, "fault-rate", 0, "share of calls that fail (500, 503, broken answers), 0 to 1")
	flags.Uint64Var(&f.seed, "seed", 0, "changes which calls are refused, fail or are slow, and the pictures")
	flags.BoolVar(&f.tls, "tls", false, "serve Vertex with TLS; clients must trust DIR/vertex-ca.pem (SSL_CERT_FILE)")
	flags.BoolVar(&f.plain, "plain-pictures", false, "draw bands without text, which costs far less CPU")
	flags.BoolVar(&f.direct, "direct", false, "have models write their images to Cloud Storage themselves where they are asked to")
	flags.DurationVar(&f.batchTime, "batch-time", defaultBatchTime, "how long a batch prediction job waits, and then runs")
}

// config returns the local cloud that the flags and the environment describe.
func (f *cloudFlags) config() localcloud.Config {
	return localcloud.Config{
		Dir:            f.dir,
		WellKnownPorts: true,
		PubSubEmulator: localcloud.PubSubEmulator(os.Getenv),
		Warn:           func(text string) { fmt.Fprintln(os.Stderr, "localcloud: note:", text) },
		Vertex: vertextest.Config{
			TLS: f.tls, Seed: f.seed,
			MinLatency: f.latency.min, MaxLatency: f.latency.max,
			RequestsPerMinute: f.quota,
			Refusals:          refusals(f.refusalRate),
			Faults:            faults(f.faultRate),
			PlainPictures:     f.plain,
			DirectOutput:      f.directOutput(),
			Batch:             vertextest.Batch{Pending: f.batchTime, Running: f.batchTime},
		},
	}
}

// defaultBatchTime makes the states of a batch visible. A real one takes hours.
const defaultBatchTime = 3 * time.Second

func (f *cloudFlags) directOutput() map[string]vertextest.DirectOutput {
	if !f.direct {
		return nil
	}
	all := map[string]vertextest.DirectOutput{}
	for _, m := range vertextest.DefaultModels() {
		all[m.ID] = vertextest.DirectHonoured
	}
	return all
}

// refusals parts a rate among the kinds: the output filter refuses about as often as the prompt filter and the model itself together.
func refusals(rate float64) vertextest.Refusals {
	return vertextest.Refusals{Prompt: rate / 4, Output: rate / 2, Text: rate / 8, NoImage: rate / 8}
}

// faults parts a rate among the kinds. Calls that hang are left out: they would hold a demonstration up for minutes.
func faults(rate float64) vertextest.Faults {
	return vertextest.Faults{Internal: rate / 4, Unavailable: rate / 2, Cut: rate / 8, Garbage: rate / 8}
}

// latencyRange is a flag like 300ms-2s, or one duration for both ends.
type latencyRange struct{ min, max time.Duration }

// String implements pflag.Value.
func (l *latencyRange) String() string {
	if l.min == l.max {
		return l.min.String()
	}
	return l.min.String() + "-" + l.max.String()
}

// Set implements pflag.Value.
func (l *latencyRange) Set(text string) error {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	low, err := time.ParseDuration(from)
	if err != nil {
		return fmt.Errorf("%q is no range of durations like 300ms-2s", text)
	}
	high, err := time.ParseDuration(to)
	if err != nil || low < 0 || high < low {
		return fmt.Errorf("%q is no range of durations like 300ms-2s", text)
	}
	l.min, l.max = low, high
	return nil
}

// Type implements pflag.Value.
func (l *latencyRange) Type() string { return "range" }
