package vertex

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

func newFormat(t testing.TB) *BatchFormat {
	t.Helper()
	budget := blob.NewBudget(capacity)
	t.Cleanup(func() { checkFree(t, budget) })
	return NewBatchFormat(budget)
}

// batchJobs are jobs that have everything that a request may have.
func batchJobs(t testing.TB) map[string]*jobs.Job {
	t.Helper()
	seed := int32(0)
	all := map[string]*jobs.Job{}
	for name, m := range map[string]*schemas.Job{
		"everything": {
			Prompt: "p <&> \u2028 \"q\" \t ü 🚲", System: "s", Campaign: "c", Client: "acme", AspectRatio: "16:9", Seed: &seed, Labels: map[string]string{"sku": "1"},
			References: []string{"gs://bkt/a b.png", "gs://bkt/c.JPG"}, Safety: map[string]string{"hate": "off", "harassment": "block_none"},
		},
		"turns": {Prompt: "p", References: []string{"gs://bkt/o.webp"}, Turns: []*schemas.Job_Turn{
			{Prompt: "first", Image: "gs://bkt/1.png"}, {Prompt: "second", Image: "gs://bkt/2.jpeg"},
		}},
		"little, in a region, by a model of one size": {Prompt: "p", Model: "gemini-2.5-flash-image", Region: "europe-west4", References: []string{"gs://bkt/o.webp"}},
	} {
		m.Mode = "batch"
		all[name] = newJob(t, func(j *schemas.Job) { proto.Reset(j); proto.Merge(j, m) })
	}
	return all
}

// Whatever an online call sends, a row of a batch sends too, and nothing else but the row's labels.
func TestBatchLineIsTheOnlineRequest(t *testing.T) {
	t.Parallel()
	for name, job := range batchJobs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan seen, 1)
			if _, err := newOnline(t, serve(t, capturing(requests)), nil).Generate(t.Context(), callOf(job)); err != nil {
				t.Fatal(err)
			}
			line, _, err := newFormat(t).Line(job, "012", "345")
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
				t.Errorf("%q is not one line", line)
			}
			var row, want any
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte((<-requests).body), &want); err != nil {
				t.Fatal(err)
			}
			labels := want.(map[string]any)["labels"].(map[string]any)
			labels["row_hi"], labels["row_lo"] = "012", "345"
			if diff := cmp.Diff(map[string]any{"request": want}, row); diff != "" {
				t.Errorf("line (-online +batch):\n%s", diff)
			}
		})
	}
}

func TestBatchLineOfAnotherSize(t *testing.T) {
	t.Parallel()
	j := newJob(t, func(m *schemas.Job) { m.Size = "2K" })
	if _, _, err := newFormat(t).Line(j, "0", "1"); err == nil || !strings.Contains(err.Error(), "2K") {
		t.Errorf("error %v", err)
	}
}

func TestBatchLineHash(t *testing.T) {
	t.Parallel()
	f := newFormat(t)
	hash := func(edit func(*schemas.Job), hi, lo string) [32]byte {
		_, h, err := f.Line(newJob(t, edit), hi, lo)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	base := hash(nil, "000", "001")
	if base == ([32]byte{}) {
		t.Error("no hash")
	}
	if hash(nil, "000", "002") != base || hash(nil, "", "") != base || hash(func(m *schemas.Job) { m.Campaign = "other" }, "0", "0") != base {
		t.Error("the labels matter")
	}
	for name, edit := range map[string]func(*schemas.Job){
		"prompt": func(m *schemas.Job) { m.Prompt += "." },
		"seed":   func(m *schemas.Job) { m.Seed = new(int32) },
		"ratio":  func(m *schemas.Job) { m.AspectRatio = "16:9" },
		"system": func(m *schemas.Job) { m.System = "s" },
		"safety": func(m *schemas.Job) { m.Safety = map[string]string{"hate": "off"} },
		"images": func(m *schemas.Job) { m.References = []string{"gs://bkt/1.png"} },
	} {
		if hash(edit, "000", "001") == base {
			t.Errorf("the %s does not matter", name)
		}
	}
}

func TestRequestHash(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, a, b string
		equal      bool
	}{
		{"order of keys", `{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`, true},
		{"white space", `{"a":[1,2]}`, "\t{ \"a\" : [ 1 ,\r\n2 ] } ", true},
		{"nulls", `{"a":1,"b":{"c":2}}`, `{"a":1,"z":null,"b":{"c":2,"y":null},"x":{"w":null}}`, true},
		{"empty containers", `{"a":1}`, `{"a":1,"b":{},"c":[],"d":{"e":{"f":[]}}}`, true},
		{"order of items", `{"a":[1,2]}`, `{"a":[2,1]}`, false},
		{"nulls in arrays keep their place", `{"a":[1,null]}`, `{"a":[1]}`, false},
		{"empty objects in arrays", `{"a":[{},1]}`, `{"a":[{"b":null},1]}`, true},
		{"numbers", `{"a":1,"b":1500,"c":0,"d":-0.25,"e":0}`, `{"a":1.0,"b":1.5e3,"c":-0,"d":-25E-2,"e":0.00e9}`, true},
		{"large numbers", `{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		{"sign", `{"a":-1}`, `{"a":1}`, false},
		{"number and text", `{"a":1}`, `{"a":"1"}`, false},
		{"bool and text", `{"a":true}`, `{"a":"true"}`, false},
		{"false is something", `{"a":1,"b":false}`, `{"a":1}`, false},
		{"empty text is something", `{"a":1,"b":""}`, `{"a":1}`, false},
		{"escapes", `{"a":"ü/<🚲\n"}`, `{"\u0061":"\u00fc\/\u003c\ud83d\udeb2\u000a"}`, true},
		{"labels", `{"a":1}`, `{"labels":{"row_hi":"1","campaign":"c"},"a":1}`, true},
		{"labels elsewhere", `{"a":{"labels":{"x":"1"}}}`, `{"a":{}}`, false},
		{"a key twice", `{"a":2}`, `{"a":1,"a":2}`, true},
		{"a key twice, gone", `{"b":2}`, `{"b":2,"a":1,"a":null}`, true},
		{"keys and values don't run together", `{"ab":"c"}`, `{"a":"bc"}`, false},
		{"nesting", `{"a":[[1],2]}`, `{"a":[[1,2]]}`, false},
		{"nothing", `{}`, `{"labels":{"a":"b"},"c":null}`, true},
	}
	for _, test := range tests {
		a, errA := requestHash([]byte(test.a))
		b, errB := requestHash([]byte(test.b))
		if errA != nil || errB != nil || (a == b) != test.equal {
			t.Errorf("%s: equal %v, want %v (%v, %v)", test.name, a == b, test.equal, errA, errB)
		}
	}
	for _, bad := range []string{"", "{", `{"a"`, `{"a":tru}`, strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)} {
		if _, err := requestHash([]byte(bad)); err == nil {
			t.Errorf("%.20q has a hash", bad)
		}
	}
}

// referenceHash is requestHash over a tree that encoding/json made.
func referenceHash(request []byte) ([32]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(request))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return [32]byte{}, false
	}
	if m, ok := tree.(map[string]any); ok {
		delete(m, "labels")
	}
	text, ok := referenceText(tree)
	if !ok {
		return [32]byte{}, true
	}
	return sha256.Sum256([]byte(text)), true
}

// referenceText spells a value in one way.
func referenceText(v any) (string, bool) {
	switch v := v.(type) {
	case map[string]any:
		var all []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if text, ok := referenceText(v[k]); ok {
				all = append(all, fmt.Sprintf("%q:%s", k, text))
			}
		}
		return "{" + strings.Join(all, ",") + "}", len(all) > 0
	case []any:
		var all []string
		for _, item := range v {
			text, ok := referenceText(item)
			if !ok {
				text = "null"
			}
			all = append(all, text)
		}
		return "[" + strings.Join(all, ",") + "]", len(all) > 0
	case json.Number:
		return normalNumber(string(v)), true
	case nil:
		return "", false
	default:
		return fmt.Sprintf("%q", fmt.Sprintf("%T %v", v, v)), true
	}
}

// FuzzRequestHash checks that two requests have the same hash if and only if encoding/json makes the same tree of both.
func FuzzRequestHash(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"labels":{}}`, `{"a":"\u00fc","b":1e2}`, `{"c":{},"d":[null]}`, `[[[]]]`, `1`} {
		f.Add([]byte(s), []byte(`{"d":[{}],"a":100}`))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if max(bytes.Count(a, []byte("[")), bytes.Count(b, []byte("["))) > 40 || max(bytes.Count(a, []byte("{")), bytes.Count(b, []byte("{"))) > 40 {
			t.Skip()
		}
		hashA, errA := requestHash(a)
		hashB, errB := requestHash(b)
		wantA, okA := referenceHash(a)
		wantB, okB := referenceHash(b)
		if okA && errA != nil || okB && errB != nil {
			t.Fatalf("encoding/json reads it: %v, %v", errA, errB)
		}
		if okA && okB && (hashA == hashB) != (wantA == wantB) {
			t.Fatalf("%q and %q: the same %v, want %v", a, b, hashA == hashB, wantA == wantB)
		}
	})
}

// FuzzNormalNumber checks that numbers are the same if and only if they are written the same way.
func FuzzNormalNumber(f *testing.F) {
	for _, s := range []string{"0", "-0.0e5", "1", "10e-1", "0.001", "1E3", "123.4500"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n json.Number
		if json.Unmarshal([]byte(s), &n) != nil || len(s) > 18 || string(n) != s {
			t.Skip()
		}
		normal := normalNumber(s)
		if again := normalNumber(normal); again != normal {
			t.Fatalf("%s becomes %s becomes %s", s, normal, again)
		}
		want, err := n.Float64()
		if err != nil {
			t.Skip()
		}
		if got, err := json.Number(normal).Float64(); err != nil || got != want && !(got == 0 && want == 0) {
			t.Fatalf("%s becomes %s: %v, want %v, %v", s, normal, got, want, err)
		}
	})
}
