package submit

import (
	"cmp"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

// Rows may leave the mode open ([jobs.Auto]). A plan settles it, by two rules:
//
//  1. All jobs of one model and data region that a batch would do for ([jobs.Job.FitsBatch]) go to batch, if they are at least
//     [MinBatchJobs]; the others go online. The first run of a submission decides that, and its receipt keeps it.
//  2. A job whose deadline has come too near for a batch goes online, whatever the receipt says.
//
// So of two runs with the same files and options, the second decides as the first did, but for jobs that can wait no longer, and
// those move from batch to online only. Nothing is paid twice by that: neither a job's id nor its digest nor the submission's id depends
// on the mode, so both messages are of one job, which the ledger lets one worker claim.

// MinBatchJobs is the number of jobs that are worth a batch. Fewer save less than about $7, at half of $0.134 each, for which nobody
// should wait up to four days; and Vertex asks for few large batches instead of many small ones.
const MinBatchJobs = 100

// DefaultOnlineRate is the number of online calls a minute that the time of online jobs is estimated with. Vertex publishes no rate: this
// one stands for a project with some history, and whoever knows better says so in Options.OnlineRate.
const DefaultOnlineRate = 600

// share is what one row adds to the books.
type share struct {
	jobs            int
	group           int      // index in plan.groups, or explicit
	fits            bool     // in a group: whether a batch would do; else whether the row asks for it
	online, batched jobs.USD // all its jobs, called online and in a batch, where they may be
}

// explicit is the group of rows that say their mode.
const explicit = -1

// plan counts jobs and estimates their cost while rows are read, and then settles the mode of those that left it open.
type plan struct {
	catalogue *jobs.Catalogue
	rate      int       // online calls a minute
	now       time.Time // that deadlines are compared with, the same for all rows
	groups    []*group
	explicit  jobs.USD // cost of the rows that say their mode
	asked     int64    // jobs whose rows ask for batch
}

// group is the jobs of one model and data region that left the mode open.
type group struct {
	model, region   string
	jobs, fitting   int64
	online, batched jobs.USD // of all jobs online; of all that fit in a batch and the others online
	batch           bool
}

// share tells what a row adds. It finds or makes the row's group.
func (p *plan) share(row *csvfile.Row) share {
	j, n := row.Jobs[0], jobs.USD(len(row.Jobs)) // variants don't differ in what counts here
	s := share{jobs: len(row.Jobs), group: explicit, fits: j.Mode == jobs.Batch}
	if row.Auto {
		s.group, s.fits = p.groupOf(j), j.FitsBatch(p.now)
	}
	if row.Auto || !s.fits {
		s.online = n * p.catalogue.Estimate(j, jobs.TierStandard)
	}
	if s.fits {
		s.batched = n * p.catalogue.Estimate(j, jobs.TierBatch)
	}
	return s
}

// groupOf returns the index of a job's group. There are as many as models and regions in the catalogue at most.
func (p *plan) groupOf(j *jobs.Job) int {
	i := slices.IndexFunc(p.groups, func(g *group) bool { return g.model == j.Model.ID && g.region == j.Region })
	if i < 0 {
		i = len(p.groups)
		p.groups = append(p.groups, &group{model: j.Model.ID, region: j.Region})
	}
	return i
}

// add takes a row into the books, or out of them with sign -1.
func (p *plan) add(s share, sign int64) {
	n := sign * int64(s.jobs)
	planned := s.online
	if s.fits {
		planned = s.batched
	}
	if s.group == explicit {
		p.explicit += jobs.USD(sign) * planned
		if s.fits {
			p.asked += n
		}
		return
	}
	g := p.groups[s.group]
	g.jobs += n
	g.online += jobs.USD(sign) * s.online
	g.batched += jobs.USD(sign) * planned
	if s.fits {
		g.fitting += n
	}
}

// settle decides for each group, as an earlier run of the same submission did where there is one, and writes the plan into the
// receipt.
func (p *plan) settle(earlier []*schemas.ModePlan, receipt *schemas.SubmissionRow) {
	cost, batch := p.explicit, p.asked
	receipt.Plans = nil
	for _, g := range p.groups {
		g.batch = g.fitting >= MinBatchJobs
		for _, e := range earlier {
			if e.GetModel() == g.model && e.GetRegion() == g.region {
				g.batch = e.GetBatchJobs() > 0
			}
		}
		row := g.row(p.rate)
		if cost += g.online; g.batch {
			cost += g.batched - g.online
		}
		batch += row.GetBatchJobs()
		receipt.Plans = append(receipt.Plans, row)
	}
	slices.SortFunc(receipt.Plans, func(a, b *schemas.ModePlan) int {
		return cmp.Or(cmp.Compare(a.GetModel(), b.GetModel()), cmp.Compare(a.GetRegion(), b.GetRegion()))
	})
	receipt.EstimatedCostUsd, receipt.BatchJobs = cost.String(), &batch
}

func (g *group) row(rate int) *schemas.ModePlan {
	all, fitting, batch := g.jobs, g.fitting, int64(0)
	if g.batch {
		batch = fitting
	}
	onlineMs, batchMs := onlineTime(all, rate).Milliseconds(), (jobs.BatchQueueTime + jobs.BatchRunTime).Milliseconds()
	return &schemas.ModePlan{
		Model: g.model, Region: g.region, Jobs: &all, FittingJobs: &fitting, BatchJobs: &batch,
		OnlineCostUsd: g.online.String(), BatchCostUsd: g.batched.String(), OnlineMs: &onlineMs, BatchMs: &batchMs,
	}
}

// onlineTime is how long so many online calls take at so many a minute.
func onlineTime(calls int64, rate int) time.Duration {
	return time.Duration(float64(calls) / float64(rate) * float64(time.Minute))
}

// mode is the mode that a row's jobs are published in.
func (p *plan) mode(row *csvfile.Row) jobs.Mode {
	j := row.Jobs[0]
	switch {
	case !row.Auto:
		return j.Mode
	case p.groups[p.groupOf(j)].batch && j.FitsBatch(p.now):
		return jobs.Batch
	default:
		return jobs.Online
	}
}
