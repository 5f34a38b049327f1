package vertex

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// recorder is a sink that keeps every image.
type recorder struct {
	decoder decoder
	images  []*bytes.Buffer
	parts   []bool
}

func (r *recorder) begin() error {
	r.images = append(r.images, new(bytes.Buffer))
	r.decoder.reset(r.images[len(r.images)-1])
	return nil
}
func (r *recorder) Write(p []byte) (int, error) { return r.decoder.Write(p) }
func (r *recorder) end() (string, error)        { return placeholder(len(r.images)), r.decoder.Close() }
func (r *recorder) part(thought bool)           { r.parts = append(r.parts, thought) }

// scan runs a document through a scanner, in the pieces that r reads it in.
func scan(r io.Reader) (*recorder, []byte, error) {
	rec := &recorder{}
	s := &scanner{sink: rec}
	// Not io.Copy, which would hand the document over in one piece.
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if _, err := s.Write(buf[:n]); err != nil {
			return rec, nil, err
		}
		if err == io.EOF {
			return rec, s.remainder, s.Close()
		}
		if err != nil {
			return rec, nil, err
		}
	}
}

// torn reads in pieces of random length.
type torn struct {
	r   io.Reader
	rnd *rand.Rand
}

func (t torn) Read(p []byte) (int, error) {
	return t.r.Read(p[:1+t.rnd.IntN(min(len(p), 100))])
}

func TestScanner(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x00\xff\x10pixel", 5000) // base64 has + and / in it
	b64 := base64.StdEncoding.EncodeToString([]byte(long))
	tests := []struct {
		name, doc, remainder string
		images               []string
		parts                []bool
	}{
		{"no image", `{"a": [1, -2.5e3, true, null, "x\"}{"]}`, `{"a": [1, -2.5e3, true, null, "x\"}{"]}`, nil, nil},
		{"image", `{"inlineData":{"mimeType":"image/png","data":"aGk="}}`, `{"inlineData":{"mimeType":"image/png","data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"data first", "{ \"inlineData\" :\n{ \"data\"\t: \"aGk=\" , \"mimeType\" : \"image/png\" } }", "{ \"inlineData\" :\n{ \"data\"\t: \"$1\" , \"mimeType\" : \"image/png\" } }", []string{"hi"}, []bool{false}},
		{"snake case", `{"inline_data":{"data":"aGk="}}`, `{"inline_data":{"data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"escaped keys", `{"inline\u0044ata":{"d\u0061ta":"aGk="}}`, `{"inline\u0044ata":{"d\u0061ta":"$1"}}`, []string{"hi"}, []bool{false}},
		{"data elsewhere", `{"data":"aGk=","other":{"data":"aGk="},"inlineData":[{"data":"aGk="}],"x":{"inlineData":"data"}}`,
			`{"data":"aGk=","other":{"data":"aGk="},"inlineData":[{"data":"aGk="}],"x":{"inlineData":"data"}}`, nil, nil},
		{"values that are no strings", `{"inlineData":{"data":null,"x":{"data":"aGk="}}}`, `{"inlineData":{"data":null,"x":{"data":"aGk="}}}`, nil, nil},
		{"escaped slash", `{"inlineData":{"data":"\/\/8="}}`, `{"inlineData":{"data":"$1"}}`, []string{"\xff\xff"}, []bool{false}},
		{"unicode escapes", `{"inlineData":{"data":"\u0061\u0047\u006b\u003D"}}`, `{"inlineData":{"data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"line breaks", `{"inlineData":{"data":"aG\r\nk\u000a=\t"}}`, `{"inlineData":{"data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"spaces", `{"inlineData":{"data":" a Gk = "}}`, `{"inlineData":{"data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"URL alphabet", `{"inlineData":{"data":"__8="}}`, `{"inlineData":{"data":"$1"}}`, []string{"\xff\xff"}, []bool{false}},
		{"no padding", `{"inlineData":{"data":"aGk"}}`, `{"inlineData":{"data":"$1"}}`, []string{"hi"}, []bool{false}},
		{"empty", `{"inlineData":{"data":""}}`, `{"inlineData":{"data":"$1"}}`, []string{""}, []bool{false}},
		{"long", `{"inlineData":{"data":"` + b64 + `"}}`, `{"inlineData":{"data":"$1"}}`, []string{long}, []bool{false}},
		{"long with escapes", `{"inlineData":{"data":"` + strings.ReplaceAll(b64, "/", `\/`) + `"}}`, `{"inlineData":{"data":"$1"}}`, []string{long}, []bool{false}},
		{"long in lines", `{"inlineData":{"data":"` + wrap(b64) + `"}}`, `{"inlineData":{"data":"$1"}}`, []string{long}, []bool{false}},
		{"long, URL alphabet", `{"inlineData":{"data":"` + base64.RawURLEncoding.EncodeToString([]byte(long)) + `"}}`, `{"inlineData":{"data":"$1"}}`, []string{long}, []bool{false}},
		{"signature", `{"thoughtSignature":"QUJD\n\u0041","thought_signature":"x","y":"z"}`, `{"thoughtSignature":"","thought_signature":"","y":"z"}`, nil, nil},
		{"parts", `[{"thought":true,"inlineData":{"data":"YQ=="}},{"inlineData":{"data":"Yg=="},"thought": true},{"inlineData":{"data":"Yw=="},"thought":false},{"thought":true,"text":"t"},{"thought":true,"thought":false,"inlineData":{"data":"ZA=="}}]`,
			`[{"thought":true,"inlineData":{"data":"$1"}},{"inlineData":{"data":"$2"},"thought": true},{"inlineData":{"data":"$3"},"thought":false},{"thought":true,"text":"t"},{"thought":true,"thought":false,"inlineData":{"data":"$4"}}]`,
			[]string{"a", "b", "c", "d"}, []bool{true, true, false, false}},
		{"data twice", `{"inlineData":{"data":"YQ==","data":"Yg=="}}`, `{"inlineData":{"data":"$1","data":"$2"}}`, []string{"a", "b"}, []bool{false}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := test.remainder
			for i := range test.images {
				want = strings.ReplaceAll(want, fmt.Sprintf("$%d", i+1), base64.StdEncoding.EncodeToString([]byte(placeholder(i+1))))
			}
			for name, r := range readers(test.doc) {
				rec, remainder, err := scan(r)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(want, string(remainder)); diff != "" {
					t.Errorf("%s: remainder (-want +got):\n%s", name, diff)
				}
				var images []string
				for _, b := range rec.images {
					images = append(images, b.String())
				}
				if !cmp.Equal(test.images, images) {
					t.Errorf("%s: %d images, or their bytes, differ from the %d wanted", name, len(images), len(test.images))
				}
				if diff := cmp.Diff(test.parts, rec.parts); diff != "" {
					t.Errorf("%s: parts (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// readers are ways in which a document may arrive.
func readers(doc string) map[string]io.Reader {
	all := map[string]io.Reader{
		"whole":   strings.NewReader(doc),
		"bytes":   iotest.OneByteReader(strings.NewReader(doc)),
		"halves":  iotest.HalfReader(strings.NewReader(doc)),
		"dataerr": iotest.DataErrReader(strings.NewReader(doc)),
	}
	for seed := range uint64(3) {
		all[fmt.Sprint("torn ", seed)] = torn{strings.NewReader(doc), rand.New(rand.NewPCG(seed, 0))}
	}
	return all
}

// wrap breaks base64 into lines as MIME does.
func wrap(b64 string) string {
	var lines []string
	for ; len(b64) > 76; b64 = b64[76:] {
		lines = append(lines, b64[:76])
	}
	return strings.Join(append(lines, b64), `\r\n`)
}

func TestScannerCutsEverywhere(t *testing.T) {
	t.Parallel()
	const doc = `{"candidates":[{"content":{"parts":[{"thoughtSignature":"QUJD","inlineData":{"data":"aGVs\/bG8\u0068GVs","mimeType":"image\/png"}}]}}]}`
	_, want, err := scan(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(doc) {
		// In two pieces it is the same document; without the second it is none.
		rec, got, err := scan(io.MultiReader(strings.NewReader(doc[:i]), strings.NewReader(doc[i:])))
		if err != nil || !bytes.Equal(want, got) || rec.images[0].Len() != 9 {
			t.Fatalf("torn at %d: %v, remainder %s", i, err, got)
		}
		if _, _, err := scan(strings.NewReader(doc[:i])); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
}

func TestScannerErrors(t *testing.T) {
	t.Parallel()
	image := func(data string) string { return `{"inlineData":{"data":"` + data + `"}}` }
	tests := []struct {
		name, doc string
		want      error
	}{
		{"nothing", "", io.ErrUnexpectedEOF},
		{"open object", `{"a":1`, io.ErrUnexpectedEOF},
		{"open string", `{"a":"b`, io.ErrUnexpectedEOF},
		{"open image", `{"inlineData":{"data":"aGk=`, io.ErrUnexpectedEOF},
		{"bracket that closes nothing", `]`, errMalformed},
		{"wrong bracket", `{"a":[}`, errMalformed},
		{"too deep", strings.Repeat("[", maxDepth+1), errMalformed},
		{"not base64", image("aGk*"), errNotBase64},
		{"one character over", image("aGk=a"), errNotBase64},
		{"one character", image("a"), errNotBase64},
		{"half padding", image("aG="), errNotBase64},
		{"more after padding", image("aGk=aGk="), errNotBase64},
		{"padding within, far apart", image("aGk=" + strings.Repeat("AAAA", 5000)), errNotBase64},
		{"only padding", image("===="), errNotBase64},
		{"line break that is not escaped", image("aG\nk="), errNotBase64},
		{"line break that is not escaped, long", image(strings.Repeat("AAAA", 2000) + "\n" + strings.Repeat("AAAA", 2000)), errNotBase64},
		{"tab that is not escaped", image("aG\tk="), errNotBase64},
		{"not ASCII", image("aGké"), errNotBase64},
		{"not ASCII, escaped", image(`aGk\u00e9`), errNotBase64},
		{"unknown escape", image(`aGk\x3d`), errMalformed},
		{"bad \\u", image(`aGk\u00 d`), errMalformed},
		{"bad \\u, punctuation", image(`aGk\u00!d`), errMalformed},
		{"control character in a signature", "{\"thoughtSignature\":\"a\nb\"}", errMalformed},
		{"bad escape in a signature", `{"thoughtSignature":"\q"}`, errMalformed},
		{"large remainder", `{"text":"` + strings.Repeat("x", maxRemainder) + `"}`, errRemainderTooLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for name, r := range readers(test.doc) {
				if _, _, err := scan(r); !errors.Is(err, test.want) {
					t.Errorf("%s: error %v, want %v", name, err, test.want)
				}
			}
		})
	}
}

func TestScannerDropsLargeSignatures(t *testing.T) {
	t.Parallel()
	doc := `{"thoughtSignature":"` + strings.Repeat("QUJD", maxRemainder) + `"}`
	_, remainder, err := scan(strings.NewReader(doc))
	if err != nil || string(remainder) != `{"thoughtSignature":""}` {
		t.Errorf("remainder of %d bytes, error %v", len(remainder), err)
	}
}

// FuzzScanner compares the scanner with encoding/json. Whatever encoding/json reads, the scanner must read alike: the same
// document but for images and signatures, and the same bytes for each image. What it refuses must not pass both the
// scanner and the parser of the remainder.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{"candidates":[{"content":{"parts":[{"inlineData":{"data":"aGVsbG8=","mimeType":"image/png"}}]},"finishReason":"STOP"}]}`,
		`{"inline_data":{"data":"\/\u002f8=","data":"YQ"},"thoughtSignature":"QQ==\n"}`,
		`[{"thought":true,"inlineData":{"data":"__8"}},{"inline\u0044ata":{"data":"a G\r\nk="}},1.5e3,"\"}"]`,
		`{"inlineData":{"data":"` + strings.Repeat("AAAABBBB+/+/", 400) + `"}}`,
		`{"inlineData":{"data":null,"data":{"inlineData":{"data":"YQ=="}}}}`,
		`{}{"inlineData":{"data":"YQ=="}}`, `{"inlineData":{"data":"a` + "\n" + `"}}`, "{\"inlineData\":{\"data\":\"\xff\"}}",
	} {
		f.Add([]byte(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) {
		if len(doc) > maxRemainder || bytes.Count(doc, []byte("[{"))+bytes.Count(doc, []byte("{")) > 1000 {
			t.Skip()
		}
		rec, remainder, err := scan(bytes.NewReader(doc))
		torn, tornRemainder, tornErr := scan(torn{bytes.NewReader(doc), rand.New(rand.NewPCG(seed, 0))})
		if (err == nil) != (tornErr == nil) || !bytes.Equal(remainder, tornRemainder) {
			t.Fatalf("the pieces matter: %v and %v, %q and %q", err, tornErr, remainder, tornRemainder)
		}
		for i := range rec.images {
			if err == nil && !bytes.Equal(rec.images[i].Bytes(), torn.images[i].Bytes()) {
				t.Fatalf("the pieces matter for image %d", i)
			}
		}
		var want, got any
		wantErr := json.Unmarshal(doc, &want)
		if err == nil {
			err = json.Unmarshal(remainder, &got)
		}
		if wantErr != nil {
			if err == nil {
				t.Fatalf("encoding/json refuses it: %v", wantErr)
			}
			return
		}
		images, ok := expect(want, got, rec.images)
		if errors.Is(err, errMalformed) && strings.Contains(err.Error(), "nested") || errors.Is(err, errRemainderTooLarge) {
			return
		}
		if err != nil {
			// encoding/json has no opinion on base64 in a value of type any, nor on duplicate keys, of which it shows the last.
			if !errors.Is(err, errNotBase64) {
				t.Fatalf("encoding/json reads it: %v", err)
			}
			return
		}
		if !ok {
			t.Fatalf("wrong image among %d", images)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("remainder (-want +got):\n%s", diff)
		}
	})
}

// expect walks the original document beside the remainder, checks each image against its placeholder, and makes the
// original what the remainder should be.
func expect(want, got any, images []*bytes.Buffer) (n int, ok bool) {
	ok = true
	switch w := want.(type) {
	case []any:
		g, _ := got.([]any)
		for i := range w {
			if i < len(g) {
				m, o := expect(w[i], g[i], images)
				n, ok = n+m, ok && o
			}
		}
	case map[string]any:
		g, _ := got.(map[string]any)
		for k := range w {
			m, o := expect(w[k], g[k], images)
			n, ok = n+m, ok && o
			if _, isText := w[k].(string); isText && keyOf(k) == signatureKey {
				w[k] = ""
			}
			inline, _ := w[k].(map[string]any)
			data, isText := inline["data"].(string)
			if keyOf(k) != inlineDataKey || !isText {
				continue
			}
			n++
			gi, _ := g[k].(map[string]any)
			name, _ := gi["data"].(string)
			for i, image := range images {
				if name == base64.StdEncoding.EncodeToString([]byte(placeholder(i+1))) {
					bytesWanted, err := reference(data)
					ok = ok && err == nil && bytes.Equal(bytesWanted, image.Bytes())
					inline["data"] = name
				}
			}
		}
	}
	return n, ok
}

// reference decodes base64 as Protocol Buffers' JSON allows it, by the standard library.
func reference(data string) ([]byte, error) {
	data = strings.NewReplacer("-", "+", "_", "/", "\n", "", "\r", "", "\t", "", " ", "").Replace(data)
	if strings.HasSuffix(data, "=") {
		return base64.StdEncoding.DecodeString(data)
	}
	return base64.RawStdEncoding.DecodeString(data)
}
