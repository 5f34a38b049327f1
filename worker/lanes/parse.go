package lanes

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/assetmill/assetmill/jobs"
)

// maxFileBytes bounds a file of lanes: maxLanes of them with long comments.
const maxFileBytes = 1 << 20

// maxFaults bounds how many faults are reported at once. Beyond it they have one cause.
const maxFaults = 20

// bucketForm is what Cloud Storage allows as a bucket's name, but for rules that only it can check.
var bucketForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)

// Parse reads a file of lanes, in YAML or JSON; docs/lanes.md describes it. It is strict: unknown fields, wrong values, lanes that are
// there twice and regions that no lane serves are errors. An error holds every fault that was found, a line for each, with the name of the
// file, the line and what to do. Lanes that name no project have none until [Config.SetProject].
func Parse(name string, data []byte, c *jobs.Catalogue) (*Config, error) {
	r := &reader{file: name, cfg: &Config{Buckets: map[string]string{}, Prefer: jobs.GlobalRegion, SpillAfter: DefaultSpillAfter, Catalogue: c}}
	r.read(data)
	return r.result()
}

// reader turns a syntax tree into a Config and collects what is wrong. It walks the tree itself, since a decoder stops at the first
// fault and forgets the lines.
type reader struct {
	file   string
	cfg    *Config
	lanes  []*source
	faults []located
}

// source is a lane with the place of each of its fields in the file.
type source struct {
	LaneConfig
	at     *token.Position
	fields map[string]*token.Position
	unread map[string]bool // fields whose values could not be read, which has been said
}

// located is a fault with its place.
type located struct {
	line, column int
	text         string
}

func (r *reader) wrong(at *token.Position, format string, args ...any) {
	f := located{text: fmt.Sprintf(format, args...)}
	if at != nil {
		f.line, f.column = at.Line, at.Column
	}
	r.faults = append(r.faults, f)
}

func (r *reader) result() (*Config, error) {
	if len(r.faults) == 0 {
		return r.cfg, nil
	}
	slices.SortStableFunc(r.faults, func(a, b located) int { return cmp.Or(a.line-b.line, a.column-b.column) })
	var lines []error
	for i, f := range r.faults {
		if i == maxFaults {
			lines = append(lines, fmt.Errorf("%s: and %d more", r.file, len(r.faults)-maxFaults))
			break
		}
		place := r.file
		if f.line > 0 {
			place = fmt.Sprintf("%s:%d:%d", r.file, f.line, f.column)
		}
		lines = append(lines, fmt.Errorf("%s: %s", place, f.text))
	}
	return nil, errors.Join(lines...)
}

func (r *reader) read(data []byte) {
	if len(data) > maxFileBytes {
		r.wrong(nil, "is larger than %d bytes", maxFileBytes)
		return
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			r.wrong(syntax.GetToken().Position, "%s", syntax.GetMessage())
		} else {
			r.wrong(nil, "%s", err)
		}
		return
	}
	docs := slices.DeleteFunc(slices.Clone(file.Docs), func(d *ast.DocumentNode) bool { return d.Body == nil })
	switch {
	case len(docs) == 0:
		r.wrong(nil, "is empty: it needs `lanes:`, as worker/lanes/testdata/example.yaml shows")
		return
	case len(docs) > 1:
		r.wrong(place(docs[1].Body), "a second document begins: the file must have one")
		return
	}
	r.readTop(docs[0].Body)
	r.checkLanes()
	r.checkRegions()
}

// place is where a node begins.
func place(n ast.Node) *token.Position {
	if n == nil || n.GetToken() == nil {
		return nil
	}
	return n.GetToken().Position
}

// entries calls f for each key of a mapping.
func (r *reader) entries(n ast.Node, what string, f func(key string, at *token.Position, value ast.Node)) {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.wrong(place(n), "%s must be a mapping of names to values", what)
		return
	}
	for it := m.MapRange(); it.Next(); {
		key, ok := it.Key().(ast.ScalarNode)
		if !ok || it.Key().IsMergeKey() {
			r.wrong(place(it.Key()), "anchors, aliases and merge keys are not supported")
			continue
		}
		f(key.GetToken().Value, place(key), it.Value())
	}
}

// items calls f for each item of a list.
func (r *reader) items(n ast.Node, what string, f func(item ast.Node)) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		r.wrong(place(n), "%s must be a list", what)
		return
	}
	for _, item := range list.Values {
		f(item)
	}
}

// text returns a value as it is written, and nothing for what is no plain value. A project or an endpoint may be a number.
func (r *reader) text(n ast.Node, what string) string {
	switch v := n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		if value := v.GetToken().Value; value != "" {
			return value
		}
	case *ast.LiteralNode:
		r.wrong(place(n), "%s must be on one line", what)
		return ""
	}
	r.wrong(place(n), "%s needs a value", what)
	return ""
}

func (r *reader) readTop(n ast.Node) {
	r.entries(n, "the file", func(key string, at *token.Position, value ast.Node) {
		switch key {
		case "lanes":
			r.items(value, key, r.readLane)
		case "buckets":
			r.entries(value, key, r.readBucket)
		case "prefer":
			r.cfg.Prefer = r.text(value, key)
		case "spill_after":
			if d := r.duration(value, key); d != nil {
				r.cfg.SpillAfter = *d
				if *d < 0 || *d > maxSpill {
					r.wrong(place(value), "spill_after %s is not from 0s to %s", *d, maxSpill)
				}
			}
		default:
			r.wrong(at, "unknown field %q; allowed: lanes, buckets, prefer, spill_after", key)
		}
	})
}

func (r *reader) readBucket(region string, at *token.Position, value ast.Node) {
	name := r.text(value, "the bucket of "+region)
	switch {
	case name == "":
		return
	case region == jobs.GlobalRegion:
		r.wrong(at, "global is no data region: the bucket of jobs that may run anywhere is a setting of the worker")
	case !bucketForm.MatchString(name):
		r.wrong(place(value), "%q is no name of a bucket (without gs:// and without a folder)", name)
	}
	r.cfg.Buckets[region] = name
}

func (r *reader) readLane(n ast.Node) {
	l := &source{at: place(n), fields: map[string]*token.Position{}, unread: map[string]bool{}}
	r.entries(n, "a lane", func(key string, at *token.Position, value ast.Node) {
		before := len(r.faults)
		l.fields[key] = cmp.Or(place(value), at)
		r.readField(l, key, at, value)
		l.unread[key] = len(r.faults) > before
	})
	r.lanes = append(r.lanes, l)
}

func (r *reader) readField(l *source, key string, at *token.Position, value ast.Node) {
	texts := map[string]*string{
		"name": &l.Name, "project": &l.Project, "location": &l.Location, "model": &l.Model, "tier": &l.Tier,
		"host": &l.Host, "host_region": &l.HostRegion, "endpoint": &l.Endpoint,
	}
	if field := texts[key]; field != nil {
		*field = r.text(value, key)
		return
	}
	switch key {
	case "sizes":
		r.items(value, key, func(item ast.Node) { l.Sizes = append(l.Sizes, r.text(item, "a size")) })
	case "max_in_flight":
		l.MaxInFlight = int(r.number(value, key, true))
	case "max_per_minute":
		l.MaxPerMinute = r.number(value, key, false)
	case "image_price_usd":
		l.ImagePrice = r.price(value, key)
	case "spill_after":
		l.SpillAfter = r.duration(value, key)
	default:
		known := append(slices.Sorted(maps.Keys(texts)), "sizes", "max_in_flight", "max_per_minute", "image_price_usd", "spill_after")
		r.wrong(at, "unknown field %q; allowed: %s", key, strings.Join(known, ", "))
	}
}

// number returns a number above 0, or 0 when it is none.
func (r *reader) number(n ast.Node, key string, whole bool) float64 {
	text := r.text(n, key)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseFloat(text, 64)
	switch {
	case whole && (err != nil || v != float64(int32(v))):
		r.wrong(place(n), "%s: %q is no whole number", key, text)
	case err != nil:
		r.wrong(place(n), "%s: %q is no number", key, text)
	case v == 0:
		r.wrong(place(n), "%s must be above 0; leave it out for no bound of its own", key)
	default:
		return v
	}
	return 0
}

// price returns an exact amount of US dollars.
func (r *reader) price(n ast.Node, key string) *jobs.USD {
	text := r.text(n, key)
	if text == "" {
		return nil
	}
	amount, ok := new(big.Rat).SetString(text)
	if !ok || strings.ContainsAny(text, "/eExX") {
		r.wrong(place(n), "%s: %q is no amount of US dollars such as 0.12", key, text)
		return nil
	}
	amount.Mul(amount, big.NewRat(1_000_000_000, 1))
	if !amount.IsInt() || !amount.Num().IsInt64() {
		r.wrong(place(n), "%s: %q has more than nine decimals or is too large", key, text)
		return nil
	}
	nano := jobs.USD(amount.Num().Int64())
	return &nano
}

func (r *reader) duration(n ast.Node, key string) *time.Duration {
	text := r.text(n, key)
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.wrong(place(n), "%s: %q is no duration such as 90s or 2m", key, text)
		return nil
	}
	return &d
}

// checkLanes checks each lane and all of them together, and sorts them by whom they are for.
func (r *reader) checkLanes() {
	names, quotas := map[string]*source{}, map[any]*source{}
	for _, l := range r.lanes {
		for _, f := range l.faults(r.cfg.Catalogue) {
			if !l.unread[f.field] {
				r.wrong(cmp.Or(l.fields[f.field], l.at), "%s %s", f.field, f.text)
			}
		}
		if l.Name == "" {
			l.Name = l.defaultName("")
		}
		if other := names[l.Name]; other != nil {
			r.wrong(cmp.Or(l.fields["name"], l.at), "name %s is taken by the lane in line %d: give this one another", l.Name, other.at.Line)
		} else if other := quotas[l.quota()]; other != nil {
			r.wrong(l.at, "lane %s is the same way to be served as lane %s in line %d: keep one of them", l.Name, other.Name, other.at.Line)
		}
		names[l.Name], quotas[l.quota()] = l, l
		if l.Tier == tierBatch {
			r.cfg.Batch = append(r.cfg.Batch, l.LaneConfig)
		} else {
			r.cfg.Lanes = append(r.cfg.Lanes, l.LaneConfig)
		}
	}
	switch {
	case len(r.lanes) > maxLanes:
		r.wrong(nil, "has %d lanes; %d are allowed", len(r.lanes), maxLanes)
	case len(r.cfg.Lanes) == 0 && len(r.faults) == 0:
		r.wrong(nil, "has no lane that takes online calls: add one under `lanes:`, or use no file to get the standard ones")
	}
}

// checkRegions checks what names regions: they must be served by a lane, or a slip in a name would go unnoticed.
func (r *reader) checkRegions() {
	if len(r.faults) > 0 {
		return // the lanes may be incomplete
	}
	served := map[string]bool{jobs.GlobalRegion: true}
	for _, l := range slices.Concat(r.cfg.Lanes, r.cfg.Batch) {
		served[l.Location] = true
	}
	for _, region := range slices.Sorted(maps.Keys(r.cfg.Buckets)) {
		if !served[region] {
			r.wrong(nil, "buckets: no lane has the location %s: add a lane there, or remove the bucket", region)
		}
	}
	if !served[r.cfg.Prefer] {
		r.wrong(nil, "prefer: no lane has the location %s", r.cfg.Prefer)
	}
}
