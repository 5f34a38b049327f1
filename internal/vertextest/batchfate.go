package vertextest

import (
	"math"
	"strconv"
	"strings"
)

// decideJob chooses the fate of a job from what it was asked to do.
func (s *Server) decideJob(j *batchJob) JobFate {
	d := newDice(s.cfg.Seed, j.content[:], s.seen.countContent(j.content))
	f := s.cfg.Batch.Faults.job(d)
	if s.cfg.Batch.JobHook != nil {
		f = s.cfg.Batch.JobHook(j.snapshot(), f)
	}
	if !(f.EndShare >= 0 && f.EndShare <= 1) { // also catches NaN
		f.EndShare = 0
	}
	return f
}

func (r *BatchFaults) job(d dice) JobFate {
	f := JobFate{EndShare: d.unit("end share")}
	u := d.unit("create")
	for _, kind := range []struct {
		share float64
		fault CreateFault
	}{{r.CreateLost, CreateLost}, {r.CreateHang, CreateHang}, {r.CreateUnavailable, CreateUnavailable}, {r.CreateThrottled, CreateThrottled}} {
		if u < kind.share {
			f.Create = kind.fault
			break
		}
		u -= kind.share
	}
	switch u := d.unit("job"); {
	case u < r.Stuck:
		f.Stuck = true
	case u < r.Stuck+r.Expired:
		f.End = EndExpired
	case u < r.Stuck+r.Expired+r.Failed:
		f.End = EndFailed
	}
	return f
}

// decideRow chooses the fate of a row: the shares, then the directives in the
// prompt, then the hook.
func (s *Server) decideRow(c *Call) RowFate {
	d := newDice(s.cfg.Seed, c.content[:], c.Number)
	f := RowFate{Fate: s.modelFate(d)}
	s.cfg.Batch.Faults.row(&f, d)
	if strings.Contains(c.Prompt, "[[") {
		before := s.seen.countPrompt(c.promptSum)
		applyDirectives(&f.Fate, c.Prompt, before)
		f.takeFault()
		applyBatchDirectives(&f, c.Prompt, before)
	}
	if s.cfg.Batch.RowHook != nil {
		f = s.cfg.Batch.RowHook(c, f)
	}
	if f.FailStatus != 0 && (f.FailStatus < 400 || f.FailStatus > 599) {
		f.FailStatus = 500
	}
	f.Copies = max(0, min(f.Copies, maxCopies-1))
	return f
}

func (r *BatchFaults) row(f *RowFate, d dice) {
	u := d.unit("row")
	for _, kind := range []struct {
		share float64
		set   func()
	}{
		{r.BadRequest, func() { f.FailStatus = 400 }},
		{r.Throttled, func() { f.FailStatus = 429 }},
		{r.Internal, func() { f.FailStatus = 500 }},
		{r.Missing, func() { f.Missing = true }},
		{r.Lost, func() { f.Lost = true }},
		{r.Cut, func() { f.Damage = DamageCut }},
		{r.BadBase64, func() { f.Damage = DamageBase64 }},
		{r.Garbage, func() { f.Damage = DamageGarbage }},
	} {
		if u < kind.share {
			kind.set()
			break
		}
		u -= kind.share
	}
	if d.unit("duplicated") < r.Duplicated {
		f.Copies = 1 + int(math.Pow(d.unit("copies"), 3)*float64(r.MaxCopies)) // small numbers more often
		f.Copies = min(f.Copies, r.MaxCopies)
	}
	f.Orphan = d.unit("orphan") < r.Orphans
	f.NoLabels = d.unit("labels") < r.NoLabels
	f.Nulls = d.unit("nulls") < r.Nulls
	f.ResponseFirst = d.unit("order") < r.ResponseFirst
	f.Escape = d.unit("escape") < r.Escaped
	f.TwoImages = d.unit("two") < r.TwoImages
}

// takeFault turns what a directive does to an online answer into what it does to a row.
func (f *RowFate) takeFault() {
	switch f.Fault {
	case FaultStatus:
		f.FailStatus = f.Status
	case FaultHang:
		f.Missing = true
	case FaultLost:
		f.Lost = true
	case FaultCut:
		f.Damage = DamageCut
	case FaultGarbage:
		f.Damage = DamageGarbage
	}
}

func applyBatchDirectives(f *RowFate, prompt string, before int) {
	for name, arg := range directives(prompt, before) {
		if name != "batch" {
			continue
		}
		kind, number, _ := strings.Cut(arg, ":")
		switch kind {
		case "missing":
			f.Missing = true
		case "lost":
			f.Lost = true
		case "cut":
			f.Damage = DamageCut
		case "base64":
			f.Damage = DamageBase64
		case "garbage":
			f.Damage = DamageGarbage
		case "copies":
			if n, err := strconv.Atoi(number); err == nil {
				f.Copies = n
			}
		case "orphan":
			f.Orphan = true
		case "nolabels":
			f.NoLabels = true
		case "nulls":
			f.Nulls = true
		case "reversed":
			f.ResponseFirst = true
		}
	}
}
