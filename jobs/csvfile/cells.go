package csvfile

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// setCell puts one cell that is not empty into the message. It returns what is wrong with the cell itself, or "";
// what models allow is for Catalogue.Parse to say. The number of variants is no field of a message.
func setCell(m *schemas.Job, variants *int, c column, cell string) (problem string) {
	text := strings.TrimSpace(cell)
	switch c.field {
	case "prompt":
		m.Prompt = cell
	case "system":
		m.System = cell
	case "turns":
		setTurn(m, c, cell)
	case "source":
		m.Source = set(m.Source, c.key, cell)
	case "label":
		m.Labels = set(m.Labels, c.key, text)
	case "id":
		m.Id = text
	case "campaign":
		m.Campaign = text
	case "client":
		m.Client = text
	case "model":
		m.Model = strings.ToLower(text)
	case "mode":
		m.Mode, problem = mode(text)
	case "region":
		m.Region = strings.ToLower(text)
	case "retention":
		m.Retention = strings.ToLower(text)
	case "size":
		m.Size = text
	case "aspect_ratio":
		m.AspectRatio = ratio(text)
	case "references":
		m.References = references(text)
	case "safety":
		m.Safety = jobs.ParseSafety(text)
	case "seed":
		m.Seed, problem = seed(text)
	case "variants":
		*variants, problem = variantCount(text)
	case "deadline":
		m.Deadline, problem = deadline(text)
	default:
		return "stands in a column without a header; name the column or empty the cell"
	}
	return problem
}

// setTurn puts one cell into the turn that its column names. Turns before it that have no cell stay empty, which Catalogue.Parse
// finds.
func setTurn(m *schemas.Job, c column, cell string) {
	for len(m.Turns) < c.turn {
		m.Turns = append(m.Turns, &schemas.Job_Turn{})
	}
	if strings.HasSuffix(c.key, ".prompt") {
		m.Turns[c.turn-1].Prompt = cell
	} else {
		m.Turns[c.turn-1].Image = strings.TrimSpace(cell)
	}
}

func set(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

func mode(text string) (string, string) {
	switch m := jobs.Mode(strings.ToLower(text)); m {
	case jobs.Online, jobs.Batch, jobs.Auto:
		return string(m), ""
	default:
		return "", "is unknown; allowed: online, batch, auto"
	}
}

// timeOfDay is what spreadsheets make of an aspect ratio that is typed into a cell: 16:9 becomes 16:09 or 16:09:00.
var timeOfDay = regexp.MustCompile(`^0?(\d{1,2}) ?: ?0?(\d{1,2})(:00)?$`)

// ratio undoes what a spreadsheet did to an aspect ratio. Nothing else can have been meant: no ratio has leading zeros or
// a third part.
func ratio(text string) string {
	if m := timeOfDay.FindStringSubmatch(text); m != nil {
		return m[1] + ":" + m[2]
	}
	return text
}

// references splits a cell at each gs:// that stands behind a separator. Names of objects may hold separators themselves,
// so nothing else splits.
func references(text string) (uris []string) {
	const scheme, separators = "gs://", " \t\r\n,;|"
	begin := 0
	for at := 1; at < len(text); at++ {
		if strings.HasPrefix(text[at:], scheme) && strings.IndexByte(separators, text[at-1]) >= 0 {
			uris = append(uris, strings.Trim(text[begin:at], separators))
			begin = at
		}
	}
	return append(uris, strings.Trim(text[begin:], separators))
}

var digits = regexp.MustCompile(`^[0-9]+$`)

func seed(text string) (*int32, string) {
	const rule = "is not a seed; write a whole number from 0 to 2147483647 in digits only"
	if !digits.MatchString(text) {
		return nil, rule
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, rule
	}
	value := int32(n)
	return &value, ""
}

func variantCount(text string) (int, string) {
	n, err := strconv.Atoi(text)
	if err != nil || !digits.MatchString(text) || n < 1 || n > jobs.MaxVariants {
		return 1, fmt.Sprintf("is not a number of variants; write a whole number from 1 to %d in digits only", jobs.MaxVariants)
	}
	return n, ""
}

// deadlineForms are RFC 3339 and what people make of it; all of them need a zone.
var deadlineForms = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04 Z07:00"}

func deadline(text string) (rfc3339, problem string) {
	for _, form := range deadlineForms {
		if t, err := time.Parse(form, text); err == nil {
			return t.Format(time.RFC3339Nano), ""
		}
	}
	return "", "is not a time with a zone; write it as 2026-12-01T09:00:00Z or 2026-12-01 09:00+01:00"
}
