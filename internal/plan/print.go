package plan

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// Print writes the plan for people.
func (p *Plan) Print(out io.Writer) error {
	var b strings.Builder
	deadline := "no deadline"
	if p.DeadlineSeconds > 0 {
		deadline = "deadline in " + short(time.Duration(p.DeadlineSeconds)*time.Second)
	}
	fmt.Fprintf(&b, "%s, %s.\n", count(p.Jobs, "job"), deadline)
	switch {
	case p.UnservedJobs > 0:
		fmt.Fprintf(&b, "For %s there is no lane.\n", count(p.UnservedJobs, "job"))
	case p.LateJobs > 0:
		fmt.Fprintf(&b, "These lanes can't meet the deadline: at best %s are late.\n", count(p.LateJobs, "job"))
	}
	if len(p.Mixes) > 0 {
		p.Mixes[0].print(&b)
	}
	if len(p.Mixes) > 1 {
		printMixes(&b, p.Mixes)
	}
	title := "\nTo do:\n"
	if p.LateJobs > 0 {
		title = "\nAny of these would do:\n"
	}
	for _, a := range p.Advice {
		b.WriteString(title + "- " + a.Text + "\n")
		title = ""
	}
	title = "\nTaken for granted:\n"
	for _, a := range p.Assumptions {
		b.WriteString(title + "- " + a + "\n")
		title = ""
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// print writes the mix that is to be taken, lane by lane.
func (m *Mix) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s: %s, $%s, %s with %s in flight.\n", strings.ToUpper(m.Name[:1])+m.Name[1:], m.takes(), m.toPay().Cents(),
		count(m.Workers, "worker"), count(m.InFlight, "call"))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "lane\tjobs\timages/min\tcall\tin flight\ttime\tUSD\t")
	for _, sh := range m.Shares {
		if sh.lane == nil {
			fmt.Fprintf(table, "%s\t%d\t%d batches\t\t\tup to %s\t%s\t\n", sh.Lane, sh.Jobs, sh.Batches, short(time.Duration(sh.Seconds)*time.Second), sh.cost.Cents())
			continue
		}
		rate := strconv.FormatFloat(sh.PerMinute, 'f', 0, 64)
		switch {
		case sh.Ceiling:
			rate += " at most"
		case sh.Source == Assumed:
			rate += " assumed"
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%.0f s\t%.0f\t%s\t%s\t\n", sh.Lane, sh.Jobs, rate, sh.CallSeconds, sh.InFlight,
			short(time.Duration(sh.Seconds)*time.Second), sh.cost.Cents())
	}
	table.Flush() // the strings below can't fail
	if m.prepaid > 0 {
		fmt.Fprintf(out, "Of these, $%s are paid already, as provisioned throughput.\n", m.prepaid.Cents())
	}
	fmt.Fprintf(out, "On top: at most $%s for calls that are made again, $%s for workers.\n", m.retry.Cents(), m.workers.Cents())
}

func printMixes(out io.Writer, all []Mix) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "mix\tin time\ttime\tUSD to pay\tworkers\tin flight\t")
	for i := range all {
		m := &all[i]
		meets := "yes"
		if !m.Meets {
			meets = "no"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t\n", m.Name, meets, m.takes(), m.toPay().Cents(), m.Workers, m.InFlight)
	}
	table.Flush()
}

// takes is how long a mix takes, as people say it.
func (m *Mix) takes() string {
	text := short(time.Duration(m.Seconds) * time.Second)
	for _, sh := range m.Shares {
		if sh.lane == nil && m.Seconds == seconds(jobs.BatchTime) {
			return "up to " + text
		}
	}
	return text
}

// count is a number of things.
func count[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func hours(d time.Duration) string { return strconv.Itoa(int(d.Hours())) + " h" }

// short is a time to two figures or so.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 10*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	case d < 120*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}
