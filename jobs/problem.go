package jobs

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxShownValue bounds how much of a wrong value an error repeats, in bytes: enough to recognise it, too little to leak a
// prompt into a log.
const maxShownValue = 60

// Problem is one thing that is wrong with one field of a job.
type Problem struct {
	Field   string // name in schemas.Job, which is also the name of the CSV column
	Value   string // what was given, shortened; empty when nothing was
	Message string // what is wrong and what is allowed
}

// String returns the problem as a sentence.
func (p Problem) String() string {
	if p.Value == "" {
		return fmt.Sprintf("%s %s", p.Field, p.Message)
	}
	return fmt.Sprintf("%s %q %s", p.Field, p.Value, p.Message)
}

// Problems is everything that is wrong with one job. As an error it reads as one line.
type Problems []Problem

// Error joins the problems into one line.
func (ps Problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

func (ps *Problems) add(field, value, message string) {
	*ps = append(*ps, Problem{field, Shorten(value), message})
}

// Shorten cuts a value to what an error may repeat.
func Shorten(value string) string {
	if short := Cut(value, maxShownValue); short != value {
		return short + "…"
	}
	return value
}

// Cut returns the longest beginning of text that is at most limit bytes and ends at a rune's boundary.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
