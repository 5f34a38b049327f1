package vertex

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
)

// FuzzRows reads any file, whole and in parts. The lines must be those that a split at newlines yields, the parts must add up, and a line is
// damaged if and only if encoding/json does not read a row from it.
func FuzzRows(f *testing.F) {
	img := `{"inlineData":{"data":"iVBORw0KGgo=","mimeType":"image/png"}}`
	for _, s := range []string{
		partsFile,
		`{"status":"","request":{"contents":[{"role":"user","parts":[{"text":"p"}]}],"labels":{"row_hi":"1","row_lo":"2"}},"response":` + candidate("STOP", "", img) + "}\n",
		`{"response":` + candidate("STOP", "", thought(img), img) + `,"request":{"labels":{"row_hi":"1"}}}` + "\r\n\r\n" + `{"status":"Bad Request: {\"error\":{\"code\":400}}","response":{}}`,
		`{"status":{"code":8},"response":null}` + "\n" + `{"response":{"candidates":[null]},"request":null}` + "\n[1]\nx\n\"\n",
		`{"response":{"candidates":[{"content":{"parts":[{"inlineData":{"data":"!"}},{"inlineData":{"data":"` + strings.Repeat("QUJD", 2*stepSize/4) + `\/"}}]}}]}}` + "\n{",
	} {
		f.Add([]byte(s), uint64(1), uint16(7))
	}
	f.Fuzz(func(t *testing.T, file []byte, seed uint64, part uint16) {
		if bytes.Count(file, []byte("["))+bytes.Count(file, []byte("{")) > 500 {
			t.Skip() // nested too deep, for one of the two
		}
		format := NewBatchFormat(blob.NewBudget(capacity))
		size := int64(len(file))
		whole := readRows(t, format, bytes.NewReader(file), 0, max(size, 1))
		rnd := rand.New(rand.NewPCG(seed, 0))
		var parts []rowResult
		step := max(int64(part)+1, size/8) // each part takes a buffer
		for at := int64(0); at < size; at += step {
			parts = append(parts, readRows(t, format, torn{bytes.NewReader(file[at:]), rnd}, at, min(step, size-at))...)
		}
		if len(parts) != len(whole) {
			t.Fatalf("%d rows in parts, %d in one", len(parts), len(whole))
		}
		n := 0
		place := int64(0)
		for line := range bytes.SplitSeq(file, []byte("\n")) {
			if len(bytes.Trim(line, " \t\r")) > 0 {
				if n == len(whole) {
					t.Fatalf("line at %d is no row", place)
				}
				checkFuzzed(t, whole[n], parts[n], place, line)
				n++
			}
			place += int64(len(line)) + 1
		}
		if n != len(whole) {
			t.Fatalf("%d rows of %d lines", len(whole), n)
		}
		if u := format.budget.Usage(); u.Reserved != 0 {
			t.Fatalf("%d bytes of the budget are still held", u.Reserved)
		}
	})
}

// checkFuzzed compares a row, read in two ways, with what encoding/json makes of its line.
func checkFuzzed(t *testing.T, got, torn rowResult, place int64, line []byte) {
	t.Helper()
	if got.Offset != place || got.Length != int64(len(line)) || torn.Offset != place || torn.Length != int64(len(line)) {
		t.Fatalf("row at %d of %d bytes, and at %d of %d; want %d of %d", got.Offset, got.Length, torn.Offset, torn.Length, place, len(line))
	}
	if got.Hash != torn.Hash || got.Hi != torn.Hi || (got.Damaged == nil) != (torn.Damaged == nil) || !bytes.Equal(got.image, torn.image) {
		t.Fatalf("the pieces matter: %+v and %+v", got, torn)
	}
	// encoding/json takes keys for equal that differ in case; a map does not.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
		if got.Damaged == nil {
			t.Fatalf("encoding/json refuses it: %v: %s", err, line)
		}
		return
	}
	if got.Damaged != nil {
		checkDamage(t, got, fields)
		return
	}
	if want, ok := referenceHash(fields["request"]); fields["request"] != nil && (!ok || (want == [32]byte{}) != (got.Hash == [32]byte{})) {
		t.Fatalf("hash %x, want one: %v", got.Hash, ok)
	}
	if got.Answer != nil && got.Answer.Reason == jobs.ReasonImage && !bytes.HasPrefix(got.image, []byte("\x89PNG")) && !bytes.HasPrefix(got.image, []byte("\xff\xd8")) && !bytes.HasPrefix(got.image, []byte("RIFF")) {
		t.Fatalf("an image of %q", got.image)
	}
}

// checkDamage checks that a line of good JSON is called damaged for a reason: base64 that is none, or a response of another shape.
func checkDamage(t *testing.T, got rowResult, fields map[string]json.RawMessage) {
	t.Helper()
	text := got.Damaged.Error()
	switch {
	case strings.Contains(text, "decode"):
		if _, err := readResponse(fields["response"]); err == nil {
			t.Fatalf("encoding/json decodes the response: %v", got.Damaged)
		}
	case strings.Contains(text, "base64"):
		var response any
		_ = json.Unmarshal(fields["response"], &response)
		// Of two equal keys encoding/json shows the last, and any of them may be the bad one.
		if all, good := base64Texts(response); good && all == bytes.Count(fields["response"], []byte("data\"")) {
			t.Fatalf("%d images are base64: %s", all, fields["response"])
		}
	default:
		t.Fatalf("encoding/json reads it: %v", got.Damaged)
	}
}

// base64Texts counts the images of a document, and reports whether all are base64.
func base64Texts(v any) (n int, good bool) {
	good = true
	add := func(v any) {
		m, g := base64Texts(v)
		n, good = n+m, good && g
	}
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			add(item)
		}
	case map[string]any:
		for k, item := range v {
			inline, _ := item.(map[string]any)
			if data, ok := inline["data"].(string); ok && keyOf(k) == inlineDataKey {
				_, err := reference(data)
				n, good = n+1, good && err == nil
			}
			add(item)
		}
	}
	return n, good
}
