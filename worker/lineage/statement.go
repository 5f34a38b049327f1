package lineage

import (
	"strings"
	"unicode"
)

// readsOnly reports whether SQL is a single statement that begins as a query does. It is the first of two gates: BigQuery's
// dry run names the statement's type, which can't be deceived, but the emulator's dry run carries statements out.
func readsOnly(sql string) bool {
	code := withoutText(sql)
	statement, rest, _ := strings.Cut(code, ";")
	if strings.TrimSpace(rest) != "" {
		return false
	}
	statement = strings.TrimLeftFunc(statement, func(r rune) bool { return unicode.IsSpace(r) || r == '(' })
	end := strings.IndexFunc(statement, func(r rune) bool { return !unicode.IsLetter(r) })
	if end < 0 {
		end = len(statement)
	}
	switch strings.ToUpper(statement[:end]) {
	case "SELECT", "WITH", "FROM":
		return true
	}
	return false
}

// withoutText returns GoogleSQL without its comments, and with a space for every string and quoted name.
func withoutText(sql string) string {
	var b strings.Builder
	for sql != "" {
		skip := 0
		switch {
		case strings.HasPrefix(sql, "--"), sql[0] == '#':
			skip = until(sql, "\n", 1)
		case strings.HasPrefix(sql, "/*"):
			skip = until(sql, "*/", 2)
		case strings.HasPrefix(sql, `"""`), strings.HasPrefix(sql, "'''"):
			skip = quoted(sql, sql[:3])
		case sql[0] == '"', sql[0] == '\'', sql[0] == '`':
			skip = quoted(sql, sql[:1])
		}
		if skip == 0 {
			b.WriteByte(sql[0])
			sql = sql[1:]
			continue
		}
		b.WriteByte(' ')
		sql = sql[skip:]
	}
	return b.String()
}

// until returns the length of the text up to and with the end mark, which is looked for after the first bytes.
func until(text, end string, after int) int {
	if at := strings.Index(text[after:], end); at >= 0 {
		return after + at + len(end)
	}
	return len(text)
}

// quoted returns the length of the string at the beginning of the text. A backslash takes the next byte with it, in raw
// strings too.
func quoted(text, mark string) int {
	for i := len(mark); i < len(text); i++ {
		if text[i] == '\\' {
			i++
		} else if strings.HasPrefix(text[i:], mark) {
			return i + len(mark)
		}
	}
	return len(text)
}
