package doctor

import (
	"fmt"
	"slices"
)

// Severity says what a finding means for the deployment.
type Severity int

// Severities, from harmless to what keeps jobs from being done rightly.
const (
	OK      Severity = iota // checked, and as it should be
	Info                    // worth knowing, or could not be checked
	Warning                 // works, until something happens, or costs more than it need
	Error                   // jobs are not done, not paid once, or not kept
)

var severityNames = []string{"ok", "info", "warning", "error"}

// String returns the name that --json prints.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return severityNames[s]
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Fix says how to put a finding right. Either field may be empty.
type Fix struct {
	// Command is one line for a POSIX shell, with real names in it.
	Command string `json:"command,omitempty"`
	// Terraform is what in deploy/terraform makes it so: addresses of resources, or a variable.
	Terraform string `json:"terraform,omitempty"`
	// Note is what neither of them says.
	Note string `json:"note,omitempty"`
}

// Finding is the result of one check on one resource.
type Finding struct {
	ID       string   `json:"id"` // of the check, see [Checks]
	Severity Severity `json:"severity"`
	Area     string   `json:"area"`
	Resource string   `json:"resource"`
	Problem  string   `json:"problem"` // one sentence; when the severity is OK, what was found
	Fix      Fix      `json:"fix,omitzero"`
	// Mendable says what Mend would do, or is empty.
	Mendable string `json:"mendable,omitempty"`

	mend mender
}

// Report is everything that was found.
type Report struct {
	Project  string    `json:"project"`
	Role     Role      `json:"role"`
	Identity string    `json:"identity"` // whose permissions were checked; empty when unknown
	Findings []Finding `json:"findings"` // by area, the worst first
}

// Count returns how many findings have a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Worst returns the highest severity of all findings.
func (r *Report) Worst() Severity {
	worst := OK
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Mendable returns the findings that Mend can put right.
func (r *Report) Mendable() []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.mend == nil })
}

// area collects the findings of one area. One goroutine uses it.
type area struct {
	*exam
	name  string
	found []Finding
	gone  map[string]bool // resources that don't exist, as findings name them
}

// local reports whether an emulator stands for the area's service.
func (a *area) local() bool {
	switch a.name {
	case areaPubSub:
		return a.cfg.Local.PubSub
	case areaStorage:
		return a.cfg.Local.Storage
	case areaBigQuery:
		return a.cfg.Local.BigQuery
	case areaVertex:
		return a.cfg.Local.Vertex
	default:
		return false
	}
}

func (a *area) pass(id, resource, sentence string) {
	a.add(Finding{ID: id, Severity: OK, Resource: resource, Problem: sentence})
}

func (a *area) fail(id string, s Severity, resource, problem string, fix Fix) {
	a.add(Finding{ID: id, Severity: s, Resource: resource, Problem: problem, Fix: fix})
}

func (a *area) add(f Finding) {
	f.Area = a.name
	if f.Severity > Info && a.local() {
		// Commands for Google Cloud would do no good, and what they name may not even be ours there.
		f.Fix, f.Mendable, f.mend = Fix{Note: "The local cloud makes what is needed when it starts: make local."}, "", nil
	}
	a.found = append(a.found, f)
}

// limited notes that something could not be looked at.
func (a *area) limited(resource, unchecked string, fix Fix) {
	a.fail(idLimited, Info, resource, "This account may not look at it, so "+unchecked, fix)
}
