package csvfile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// placeholderID spares rows without an id the hashes with which Catalogue.Parse derives one: only the submitter knows
// the occurrence that is part of it.
const placeholderID = "row"

// rowParser collects what is wrong with one row.
type rowParser struct {
	reader   *Reader
	cells    []string
	problems []placed
}

// placed is a problem with the index of its column, by which problems are ordered.
type placed struct {
	index int
	CellProblem
}

// parse turns the current record into a row.
func (r *Reader) parse() (*Row, error) {
	p := rowParser{reader: r, cells: r.strings()}
	if !cleanText(r.scan.rec.data, r.utf16) {
		p.checkEncoding()
	}
	message, variants := p.message()
	auto := message.Mode == string(jobs.Auto)
	if auto {
		message.Mode = string(jobs.Online)
	}
	job, err := r.opts.Catalogue.Parse(message)
	var found jobs.Problems
	switch {
	case errors.As(err, &found):
		for _, problem := range found {
			p.place(problem)
		}
	case err != nil:
		return nil, err
	}
	if len(p.problems) > 0 {
		return nil, p.rowError()
	}
	row := &Row{Number: r.number, Line: r.scan.rec.line, Record: p.cells, HasID: p.given("id"), Auto: auto}
	row.Jobs = variantsOf(job, variants, row.HasID)
	return row, nil
}

// strings returns copies of the record's cells, which share one allocation.
func (r *Reader) strings() []string {
	rec := &r.scan.rec
	all := string(rec.data)
	cells := make([]string, len(rec.cells))
	for i, c := range rec.cells {
		cells[i] = all[c.start:c.end]
	}
	return cells
}

func (p *rowParser) checkEncoding() {
	for i := range p.cells {
		if message, shown := cellEncoding(p.reader.scan.rec.cell(i), p.reader.utf16); message != "" {
			p.add(i, shown, message)
			p.cells[i] = "" // the rest of the row is checked without it
		}
	}
}

// message makes the message that the row and the options ask for.
func (p *rowParser) message() (m *schemas.Job, variants int) {
	r := p.reader
	m, variants = fromDefaults(r.opts.Defaults), r.opts.Variants
	m.SourceFile, m.SourceRow = r.sourceFile, r.number
	for i, cell := range p.cells {
		if isBlank(cell) {
			continue
		}
		if i >= len(r.columns) {
			p.add(i, cell, fmt.Sprintf("is one cell too many: the header has %d columns; if it is part of the cell before, put that cell in quotes", len(r.columns)))
			continue
		}
		if problem := setCell(m, &variants, r.columns[i], cell); problem != "" {
			p.add(i, cell, problem)
		}
	}
	if m.Id == "" {
		m.Id = placeholderID
	} else if suffix := "-" + strconv.Itoa(variants); variants > 1 && jobs.ValidID(m.Id) && len(m.Id)+len(suffix) > jobs.MaxNameBytes {
		p.add(r.index["id"], m.Id, fmt.Sprintf("is too long for the ids of %d variants, which end in -1 to %s; at most %d characters are allowed", variants, suffix, jobs.MaxNameBytes-len(suffix)))
	}
	return m, variants
}

func isBlank(cell string) bool { return cell == "" || strings.TrimSpace(cell) == "" }

// fromDefaults returns a message with every field of the defaults that a row may leave open.
func fromDefaults(d *schemas.Job) *schemas.Job {
	return &schemas.Job{
		Submission: d.GetSubmission(), Campaign: d.GetCampaign(), Client: d.GetClient(),
		System: d.GetSystem(), Model: d.GetModel(), Size: d.GetSize(), AspectRatio: d.GetAspectRatio(),
		References: d.GetReferences(), Safety: d.GetSafety(), Mode: d.GetMode(), Deadline: d.GetDeadline(),
		Region: d.GetRegion(), Retention: d.GetRetention(),
		Labels: maps.Clone(d.GetLabels()), Source: maps.Clone(d.GetSource()), // rows add to them
	}
}

// given reports whether the row has a cell for the column that is not empty.
func (p *rowParser) given(id string) bool {
	i, ok := p.reader.index[id]
	return ok && i < len(p.cells) && !isBlank(p.cells[i])
}

func (p *rowParser) add(index int, value, message string) {
	name := columnLetters(index)
	if index < len(p.reader.columns) {
		name = p.reader.columns[index].name
	}
	p.problems = append(p.problems, placed{index, CellProblem{name, jobs.Shorten(strings.TrimSpace(value)), message}})
}

// place maps a problem of Catalogue.Parse back to the column that the field came from.
func (p *rowParser) place(problem jobs.Problem) {
	index, ok := p.reader.index[problem.Field]
	if ok && slices.ContainsFunc(p.problems, func(has placed) bool { return has.index == index }) {
		return // it follows from what is known to be wrong with that cell
	}
	if !ok {
		index = math.MaxInt // behind all columns
	}
	name, message := problem.Field, problem.Message
	if ok {
		name = p.reader.columns[index].name
	}
	switch {
	case p.given(problem.Field) || problem.Value == "":
	case p.reader.hasDefault(problem.Field):
		message += "; the value comes from the options of the submission, not from the row"
	default:
		message += "; the value is the default"
	}
	p.problems = append(p.problems, placed{index, CellProblem{name, problem.Value, message}})
}

// hasDefault reports whether the options give a value for a field, as Catalogue.Parse names it.
func (r *Reader) hasDefault(field string) bool {
	if label, ok := strings.CutPrefix(field, "label."); ok {
		_, ok = r.opts.Defaults.GetLabels()[label]
		return ok
	}
	if r.opts.Defaults == nil {
		return false
	}
	m := r.opts.Defaults.ProtoReflect()
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(field))
	return fd != nil && m.Has(fd)
}

func (p *rowParser) rowError() *RowError {
	r := p.reader
	slices.SortStableFunc(p.problems, func(a, b placed) int { return cmp.Compare(a.index, b.index) })
	e := &RowError{File: r.name, Row: r.number, Line: r.scan.rec.line}
	for _, problem := range p.problems {
		e.Problems = append(e.Problems, problem.CellProblem)
	}
	return e
}

// variantsOf returns the jobs of one row. They share what jobs may not change.
func variantsOf(job *jobs.Job, n int, hasID bool) []*jobs.Job {
	if !hasID {
		job.ID = ""
	}
	if n == 1 {
		return []*jobs.Job{job}
	}
	all := make([]*jobs.Job, n)
	for i := range all {
		v := *job
		v.Variant = i + 1
		if hasID {
			v.ID = job.ID + "-" + strconv.Itoa(v.Variant)
		}
		all[i] = &v
	}
	return all
}

// cloneDefaults keeps the caller's later changes out.
func cloneDefaults(d *schemas.Job) *schemas.Job {
	if d == nil {
		return &schemas.Job{}
	}
	return proto.Clone(d).(*schemas.Job)
}
