package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/internal/plan"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/lanes"
)

const (
	// metricsTimeout bounds asking a worker what it has learned.
	metricsTimeout = 10 * time.Second
	// maxMetricsBytes bounds its answer: a worker with all lanes and campaigns shows less than a megabyte.
	maxMetricsBytes = 16 << 20
	// maxPlanRate catches slips in rates. Vertex takes 30,000 calls a minute of a project in a region.
	maxPlanRate = 1_000_000
)

// planFlags are the command line of plan.
type planFlags struct {
	jobs         int64
	within       time.Duration
	deadline     string
	job          schemas.Job // model, size, region, mode
	promptTokens int64
	rates        []string
	callTimes    []string
	metrics      []string
	concurrency  int
	startUp      time.Duration
	reserve      float64
	retries      float64
	workerPrice  string
	json         bool
}

func (a *app) planCommand() *cobra.Command {
	f := &planFlags{}
	cmd := &cobra.Command{
		Use:   "plan [FILE...]",
		Short: "Predict workers, hours and cost, and find the cheapest way to meet a deadline",
		Long: `Predict what jobs need: by which lanes they go, how many calls are in flight, how many workers that takes, when they are done, and what they
cost. Of all ways, the cheapest that meets the deadline is shown first. If there is none, it says what would do, and the exit code is 1.

The jobs are those of CSV files, or --jobs of one kind. The lanes are those of ASSETMILL_LANES, or the default ones. Vertex publishes no
rate for image models, so say what your project gets: --rate, or --metrics of workers that have learned it. docs/plan.md explains the figures.`,
		Example: `  assetmill plan --jobs 300000 --within 24h --rate 1200
  assetmill plan --jobs 300000 --within 24h --rate standard=1200 --rate flex=600 --call-time 25s
  assetmill plan prompts.csv --deadline 2026-12-01T06:00:00Z --metrics worker-1:9090 --metrics worker-2:9090
  assetmill plan --jobs 1200000 --size 4K --json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.plan(cmd.Context(), f, args) },
	}
	flags := cmd.Flags()
	flags.Int64Var(&f.jobs, "jobs", 0, "number of jobs, if no file is named")
	flags.DurationVar(&f.within, "within", 0, "time until they must be done, such as 24h; of files, for rows without a deadline (default: none)")
	flags.StringVar(&f.deadline, "deadline", "", "the same as a time, such as 2026-12-01T06:00:00Z")
	flags.StringVar(&f.job.Model, "model", "", "model id (default: the catalogue's)")
	flags.StringVar(&f.job.Size, "size", "", "size class: 512, 1K, 2K, 4K, as the model offers (default \"1K\")")
	flags.StringVar(&f.job.Region, "region", "", "data region that the jobs may not leave (default \"global\")")
	flags.StringVar(&f.job.Mode, "mode", string(jobs.Auto), "online, batch, or auto: whichever is cheaper and in time")
	flags.Int64Var(&f.promptTokens, "prompt-tokens", plan.DefaultPromptTokens, "input of a job in tokens, reference images included; files say it themselves")
	flags.StringArrayVar(&f.rates, "rate", nil, "images a minute, as NUMBER for every lane, or LANE=NUMBER or TIER=NUMBER; may be repeated\n"+
		fmt.Sprintf("(default: what --metrics says, else %d)", plan.AssumedRate))
	flags.StringArrayVar(&f.callTimes, "call-time", nil, "mean length of a call, as 25s, or LANE=25s or TIER=25s; may be repeated\n"+
		"(default: what --metrics says, else by size)")
	flags.StringArrayVar(&f.metrics, "metrics", nil, "worker whose /metrics tell rates and lengths of calls: host:port, URL or file; name every worker that runs")
	flags.IntVar(&f.concurrency, "concurrency", plan.DefaultConcurrency, "calls in flight of one worker")
	flags.DurationVar(&f.startUp, "start-up", plan.DefaultStartUp, "from the first job until the workers are there; 0s if they wait for it")
	flags.Float64Var(&f.reserve, "reserve", plan.DefaultReserve, "share of the time until a deadline that is kept in reserve")
	flags.Float64Var(&f.retries, "retries", plan.DefaultRetries, "calls that are made again, as a share of the jobs")
	flags.StringVar(&f.workerPrice, "worker-price", plan.DefaultWorkerPrice.String(), "US dollars an hour of one worker")
	flags.BoolVar(&f.json, "json", false, "print the plan as JSON")
	return cmd
}

func (a *app) plan(ctx context.Context, f *planFlags, names []string) error {
	catalogue, err := a.catalogue()
	if err != nil {
		return err
	}
	request, err := f.request()
	if err != nil {
		return err
	}
	if request.Demands, err = a.planDemands(f, catalogue, names, time.Now().Truncate(time.Second)); err != nil {
		return err
	}
	rates, err := f.lanesKnown()
	if err != nil {
		return err
	}
	if rates.Learned, err = learnRates(ctx, f.metrics); err != nil {
		return err
	}
	if err := a.planLanes(request, catalogue, rates); err != nil {
		return err
	}
	p, err := plan.Make(*request)
	if err != nil {
		return codeError{err, exitUsage}
	}
	if f.json {
		err = a.printJSON(p)
	} else {
		err = p.Print(a.out)
	}
	switch {
	case err != nil:
		return err
	case p.UnservedJobs > 0:
		return fmt.Errorf("no lane serves %d of %d jobs", p.UnservedJobs, p.Jobs)
	case p.LateJobs > 0:
		return fmt.Errorf("the deadline can't be met: %d of %d jobs would be late", p.LateJobs, p.Jobs)
	}
	return nil
}

// request is the part of the question that flags alone say.
func (f *planFlags) request() (*plan.Request, error) {
	price, err := jobs.ParseUSD(f.workerPrice)
	switch {
	case err != nil:
		return nil, usageError("--worker-price: %w", err)
	case f.concurrency < 1 || f.concurrency > maxConcurrency:
		return nil, usageError("--concurrency is %d; allowed: 1 to %d", f.concurrency, maxConcurrency)
	case !(f.reserve >= 0 && f.reserve < 1):
		return nil, usageError("--reserve is %v; allowed: a share from 0 to less than 1", f.reserve)
	case !(f.retries >= 0 && f.retries <= 10):
		return nil, usageError("--retries is %v; allowed: 0 to 10", f.retries)
	case f.startUp < 0:
		return nil, usageError("--start-up is %s; it can't be negative", f.startUp)
	case f.promptTokens < 0:
		return nil, usageError("--prompt-tokens is %d; it can't be negative", f.promptTokens)
	}
	return &plan.Request{Concurrency: f.concurrency, StartUp: f.startUp, Reserve: f.reserve, Retries: f.retries, WorkerPrice: price}, nil
}

// planDemands counts the jobs: those of the files, or those that flags describe.
func (a *app) planDemands(f *planFlags, catalogue *jobs.Catalogue, names []string, start time.Time) ([]plan.Demand, error) {
	if err := f.setDeadline(start); err != nil {
		return nil, err
	}
	counter := plan.NewCounter(catalogue, start)
	switch {
	case f.jobs != 0 && len(names) > 0:
		return nil, usageError("either name files or say --jobs")
	case len(names) > 0:
		return a.planFiles(f, catalogue, counter, names)
	case f.jobs < 1 || f.jobs > plan.MaxJobs:
		return nil, usageError("--jobs is %d; allowed: 1 to %d, or name CSV files", f.jobs, plan.MaxJobs)
	}
	message := &schemas.Job{Prompt: "plan", Model: f.job.Model, Size: f.job.Size, Region: f.job.Region, Mode: f.job.Mode, Deadline: f.job.Deadline}
	mode := jobs.Mode(f.job.Mode)
	if mode == jobs.Auto {
		message.Mode = string(jobs.Online)
	}
	j, err := catalogue.Parse(message)
	var problems jobs.Problems
	switch {
	case errors.As(err, &problems):
		return nil, usageError("flag --%s", problems[0])
	case err != nil:
		return nil, err
	}
	counter.AddTokens(j, mode, f.promptTokens, f.jobs)
	return counter.Demands(), nil
}

// setDeadline makes one of the two ways to say it.
func (f *planFlags) setDeadline(start time.Time) error {
	switch {
	case f.within != 0 && f.deadline != "":
		return usageError("say either --within or --deadline")
	case f.within < 0:
		return usageError("--within is %s; it can't be negative", f.within)
	case f.within > 0:
		f.job.Deadline = start.Add(f.within).UTC().Format(time.RFC3339)
	case f.deadline != "":
		at, err := time.Parse(time.RFC3339, f.deadline)
		switch {
		case err != nil:
			return usageError("--deadline %q is no time such as 2026-12-01T06:00:00Z", f.deadline)
		case !at.After(start):
			return usageError("--deadline %s has passed", f.deadline)
		}
		f.job.Deadline = f.deadline
	}
	return nil
}

// planFiles counts the jobs of CSV files. Rows that are wrong would not be published, so they are told and not counted.
func (a *app) planFiles(f *planFlags, catalogue *jobs.Catalogue, counter *plan.Counter, names []string) ([]plan.Demand, error) {
	rejected := 0
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError("%w", err)
		}
		_, err = counter.CountCSV(file, csvfile.Options{Name: filepath.Base(name), Defaults: &f.job, Catalogue: catalogue}, func(bad *csvfile.RowError) error {
			if rejected++; rejected <= maxShownErrors {
				fmt.Fprintln(a.err, bad)
			}
			return nil
		})
		if closing := file.Close(); err == nil {
			err = closing
		}
		var fileError *csvfile.FileError
		switch {
		case errors.As(err, &fileError):
			return nil, codeError{err, exitInvalid}
		case err != nil:
			return nil, err
		}
	}
	demands := counter.Demands()
	if rejected > 0 {
		fmt.Fprintf(a.err, "%d rows are invalid and not counted; assetmill submit --dry-run lists them.\n", rejected)
	}
	if len(demands) == 0 {
		return nil, codeError{errors.New("no row is valid"), exitInvalid}
	}
	return demands, nil
}

// lanesKnown is what flags say of lanes.
func (f *planFlags) lanesKnown() (*plan.Rates, error) {
	r := &plan.Rates{Named: map[string]float64{}, CallTimes: map[string]time.Duration{}}
	for _, text := range f.rates {
		name, value := cutLast(text)
		rate, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil || !(rate > 0 && rate <= maxPlanRate):
			return nil, usageError("--rate %q is no number of images a minute above 0 and up to %d, or LANE=NUMBER", text, maxPlanRate)
		case name == "":
			r.PerMinute = rate
		default:
			r.Named[name] = rate
		}
	}
	for _, text := range f.callTimes {
		name, value := cutLast(text)
		d, err := time.ParseDuration(value)
		switch {
		case err != nil || d <= 0 || d > time.Hour:
			return nil, usageError("--call-time %q is no time such as 25s, up to 1h, or LANE=25s", text)
		case name == "":
			r.CallTime = d
		default:
			r.CallTimes[name] = d
		}
	}
	return r, nil
}

// cutLast cuts NAME=VALUE at the last sign; without one, all is value.
func cutLast(text string) (name, value string) {
	i := strings.LastIndexByte(text, '=')
	return text[:max(i, 0)], text[i+1:]
}

// planLanes reads the lanes and gives them their rates.
func (a *app) planLanes(r *plan.Request, catalogue *jobs.Catalogue, rates *plan.Rates) error {
	cfg := lanes.Default(a.env("ASSETMILL_PROJECT"), jobs.GlobalRegion, catalogue)
	if name := a.env("ASSETMILL_LANES"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return usageError("ASSETMILL_LANES: %w", err)
		}
		if cfg, err = lanes.Parse(name, data, catalogue); err != nil {
			return usageError("ASSETMILL_LANES: %w", err)
		}
		r.Lanes, r.Batch = plan.FromConfig(cfg)
	} else {
		r.Lanes, _ = plan.FromConfig(cfg)
		r.Batch = plan.DefaultBatch(catalogue)
	}
	r.Lanes = plan.Relevant(r.Lanes, r.Demands)
	if err := rates.Apply(r.Lanes, plan.Home(r.Lanes, cfg.Prefer, r.Demands)); err != nil {
		return usageError("--rate or --call-time: %w", err)
	}
	return nil
}

// learnRates asks workers what they have learned.
func learnRates(ctx context.Context, from []string) (map[string]plan.LearnedLane, error) {
	var g plan.Learning
	for _, name := range from {
		in, err := openMetrics(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("--metrics %s: %w", name, err)
		}
		err = g.Read(io.LimitReader(in, maxMetricsBytes))
		if closing := in.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return nil, fmt.Errorf("--metrics %s: %w", name, err)
		}
	}
	return g.Lanes(), nil
}

// openMetrics opens a file, or a worker's page of metrics.
func openMetrics(ctx context.Context, name string) (io.ReadCloser, error) {
	if _, err := os.Stat(name); err == nil {
		return os.Open(name)
	}
	url := name
	if !strings.Contains(url, "://") {
		url = "http://" + name + "/metrics"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: metricsTimeout}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", url, response.Status), response.Body.Close())
	}
	return response.Body, nil
}
