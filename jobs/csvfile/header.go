package csvfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// MaxHeaderBytes bounds the header, with the blank lines before it: 128 columns with names of 128 bytes are 16 KiB.
const MaxHeaderBytes = 64 << 10

// column is what one column of the file means.
type column struct {
	name  string // header as written, or a spreadsheet's letters
	field string // known name, "label", "source", or "" for a column without a header
	key   string // of a label, of source, or of a turn: `1.prompt`
	turn  int    // number of a turn, from 1
}

// id names the column among those of its file, as Catalogue.Parse names fields.
func (c column) id() string {
	if c.key != "" {
		return c.field + "." + jobs.Shorten(c.key)
	}
	return c.field
}

// known are the columns with a meaning, besides label.NAME and those of turns.
var known = []string{
	"prompt", "id", "campaign", "client", "model", "size", "aspect_ratio", "seed", "variants", "references", "system",
	"safety", "mode", "deadline", "region", "retention",
}

// misnomers are other names that people may use for a known column and that are no misspelling of it.
var misnomers = map[string]string{
	"jobid": "id", "label": "label.NAME", "label.": "label.NAME", "labels": "label.NAME", "turn": "turn_1_prompt", "turns": "turn_1_prompt",
}

// turnColumn is the header of one part of a turn, such as `turn_1_prompt`, squeezed.
var turnColumn = regexp.MustCompile(`^turn0*([1-9][0-9]{0,3})(prompt|image)$`)

// plainWords are one letter away from a known name but too common in marketing files to be refused.
var plainWords = []string{"headline"}

// squeeze reduces a name to what counts: letters in lower case, without spaces, hyphens and underscores.
func squeeze(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '\ufeff' || unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// knownName returns the known column that a header names, or "".
func knownName(header string) string {
	short := squeeze(header)
	for _, name := range known {
		if squeeze(name) == short {
			return name
		}
	}
	return ""
}

// nearMiss returns the column that a header seems to mean but does not name, or "".
func nearMiss(header string) string {
	short := squeeze(header)
	if meant := misnomers[short]; meant != "" {
		return meant
	}
	if slices.Contains(plainWords, short) {
		return ""
	}
	if at := strings.IndexAny(header, ".:"); at > 0 && at < len(header)-1 && distance(squeeze(header[:at]), "label") <= 1 {
		return "label." + strings.ToLower(strings.TrimSpace(header[at+1:]))
	}
	if meant := nearTurn(short); meant != "" {
		return meant
	}
	for _, name := range known {
		target := squeeze(name)
		allowed := 1
		switch {
		case len(target) < 4:
			continue // one letter away from `id` are too many words
		case len(target) >= 8:
			allowed = 2
		}
		if distance(short, target) <= allowed {
			return name
		}
	}
	return ""
}

var digitRun = regexp.MustCompile(`[0-9]+`)

// nearTurn returns the column of a turn that a squeezed header seems to mean, or "".
func nearTurn(short string) string {
	bare := strings.TrimSuffix(digitRun.ReplaceAllString(short, ""), "s")
	number, err := strconv.Atoi(digitRun.FindString(short))
	if err != nil || number < 1 {
		number = 1
	}
	for _, part := range []string{"prompt", "image"} {
		if distance(bare, "turn"+part) <= 2 {
			return fmt.Sprintf("turn_%d_%s", number, part)
		}
	}
	return ""
}

// parseColumn returns what a header cell means, or the problem with it.
func parseColumn(index int, cell string) (column, *CellProblem) {
	name := strings.TrimSpace(strings.Trim(cell, "\ufeff"))
	c := column{name: jobs.Shorten(name)} // headers can be as long as the header row
	lower := strings.ToLower(name)
	switch {
	case name == "":
		c.name = columnLetters(index)
	case knownName(name) != "":
		c.field = knownName(name)
	case turnColumn.MatchString(squeeze(name)):
		part := turnColumn.FindStringSubmatch(squeeze(name))
		c.turn, _ = strconv.Atoi(part[1]) // digits, by the expression
		c.field, c.key = "turns", part[1]+"."+part[2]
	case strings.HasPrefix(lower, "label.") && len(name) > len("label."):
		c.field, c.key = "label", strings.Join(strings.Fields(lower[len("label."):]), "_")
	case strings.HasPrefix(lower, "source.") && len(name) > len("source."):
		c.field, c.key = "source", strings.TrimSpace(name[len("source."):])
	default:
		if meant := nearMiss(name); meant != "" {
			return c, &CellProblem{c.name, "", fmt.Sprintf("is nearly the known column %q; rename it to that, or to %q if it is meant as it is", meant, "source."+c.name)}
		}
		c.field, c.key = "source", name
	}
	return c, nil
}

// parseHeader returns the columns of a header, and everything that is wrong with it.
func parseHeader(cells []string, catalogue *jobs.Catalogue, sourceFile string) ([]column, []CellProblem) {
	var problems []CellProblem
	columns := make([]column, len(cells))
	names := map[string]string{} // id to header as written
	probe := &schemas.Job{Prompt: "x", Labels: map[string]string{}, Source: map[string]string{}, SourceFile: sourceFile}
	for i, cell := range cells {
		c, problem := parseColumn(i, cell)
		columns[i] = c
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		if c.field == "" {
			continue
		}
		if first, ok := names[c.id()]; ok {
			problems = append(problems, CellProblem{c.name, "", fmt.Sprintf("stands twice in the header, first as %q; remove or rename one", first)})
			continue
		}
		names[c.id()] = c.name
		switch c.field {
		case "label":
			probe.Labels[c.key] = ""
		case "source":
			probe.Source[c.key] = ""
		}
	}
	if _, ok := names["prompt"]; !ok && len(problems) == 0 {
		problems = append(problems, CellProblem{Message: "has no column prompt in its header; columns found: " + columnList(columns)})
	}
	problems = append(problems, checkTurns(columns, names)...)
	return columns, append(problems, probeHeader(probe, names, catalogue)...)
}

// checkTurns finds turns that are no pair of a prompt and an image, that follow a gap, or that are too many.
func checkTurns(columns []column, names map[string]string) (problems []CellProblem) {
	has := func(turn int, part string) bool { return names[fmt.Sprintf("turns.%d.%s", turn, part)] != "" }
	for _, c := range columns {
		if c.field != "turns" {
			continue
		}
		other := "image"
		if strings.HasSuffix(c.key, other) {
			other = "prompt"
		}
		switch {
		case c.turn > jobs.MaxTurns:
			problems = append(problems, CellProblem{c.name, "", fmt.Sprintf("is of turn %d; at most %d turns are allowed", c.turn, jobs.MaxTurns)})
		case !has(c.turn, other):
			problems = append(problems, CellProblem{c.name, "", fmt.Sprintf("needs the column turn_%d_%s: a turn is a prompt and the image that it should have led to", c.turn, other)})
		case c.turn > 1 && !has(c.turn-1, "prompt") && !has(c.turn-1, "image"):
			problems = append(problems, CellProblem{c.name, "", fmt.Sprintf("follows no turn_%d_prompt: turns are numbered from 1 without gaps", c.turn-1)})
		}
	}
	return problems
}

// probeHeader finds names of labels and of source keys that no row could use, once for the file instead of in every row.
func probeHeader(probe *schemas.Job, names map[string]string, catalogue *jobs.Catalogue) (problems []CellProblem) {
	_, err := catalogue.Parse(probe)
	var found jobs.Problems
	if !errors.As(err, &found) {
		return nil
	}
	for _, p := range found {
		field := strings.TrimSuffix(p.Field, "s") // labels, source
		name, ok := names[field+"."+p.Value]
		if !ok {
			name = p.Field
		}
		problems = append(problems, CellProblem{name, p.Value, p.Message})
	}
	return problems
}

func columnList(columns []column) string {
	names := make([]string, 0, len(columns))
	for _, c := range columns {
		if c.field != "" {
			names = append(names, c.name)
		}
	}
	return jobs.Shorten(strings.Join(names, ", "))
}

// delimiters in the order of preference when the header speaks for several equally.
var delimiters = []byte{',', ';', '\t'}

// detectDelimiter returns the delimiter that makes the most of a header: one that gives a column prompt, then the one with
// most known columns, then the one with most columns. A header of one column has no delimiter.
func detectDelimiter(sample []byte) byte {
	best, bestScore := byte(noDelimiter), [3]int{}
	for _, delim := range delimiters {
		s := scanner{in: bufio.NewReaderSize(bytes.NewReader(sample), len(sample)), delim: delim}
		columns := 0
		err := s.next()
		for err == nil && s.rec.blank() {
			columns = max(columns, len(s.rec.cells)) // for a file that has only blank rows
			err = s.next()
		}
		columns = max(columns, len(s.rec.cells))
		if broken := (*syntaxError)(nil); errors.As(err, &broken) {
			columns = max(columns, broken.column+1)
		}
		if columns < 2 {
			continue
		}
		score := [3]int{0, 0, columns}
		for i := range s.rec.cells {
			switch name := knownName(string(s.rec.cell(i))); name {
			case "":
			case "prompt":
				score[0] = 1
				fallthrough
			default:
				score[1]++
			}
		}
		if slices.Compare(score[:], bestScore[:]) > 0 {
			best, bestScore = delim, score
		}
	}
	return best
}

// sepLine returns the delimiter that Excel's first line `sep=;` names and whether there is such a line.
func sepLine(sample []byte) (delim byte, ok bool, err error) {
	line, _, _ := bytes.Cut(sample, []byte{'\n'})
	text := strings.Trim(string(bytes.TrimRight(line, "\r")), `"`)
	if len(text) < len("sep=") || !strings.EqualFold(text[:len("sep=")], "sep=") {
		return 0, false, nil
	}
	value := text[len("sep="):]
	if len(value) != 1 || !strings.ContainsAny(value, ",;\t|") {
		return 0, false, fmt.Errorf("names the delimiter %q in its first line; allowed: comma, semicolon, tab, |", jobs.Shorten(value))
	}
	return value[0], true, nil
}

// peekHeader returns the beginning of the text, in which the header must end.
func peekHeader(in *bufio.Reader) ([]byte, error) {
	sample, err := in.Peek(MaxHeaderBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return sample, nil
}
