package doctor

import (
	"strings"
)

// definitionDrift returns in what a schema's definition differs from what it should be, by statements: fields, messages, the package.
// Comments and white space don't count. Without a difference it returns nothing.
func definitionDrift(want, have string) []string {
	wanted, given := statements(want), statements(have)
	count := map[string]int{}
	for _, s := range given {
		count[s]++
	}
	delete(count, "}") // which says nothing by itself
	var drift []string
	for _, s := range wanted {
		if s == "}" {
			continue
		}
		if count[s]--; count[s] < 0 {
			drift = append(drift, "it lacks `"+s+"`")
		}
	}
	for _, s := range given {
		if count[s] > 0 {
			count[s] = 0
			drift = append(drift, "it has `"+s+"`")
		}
	}
	if len(drift) == 0 && strings.Join(wanted, "\n") != strings.Join(given, "\n") {
		drift = append(drift, "its statements are in another order")
	}
	return drift
}

// statements takes a definition in protobuf's language apart, without comments and semicolons, each statement on one line.
func statements(definition string) []string {
	var all []string
	var b strings.Builder
	end := func() {
		if s := strings.Join(strings.Fields(b.String()), " "); s != "" {
			all = append(all, s)
		}
		b.Reset()
	}
	for text := definition; text != ""; {
		skip, keep := 1, text[:1]
		switch {
		case strings.HasPrefix(text, "//"):
			skip, keep = lengthTo(text, "\n"), " "
		case strings.HasPrefix(text, "/*"):
			skip, keep = lengthTo(text, "*/"), " "
		case text[0] == '"' || text[0] == '\'':
			skip = 1 + lengthTo(text[1:], text[:1])
			keep = text[:skip]
		}
		switch keep {
		case ";":
			end()
		case "{", "}":
			b.WriteString(" " + keep)
			end()
		case "=":
			b.WriteString(" = ") // however it was spaced
		default:
			b.WriteString(keep)
		}
		text = text[skip:]
	}
	end()
	return all
}

// lengthTo returns the length of the text up to and with a mark, or of all of it.
func lengthTo(text, mark string) int {
	if at := strings.Index(text, mark); at >= 0 {
		return at + len(mark)
	}
	return len(text)
}
