package lineage

import "testing"

func TestReadsOnly(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		"SELECT 1":             true,
		" \n select 1 ; \n":    true,
		"(SELECT 1)":           true,
		"FROM x |> SELECT a":   true,
		"-- why\nWITH x AS ()": true,
		"# why\n/* a;b */ SELECT ';' , \"\"\"a\"b;c\"\"\", '''d'e;''', `f;g`, 'it\\'s;' FROM t": true,
		"SELECT r'\\';' FROM t -- ; DROP TABLE t":                                               true,
		"":                                      false,
		"-- SELECT 1":                           false,
		"DELETE FROM t WHERE TRUE":              false,
		"SELECT 1; DROP TABLE t":                false,
		"SELECT '\\'; ' ; DROP TABLE t":         false,
		"SELECT 1 /* ; */; -- x\nDROP TABLE t":  false,
		"SELECT 'a''b'; TRUNCATE TABLE t":       false,
		"selection":                             false,
		"BEGIN SELECT 1; END":                   false,
		"EXPORT DATA OPTIONS() AS SELECT 1":     false,
		"CREATE TABLE x AS SELECT 1":            false,
		"/* SELECT 1 */ INSERT INTO t SELECT 1": false,
		"SELECT 'unterminated; DROP TABLE t":    true, // no statement at all; BigQuery says so
	} {
		if got := readsOnly(sql); got != want {
			t.Errorf("%q: %v", sql, got)
		}
	}
}
