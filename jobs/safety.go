package jobs

import (
	"maps"
	"slices"
	"strings"
)

// SafetySetting is one harm category and its threshold, both in Vertex's names.
type SafetySetting struct {
	Category  string
	Threshold string
}

// categories maps the names that people write to Vertex's. These four are the ones that Vertex lets callers set.
var categories = map[string]string{
	"hate":       "HARM_CATEGORY_HATE_SPEECH",
	"dangerous":  "HARM_CATEGORY_DANGEROUS_CONTENT",
	"harassment": "HARM_CATEGORY_HARASSMENT",
	"sexual":     "HARM_CATEGORY_SEXUALLY_EXPLICIT",
}

var thresholds = map[string]string{
	"low":    "BLOCK_LOW_AND_ABOVE",
	"medium": "BLOCK_MEDIUM_AND_ABOVE",
	"high":   "BLOCK_ONLY_HIGH",
	"none":   "BLOCK_NONE",
	"off":    "OFF",
}

const (
	allowedCategories = "hate, dangerous, harassment, sexual, or Vertex's names such as HARM_CATEGORY_HATE_SPEECH"
	allowedThresholds = "low, medium, high, none, off, or Vertex's names such as BLOCK_MEDIUM_AND_ABOVE"
)

// longName returns Vertex's name for a short form or for Vertex's name itself, case and surrounding space forgiven.
func longName(names map[string]string, text string) (string, bool) {
	text = strings.TrimSpace(text)
	if long, ok := names[strings.ToLower(text)]; ok {
		return long, true
	}
	for long := range maps.Values(names) {
		if strings.EqualFold(long, text) {
			return long, true
		}
	}
	return "", false
}

// ParseSafety reads what people write in one cell: `hate=low; sexual=off`, or one threshold for all four categories. The
// result is for schemas.Job.safety, whose names are checked by [Catalogue.Parse].
func ParseSafety(text string) map[string]string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	settings := map[string]string{}
	if !strings.ContainsAny(text, "=:") {
		for category := range categories {
			settings[category] = strings.TrimSpace(text)
		}
		return settings
	}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == ',' || r == '|' }) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		at := strings.IndexAny(part, "=:")
		if at < 0 {
			at = len(part)
			part += "="
		}
		settings[strings.TrimSpace(part[:at])] = strings.TrimSpace(part[at+1:])
	}
	return settings
}

// safetySettings resolves a job's safety map into Vertex's names, sorted by category.
func safetySettings(m map[string]string, problems *Problems) []SafetySetting {
	byCategory := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		category, ok := longName(categories, key)
		if !ok {
			problems.add("safety", key, "is not a harm category; allowed: "+allowedCategories)
			continue
		}
		threshold, ok := longName(thresholds, m[key])
		if !ok {
			problems.add("safety", m[key], "is not a threshold for "+key+"; allowed: "+allowedThresholds)
			continue
		}
		if was, ok := byCategory[category]; ok && was != threshold {
			problems.add("safety", key, "is given twice with different thresholds")
			continue
		}
		byCategory[category] = threshold
	}
	var all []SafetySetting
	for _, c := range slices.Sorted(maps.Keys(byCategory)) {
		all = append(all, SafetySetting{c, byCategory[c]})
	}
	return all
}
