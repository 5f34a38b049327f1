package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/renameio/v2"
)

// Report is what a run has found. Figures are medians of the runs, but for failures, which are summed up, and peak memory, of which the
// largest counts. What was not measured is nil.
type Report struct {
	Machine string       `json:"machine"`
	Date    time.Time    `json:"date"`
	Queue   string       `json:"queue"`
	Runs    int          `json:"runs"`
	Quick   bool         `json:"quick"`
	Cases   []CaseReport `json:"cases"`
}

// CaseReport is one case. Fields without another contender's name are the worker's.
type CaseReport struct {
	Name             string   `json:"name"`
	CPU              *float64 `json:"cpu_ms_per_asset"`
	FloorCPU         *float64 `json:"floor_ms_per_asset"`
	NaiveCPU         *float64 `json:"naive_ms_per_asset"`
	Rate             *float64 `json:"rate_per_s"`
	PeakRSS          *float64 `json:"peak_rss_mib"`
	Failures         int      `json:"failures"`
	DecodingFloorCPU *float64 `json:"decoding_floor_ms_per_asset"`
	FloorRate        *float64 `json:"floor_rate_per_s"`
	NaiveRate        *float64 `json:"naive_rate_per_s"`
	FloorPeakRSS     *float64 `json:"floor_peak_rss_mib"`
	NaivePeakRSS     *float64 `json:"naive_peak_rss_mib"`
	NaiveFailures    int      `json:"naive_failures"`
	ImageBytes       int      `json:"image_bytes"`
	InFlight         int      `json:"in_flight"`
	Jobs             int      `json:"jobs"`           // in each run
	Calls            int      `json:"calls"`          // that the worker made in all runs; more than jobs were paid twice
	Redelivered      int      `json:"redelivered"`    // messages that came back, in all runs
	CPUSpread        *spread  `json:"cpu_ms_between"` // runs
	// What limits the rate: the CPU of the stand-ins beside the worker, and what was left of the machine.
	StandInCPU *float64 `json:"stand_ins_ms_per_asset"`
	Idle       *float64 `json:"machine_idle"` // share, 0 to 1
}

// spread is the smallest and the largest of the runs' figures.
type spread [2]float64

func newCaseReport(c benchCase, all map[contender][]sample) CaseReport {
	cpu := func(s sample) float64 { return s.CPUPerAsset }
	rate := func(s sample) float64 { return s.Rate }
	peak := func(s sample) float64 { return s.PeakMiB }
	standIns := func(s sample) float64 { return s.StandInCPU }
	worker, floor, naive := all[theWorker], all[theFloor], all[theNaive]
	r := CaseReport{
		Name: c.name, ImageBytes: c.imageBytes, InFlight: c.inFlight, Jobs: c.jobs(),
		CPU: median(worker, cpu), FloorCPU: median(floor, cpu), NaiveCPU: median(naive, cpu),
		DecodingFloorCPU: median(all[decodedFloor], cpu),
		Rate:             median(worker, rate), FloorRate: median(floor, rate), NaiveRate: median(naive, rate),
		PeakRSS: largest(worker, peak), FloorPeakRSS: largest(floor, peak), NaivePeakRSS: largest(naive, peak),
		StandInCPU: median(worker, standIns), Idle: medianIdle(worker),
	}
	for _, s := range worker {
		r.Failures += s.Failures
		r.Calls += s.Calls
		r.Redelivered += s.Redelivered
	}
	for _, s := range naive {
		r.NaiveFailures += s.Failures
	}
	if values := known(worker, cpu); len(values) > 0 {
		r.CPUSpread = &spread{values[0], values[len(values)-1]}
	}
	return r
}

// known returns the figures of the runs that have one, in order.
func known(samples []sample, figure func(sample) float64) (values []float64) {
	for _, s := range samples {
		if v := figure(s); v > 0 {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

func median(samples []sample, figure func(sample) float64) *float64 {
	return middle(known(samples, figure))
}

// medianIdle is the median of what was left of the machine, which may be nothing.
func medianIdle(samples []sample) *float64 {
	var values []float64
	for _, s := range samples {
		if s.Rate > 0 {
			values = append(values, s.Idle)
		}
	}
	slices.Sort(values)
	return middle(values)
}

// middle is the median of values in order.
func middle(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	m := (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	return &m
}

func largest(samples []sample, figure func(sample) float64) *float64 {
	values := known(samples, figure)
	if len(values) == 0 {
		return nil
	}
	return &values[len(values)-1]
}

// WriteFile writes the report as JSON.
func (r *Report) WriteFile(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, append(text, '\n'), 0o644)
}

// Failures is how many of the worker's jobs did not end with their image, in all cases.
func (r *Report) Failures() (n int) {
	for _, c := range r.Cases {
		n += c.Failures
	}
	return n
}

// Print writes the report as a table.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s\n%s, queue: %s, medians of %d\n\n", r.Machine, r.Date.Format(time.RFC3339), r.Queue, r.Runs)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\tCPU ms/asset\tfloor\tdecoding floor\tnaive\tx floor\tx naive\tassets/s\tassets/min\tpeak MiB\tidle %\tfailures\t")
	for _, c := range r.Cases {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n", c.Name,
			show(c.CPU, "%.2f"), show(c.FloorCPU, "%.2f"), show(c.DecodingFloorCPU, "%.2f"), show(c.NaiveCPU, "%.2f"),
			show(ratio(c.CPU, c.FloorCPU), "%.2f"), show(ratio(c.CPU, c.NaiveCPU), "%.2f"),
			show(c.Rate, "%.0f"), show(perMinute(c.Rate), "%.0f"), show(c.PeakRSS, "%.0f"), show(percent(c.Idle), "%.0f"), c.Failures)
	}
	return w.Flush()
}

func show(figure *float64, format string) string {
	if figure == nil {
		return "-"
	}
	return fmt.Sprintf(format, *figure)
}

func ratio(a, b *float64) *float64 {
	if a == nil || b == nil {
		return nil
	}
	r := *a / *b
	return &r
}

func perMinute(rate *float64) *float64 { return times(rate, 60) }

func percent(share *float64) *float64 { return times(share, 100) }

func times(figure *float64, n float64) *float64 {
	if figure == nil {
		return nil
	}
	r := *figure * n
	return &r
}
