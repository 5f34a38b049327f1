package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
)

// showPlan shows what becomes of the jobs that left the mode open, before any is published. With --json standard output belongs to the
// receipt, which has the same plans.
func (a *app) showPlan(f *submitFlags, r *schemas.SubmissionRow) error {
	if len(r.GetPlans()) == 0 {
		return nil
	}
	if f.json {
		return printPlan(a.err, r.GetPlans(), f.onlineRate)
	}
	return printPlan(a.out, r.GetPlans(), f.onlineRate)
}

func printPlan(out io.Writer, plans []*schemas.ModePlan, rate int) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "mode auto\tregion\tjobs\tfit batch\tgo to batch\tUSD online\tUSD with batch\tonline takes\ta batch takes")
	for _, p := range plans {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%s\tabout %s\tup to %s\n", p.GetModel(), p.GetRegion(), p.GetJobs(), p.GetFittingJobs(), p.GetBatchJobs(),
			dollars(p.GetOnlineCostUsd()), dollars(p.GetBatchCostUsd()), roughly(milliseconds(p.GetOnlineMs())), hours(milliseconds(p.GetBatchMs())))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "A batch fits sizes that the model makes in batch, and deadlines at least %s away; fewer than %d jobs are not worth one.\n"+
		"Online at %d calls a minute for all jobs together (--online-rate); most batches end in hours.\n", hours(jobs.BatchTime), submit.MinBatchJobs, rate)
	return err
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// hours is a time in whole hours.
func hours(d time.Duration) string { return strconv.Itoa(int(d.Hours())) + " h" }

// roughly is a time as people say it.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 72*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}
