package plan

import (
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

const pro = "gemini-3-pro-image"

// day is when all plans of these tests begin.
var day = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

func parse(t testing.TB, m *schemas.Job) *jobs.Job {
	t.Helper()
	m.Prompt = "x"
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// demand is n jobs of the default model.
func demand(t testing.TB, n int64, size string, within time.Duration, mode jobs.Mode) []Demand {
	t.Helper()
	m := &schemas.Job{Size: size}
	if within > 0 {
		m.Deadline = day.Add(within).Format(time.RFC3339)
	}
	c := NewCounter(jobs.DefaultCatalogue(), day)
	c.AddTokens(parse(t, m), mode, DefaultPromptTokens, n)
	return c.Demands()
}

func online(tier string, perMinute float64) Lane {
	return Lane{Name: tier, Model: pro, Location: "global", Tier: tier, PerMinute: perMinute, Source: Given, CallTime: 30 * time.Second}
}

var batchLane = Lane{Name: "batch", Model: pro, Location: "global", Tier: "batch"}

// request is a question without reserve, retries and start-up, so that figures can be checked by hand.
func request(demands []Demand, lanes ...Lane) Request {
	return Request{Demands: demands, Lanes: lanes, Concurrency: 100, WorkerPrice: DefaultWorkerPrice}
}

func made(t testing.TB, r Request) *Plan {
	t.Helper()
	p, err := Make(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// by returns how many jobs of a mix go by each lane.
func by(m *Mix) map[string]int64 {
	all := map[string]int64{}
	for _, sh := range m.Shares {
		all[sh.Lane] = sh.Jobs
	}
	return all
}
