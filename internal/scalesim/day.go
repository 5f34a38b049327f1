package scalesim

import (
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// What happens on the day that docs/autoscaling.md shows.
const (
	usualQuota   = 4800 // calls a minute
	reducedQuota = 1800

	announcedFrom, announcedTo = 9*time.Hour + 45*time.Minute, 10*time.Hour + 30*time.Minute

	outageFrom, outageTo   = 11 * time.Hour, 11*time.Hour + 20*time.Minute
	reducedFrom, reducedTo = 16*time.Hour + 40*time.Minute, 18*time.Hour + 40*time.Minute
)

// imagePrice is what a 1K image of gemini-3-pro-image costs by a standard lane, with a prompt of 50 tokens.
const imagePrice jobs.USD = 134_500_000

// Day is a day of 1.2 million jobs: some all day, three campaigns of which one is announced to the autoscaler, an outage of twenty minutes,
// and two hours with three eighths of the quota.
func Day() *Scenario {
	calls := Images(25 * time.Second)
	// Of a hundred thousand calls, twenty take up to the five minutes after which a worker gives up, and five hundred have to be made again.
	calls.Slow, calls.SlowUpTo, calls.Again = 200, 5*time.Minute, 5000
	rules := Deployed()
	rules.Announced = []Announced{{From: announcedFrom, To: announcedTo, Workers: 6}}
	return &Scenario{
		Seed: 1, Length: 24 * time.Hour,
		Arrivals: []Arrival{
			{At: 0, Over: 24 * time.Hour, Jobs: 130_000},
			{Name: "morning", At: 6 * time.Hour, Over: 10 * time.Minute, Jobs: 200_000},
			{Name: "launch (announced)", At: 10 * time.Hour, Over: 20 * time.Minute, Jobs: 500_000},
			{Name: "evening", At: 16 * time.Hour, Over: 15 * time.Minute, Jobs: 370_000},
		},
		Lanes: []Lane{{
			Name: "standard", Price: imagePrice, Calls: calls,
			Quota: []Step{{0, usualQuota}, {outageFrom, 0}, {outageTo, usualQuota}, {reducedFrom, reducedQuota}, {reducedTo, usualQuota}},
		}},
		Worker: DeployedWorker(), Pods: AutopilotPods(), Metrics: GoogleLags(), Rules: rules,
	}
}
