package doctor

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/api/storage/v1"

	"github.com/assetmill/assetmill/jobs"
)

const (
	// never is the age in days at which what is kept for good may be deleted.
	never = 1 << 30
	// recordDays is how long the ledger must remember a job: a message lives at most 31 days on its topic and 31 on its subscription, as
	// much again after a replay, and a margin. A job whose record is gone before its last message is paid for again.
	recordDays = 180
	// batchDays is how long the files of a batch are needed: it may wait 72 hours, run 24, and is collected then.
	batchDays = 7
	// straightDays is when nobody looks for an answer any more that was lost.
	straightDays = 3
	workersDays  = 1
)

const workersFolder = "workers/"

// wanted is a lifecycle rule that there should be.
type wanted struct {
	folder string
	class  string // storage class to move to; empty: delete
	days   int64
	least  bool // more days will do
}

// String says what the rule does.
func (w wanted) String() string {
	if w.class != "" {
		return w.folder + " (to " + w.class + " after " + count(int(w.days), "day") + ")"
	}
	return w.folder + " (delete after " + count(int(w.days), "day") + ")"
}

// rule returns it as Cloud Storage writes it.
func (w wanted) rule() json.RawMessage {
	action := `{"type":"Delete"}`
	if w.class != "" {
		action = `{"type":"SetStorageClass","storageClass":"` + w.class + `"}`
	}
	return json.RawMessage(`{"action":` + action + `,"condition":{"age":` + strconv.FormatInt(w.days, 10) + `,"matchesPrefix":["` + w.folder + `"]}}`)
}

// guarded is a folder whose objects must live for some days at least.
type guarded struct {
	folder string
	days   int64
	// endings of names; a rule for other endings does no harm. None: the names have no ending.
	endings []string
	why     string
}

// retentionDays returns the days that a retention class promises, or never.
func retentionDays(class string) int64 {
	if n, err := strconv.ParseInt(strings.TrimSuffix(class, "d"), 10, 64); err == nil {
		return n
	}
	return never
}

// expectations returns the rules that a bucket should have, and what none may touch.
func (x *exam) expectations(name string) (rules []wanted, guards []guarded) {
	images := []string{".png", ".jpg", ".webp", ".bin"}
	if slices.Contains(x.assetBuckets(), name) {
		for _, class := range jobs.Retentions() {
			n := retentionDays(class)
			guards = append(guards, guarded{class + "/", n, images, "images of the class " + class})
			switch {
			case n != never:
				rules = append(rules, wanted{folder: class + "/", days: n})
			case class != jobs.RetentionKeep:
				rules = append(rules, wanted{folder: class + "/", class: "ARCHIVE", days: 30, least: true})
			}
		}
		rules = append(rules, wanted{folder: straightFolder, days: straightDays, least: true})
		guards = append(guards, guarded{straightFolder, 1, images, "images of calls that are under way"})
	}
	if name == x.cfg.WorkBucket {
		rules = append(rules, wanted{folder: workersFolder, days: workersDays, least: true})
		guards = append(guards,
			guarded{"ledger/", recordDays, nil, "records of the ledger, so that jobs are paid for again"},
			guarded{controlsFolder, never, nil, "controls, so that cancelled jobs are called"},
			guarded{receiptsFolder, never, []string{".json"}, "receipts of submissions"},
			guarded{batchesFolder, batchDays, []string{".jsonl", ".json"}, "files of batches that are under way"},
			guarded{workersFolder, workersDays, nil, "signs of life of workers that live"})
	}
	return rules, guards
}

func (a *area) checkLifecycle(at place, b *bucket) {
	rules, guards := a.expectations(at.name)
	var have []*storage.BucketLifecycleRule
	if b.Lifecycle != nil {
		have = b.Lifecycle.Rule
	}
	var kept []json.RawMessage
	var harm []string
	for i, r := range have {
		if why := harms(r, guards); why != "" {
			harm = append(harm, why)
		} else if i < len(b.rules) {
			kept = append(kept, b.rules[i])
		}
	}
	lacking := slices.DeleteFunc(rules, func(w wanted) bool {
		return slices.ContainsFunc(have, func(r *storage.BucketLifecycleRule) bool { return w.met(r) })
	})
	whole := slices.Clone(kept)
	var names []string
	for _, w := range lacking {
		whole = append(whole, w.rule())
		names = append(names, w.String())
	}
	fix := a.setLifecycle(at, whole)
	if len(harm) == 0 {
		a.pass(idLifecycleKills, at.String(), "No lifecycle rule deletes what must stay.")
	} else {
		fix := fix
		fix.Note = "The command leaves out the rules that do harm. Soft-deleted objects can be restored: gcloud storage restore."
		a.fail(idLifecycleKills, Error, at.String(), sentence("Lifecycle rules delete too early: %s", strings.Join(slices.Compact(harm), "; ")), fix)
	}
	if len(lacking) == 0 {
		a.pass(idLifecycle, at.String(), "It has its lifecycle rules.")
		return
	}
	f := Finding{ID: idLifecycle, Severity: Warning, Resource: at.String(), Problem: sentence("It lacks lifecycle rules: %s", strings.Join(names, ", ")), Fix: fix}
	f.Fix.Note = "The command sets all rules at once. A rule that deletes also deletes what is older already."
	if slices.ContainsFunc(lacking, func(w wanted) bool { return w.folder == workersFolder }) {
		f.Mendable = "add a lifecycle rule that deletes signs of life (" + workersFolder + ") after a day"
		f.mend = a.addLifecycleRule(at.name, wanted{folder: workersFolder, days: workersDays}.rule())
	}
	a.add(f)
}

// setLifecycle is the fix that gives a bucket these rules and no others.
func (a *area) setLifecycle(at place, rules []json.RawMessage) Fix {
	if len(rules) == 0 {
		return a.updateBucket(at, "--clear-lifecycle")
	}
	all, err := json.Marshal(map[string][]json.RawMessage{"rule": rules})
	if err != nil {
		return Fix{Terraform: a.tfBucket(at.name)} // they came as JSON, so they can't be wrong
	}
	fix := a.updateBucket(at, "--lifecycle-file=lifecycle.json")
	fix.Command = "echo " + quote(string(all)) + " > lifecycle.json && " + fix.Command
	return fix
}

// met reports whether a rule does what is wanted, under no further condition.
func (w wanted) met(r *storage.BucketLifecycleRule) bool {
	if r.Action == nil || r.Condition == nil || r.Condition.Age == nil || narrow(r.Condition) || !slices.Contains(r.Condition.MatchesPrefix, w.folder) ||
		len(r.Condition.MatchesSuffix) > 0 || len(r.Condition.MatchesStorageClass) > 0 || r.Condition.CreatedBefore != "" {
		return false
	}
	right := r.Action.Type == "Delete" && w.class == "" || r.Action.Type == "SetStorageClass" && r.Action.StorageClass == w.class
	age := *r.Condition.Age
	return right && (age == w.days || w.least && age >= 1)
}

// narrow reports whether a condition picks out few objects, in ways that don't follow from their folder and age.
func narrow(c *storage.BucketLifecycleRuleCondition) bool {
	return c.MatchesPattern != "" || c.CustomTimeBefore != "" || c.DaysSinceCustomTime != 0 || c.SizeAboveBytes != 0 || c.SizeBelowBytes != 0 ||
		c.NoncurrentTimeBefore != "" || c.DaysSinceNoncurrentTime != 0 || c.NumNewerVersions != 0 || c.IsLive != nil && !*c.IsLive
}

// harms says which guarded objects a rule deletes too early, if any.
func harms(r *storage.BucketLifecycleRule, guards []guarded) string {
	if r.Action == nil || r.Action.Type != "Delete" || r.Condition == nil || narrow(r.Condition) {
		return ""
	}
	var age int64
	if r.Condition.Age != nil {
		age = *r.Condition.Age
	}
	var hit []string
	for _, g := range guards {
		if age < g.days && touches(r.Condition, g) {
			hit = append(hit, g.why)
		}
	}
	if len(hit) == 0 {
		return ""
	}
	of := "all objects"
	if p := r.Condition.MatchesPrefix; len(p) > 0 {
		of = strings.Join(p, ", ")
	}
	return "the one on " + of + " after " + count(int(age), "day") + " takes " + strings.Join(hit, ", ")
}

// touches reports whether a condition can hold for objects of a folder.
func touches(c *storage.BucketLifecycleRuleCondition, g guarded) bool {
	if len(c.MatchesSuffix) > 0 && !slices.ContainsFunc(c.MatchesSuffix, func(s string) bool { return slices.Contains(g.endings, s) }) {
		return false
	}
	return len(c.MatchesPrefix) == 0 || slices.ContainsFunc(c.MatchesPrefix, func(p string) bool {
		return strings.HasPrefix(g.folder, p) || strings.HasPrefix(p, g.folder)
	})
}
