package vertextest

import (
	"regexp"
	"strings"
	"time"
)

// batchFilter is a compiled filter of a list. The language is the one of
// Google's APIs, where OR binds more tightly than AND.
type batchFilter func(j *BatchJob) bool

var filterToken = regexp.MustCompile(`^\s*(?:(\(|\)|!=|<=|>=|=|<|>|:)|"((?:[^"\\]|\\.)*)"|([^\s()=!<>:"]+))`)

// token is one word of a filter: an operator, or a text, quoted or not.
type token struct {
	text     string
	operator bool
	quoted   bool
}

func (t token) is(word string) bool { return !t.quoted && t.text == word }

type filterParser struct{ tokens []token }

// parseFilter compiles text; an empty one lets all jobs pass.
func parseFilter(text string) (batchFilter, *apiError) {
	p := &filterParser{}
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := filterToken.FindStringSubmatch(rest)
		if m == nil {
			return nil, badFilter(text)
		}
		t := token{text: m[1] + m[3], operator: m[1] != ""}
		if m[1]+m[3] == "" {
			t = token{text: strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[2]), quoted: true}
		}
		p.tokens = append(p.tokens, t)
		rest = rest[len(m[0]):]
	}
	if len(p.tokens) == 0 {
		return func(*BatchJob) bool { return true }, nil
	}
	f := p.all()
	if f == nil || len(p.tokens) > 0 {
		return nil, badFilter(text)
	}
	return f, nil
}

func badFilter(text string) *apiError {
	return invalid("Invalid filter: %q. Supported are display_name, model_display_name, state, create_time and labels.", text)
}

// next takes the next token, if it is word.
func (p *filterParser) next(word string) bool {
	if len(p.tokens) == 0 || !p.tokens[0].is(word) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

// all parses parts joined by AND, or by nothing. Nil means a mistake.
func (p *filterParser) all() batchFilter {
	f := p.some()
	for f != nil && len(p.tokens) > 0 && !p.tokens[0].is(")") {
		p.next("AND")
		a, b := f, p.some()
		if b == nil {
			return nil
		}
		f = func(j *BatchJob) bool { return a(j) && b(j) }
	}
	return f
}

func (p *filterParser) some() batchFilter {
	f := p.one()
	for f != nil && p.next("OR") {
		a, b := f, p.one()
		if b == nil {
			return nil
		}
		f = func(j *BatchJob) bool { return a(j) || b(j) }
	}
	return f
}

func (p *filterParser) one() batchFilter {
	if p.next("NOT") {
		f := p.one()
		if f == nil {
			return nil
		}
		return func(j *BatchJob) bool { return !f(j) }
	}
	if p.next("(") {
		f := p.all()
		if f == nil || !p.next(")") {
			return nil
		}
		return f
	}
	if len(p.tokens) < 3 || p.tokens[0].operator || !p.tokens[1].operator || p.tokens[2].operator {
		return nil
	}
	name, operator, value := p.tokens[0].text, p.tokens[1].text, p.tokens[2].text
	p.tokens = p.tokens[3:]
	return restriction(name, operator, value)
}

// restriction compares one field. Nil: the field or the operator is unknown.
func restriction(name, operator, value string) batchFilter {
	if key, ok := strings.CutPrefix(name, "labels."); ok {
		return labelRestriction(key, operator, value)
	}
	switch name {
	case "create_time", "createTime":
		return timeRestriction(operator, value)
	case "display_name", "displayName":
		if operator == ":" {
			pattern := wildcard(value)
			return func(j *BatchJob) bool { return pattern.MatchString(j.DisplayName) }
		}
		return textRestriction(operator, value, func(j *BatchJob) string { return j.DisplayName })
	case "model_display_name", "modelDisplayName":
		return textRestriction(operator, value, func(*BatchJob) string { return "" }) // Google's models have none
	case "state":
		return textRestriction(operator, value, func(j *BatchJob) string { return j.State })
	default:
		return nil
	}
}

func labelRestriction(key, operator, value string) batchFilter {
	switch {
	case operator == ":" && value == "*":
		return func(j *BatchJob) bool { _, ok := j.Labels[key]; return ok }
	case operator == "=" || operator == ":":
		return func(j *BatchJob) bool { v, ok := j.Labels[key]; return ok && v == value }
	case operator == "!=":
		return func(j *BatchJob) bool { v, ok := j.Labels[key]; return !ok || v != value }
	default:
		return nil
	}
}

func textRestriction(operator, value string, field func(*BatchJob) string) batchFilter {
	switch operator {
	case "=":
		return func(j *BatchJob) bool { return field(j) == value }
	case "!=":
		return func(j *BatchJob) bool { return field(j) != value }
	default:
		return nil
	}
}

func timeRestriction(operator, value string) batchFilter {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return nil
	}
	holds := map[string]func(order int) bool{
		"=": func(o int) bool { return o == 0 }, "!=": func(o int) bool { return o != 0 },
		"<": func(o int) bool { return o < 0 }, "<=": func(o int) bool { return o <= 0 },
		">": func(o int) bool { return o > 0 }, ">=": func(o int) bool { return o >= 0 },
	}[operator]
	if holds == nil {
		return nil
	}
	return func(j *BatchJob) bool { return holds(j.Created.Compare(at)) }
}

func wildcard(pattern string) *regexp.Regexp {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
}
