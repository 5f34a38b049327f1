package doctor

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// PrintOptions say how a report is shown.
type PrintOptions struct {
	Color bool // for a terminal
	All   bool // also what is as it should be
}

// Colors of severities, as terminals know them.
const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	green  = "\x1b[32m"
	reset  = "\x1b[0m"
)

// indent is where what belongs to a finding stands.
const indent = "           "

// printer writes lines, and keeps the first error for the end.
type printer struct {
	w   *bufio.Writer
	opt PrintOptions
}

func (p printer) paint(color, text string) string {
	if !p.opt.Color {
		return text
	}
	return color + text + reset
}

func (p printer) severity(s Severity) string {
	return p.paint(map[Severity]string{OK: green, Info: cyan, Warning: yellow, Error: red}[s], fmt.Sprintf("%-7s", s))
}

// Print writes the report as text for people: by area, the worst first, and a summary at the end.
func (r *Report) Print(w io.Writer, opt PrintOptions) error {
	p := printer{bufio.NewWriter(w), opt}
	who := ""
	if r.Identity != "" {
		who = ", looked at by " + r.Identity
	}
	project := "Project " + r.Project
	if r.Project == "" {
		project = "No project"
	}
	fmt.Fprintf(p.w, "%s%s, for the %s\n", project, who, r.Role)
	for _, name := range areaNames() {
		p.area(name, r.Findings)
	}
	p.summary(r)
	return p.w.Flush()
}

func (p printer) area(name string, all []Finding) {
	var shown []Finding
	passed, any := 0, false
	for _, f := range all {
		if f.Area != name {
			continue
		}
		any = true
		if f.Severity == OK {
			passed++
		}
		if f.Severity != OK || p.opt.All {
			shown = append(shown, f)
		}
	}
	if !any {
		return
	}
	fmt.Fprintf(p.w, "\n%s", p.paint(bold, name))
	if passed > 0 {
		fmt.Fprintf(p.w, ": %d ok", passed)
	}
	fmt.Fprintln(p.w)
	for _, f := range shown {
		p.finding(f)
	}
}

func (p printer) finding(f Finding) {
	fmt.Fprintf(p.w, "  %s  %s  (%s)\n", p.severity(f.Severity), p.paint(bold, f.Resource), f.ID)
	fmt.Fprintln(p.w, indent+f.Problem)
	for _, one := range []struct{ what, text string }{{"fix:       ", f.Fix.Command}, {"terraform: ", f.Fix.Terraform}, {"note:      ", f.Fix.Note}} {
		if one.text != "" {
			fmt.Fprintln(p.w, indent+one.what+strings.ReplaceAll(one.text, "\n", "\n"+indent))
		}
	}
	if f.Mendable != "" {
		fmt.Fprintln(p.w, indent+"--fix:     "+f.Mendable)
	}
}

func (p printer) summary(r *Report) {
	fmt.Fprintf(p.w, "\n%s, %s, %s; %s passed.\n", count(r.Count(Error), "error"), count(r.Count(Warning), "warning"), count(r.Count(Info), "note"), count(r.Count(OK), "check"))
	if n := len(r.Mendable()); n > 0 {
		what := "them"
		if n == 1 {
			what = "it"
		}
		fmt.Fprintf(p.w, "%s can be put right by assetmill doctor --fix, which lists and asks before it touches %s.\n", count(n, "finding"), what)
	}
}
