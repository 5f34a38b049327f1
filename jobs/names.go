package jobs

import "strings"

const (
	// IDRule is what ids must be, as the end of a sentence.
	IDRule    = "may hold only a-z, 0-9 and -, 1 to 63 of them, and begins and ends with a letter or digit"
	nameRule  = "may hold only a-z, 0-9, _ and -, 1 to 63 of them, and begins with a letter or digit"
	labelRule = "as a label's name may hold only a-z, 0-9, _ and -, 1 to 63 of them, and begins with a letter"
)

func alphanumeric(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' }

// ValidID reports whether text can be the id of a job or a submission. Ids become parts of object names, so slashes, dots
// and `..` are out.
func ValidID(text string) bool {
	if len(text) == 0 || len(text) > MaxNameBytes || !alphanumeric(text[0]) || !alphanumeric(text[len(text)-1]) {
		return false
	}
	for i := range len(text) {
		if !alphanumeric(text[i]) && text[i] != '-' {
			return false
		}
	}
	return true
}

// validName reports whether text can be a campaign, a client or a label: what Google Cloud takes as a label.
func validName(text string) bool {
	if len(text) == 0 || len(text) > MaxNameBytes || !alphanumeric(text[0]) {
		return false
	}
	for i := range len(text) {
		if !alphanumeric(text[i]) && text[i] != '-' && text[i] != '_' {
			return false
		}
	}
	return true
}

// suggestion proposes the nearest valid name, as the end of a sentence, or nothing when there is none.
func suggestion(text string) string {
	near := strings.Map(func(r rune) rune {
		switch {
		case r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z':
			return r
		default:
			return '-'
		}
	}, strings.ToLower(text))
	for strings.Contains(near, "--") {
		near = strings.ReplaceAll(near, "--", "-")
	}
	near = strings.Trim(near, "-_")
	if len(near) > MaxNameBytes {
		near = strings.Trim(near[:MaxNameBytes], "-_")
	}
	if !validName(near) {
		return ""
	}
	return "; try " + near
}
