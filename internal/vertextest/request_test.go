package vertextest_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func modelPath(version, location, model, method string) string {
	return fmt.Sprintf("/%s/projects/p/locations/%s/publishers/google/models/%s:%s", version, location, model, method)
}

func with(config string) string {
	return `{"contents":[{"role":"user","parts":[{"text":"x"}]}],` + config + `}`
}

func parts(parts ...string) string {
	return `{"contents":[{"role":"user","parts":[` + strings.Join(parts, ",") + `]}]}`
}

func reference(uri string) string {
	return `{"fileData":{"mimeType":"image/png","fileUri":"` + uri + `"}}`
}

func repeat(n int, s string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

// badRequest is a request that must be refused, and how.
type badRequest struct {
	name, path, body string
	status           int
	canonical, want  string
}

// Paths of generateContent.
var (
	proGenerate  = modelPath("v1", "global", "gemini-3-pro-image", "generateContent")
	liteGenerate = modelPath("v1", "global", "gemini-3.1-flash-lite-image", "generateContent")
	oldGenerate  = modelPath("v1", "us-central1", "gemini-2.5-flash-image", "generateContent")
)

func badShapes() []badRequest {
	return []badRequest{
		{"unknown model", modelPath("v1", "global", "gemini-9", "generateContent"), request("x"), 404, "NOT_FOUND", "Publisher Model `projects/p/locations/global/publishers/google/models/gemini-9`"},
		{"retired model", modelPath("v1", "global", "gemini-3-pro-image-preview", "generateContent"), request("x"), 404, "NOT_FOUND", "not found"},
		{"model elsewhere", modelPath("v1", "us-central1", "gemini-3-pro-image", "generateContent"), request("x"), 404, "NOT_FOUND", "us-central1"},
		{"unknown method", modelPath("v1", "global", "gemini-3-pro-image", "predict"), request("x"), 404, "NOT_FOUND", "not found"},
		{"unknown version", modelPath("v2", "global", "gemini-3-pro-image", "generateContent"), request("x"), 404, "NOT_FOUND", "not found"},
		{"unknown path", "/", request("x"), 404, "NOT_FOUND", "not found"},
		{"unknown name", proGenerate, with(`"bogus":1`), 400, "INVALID_ARGUMENT", `Invalid JSON payload received. Unknown name "bogus": Cannot find field.`},
		{"unknown nested name", proGenerate, with(`"generationConfig":{"imageConfig":{"size":"1K"}}`), 400, "INVALID_ARGUMENT", `Unknown name "size" at 'generation_config.image_config': Cannot find field.`},
		{"unknown name in a list", proGenerate, parts(`{"text":"x"}`, `{"txt":"x"}`), 400, "INVALID_ARGUMENT", `Unknown name "txt" at 'contents[0].parts[1]'`},
		{"wrong type", proGenerate, with(`"generationConfig":{"seed":"many"}`), 400, "INVALID_ARGUMENT", `Invalid value at 'generation_config.seed' (TYPE_INT32), "many"`},
		{"seed over int32", proGenerate, with(`"generationConfig":{"seed":2147483648}`), 400, "INVALID_ARGUMENT", "generation_config.seed"},
		{"unknown enum", proGenerate, with(`"safetySettings":[{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"BLOCK_SOME"}]`), 400, "INVALID_ARGUMENT", "safety_settings[0].threshold"},
		{"not JSON", proGenerate, `{"contents":`, 400, "INVALID_ARGUMENT", "Invalid JSON payload received."},
		{"two values", proGenerate, request("x") + request("y"), 400, "INVALID_ARGUMENT", "Invalid JSON payload received."},
		{"a list", proGenerate, `[]`, 400, "INVALID_ARGUMENT", "Expected an object"},
		{"empty body", proGenerate, ``, 400, "INVALID_ARGUMENT", "contents"},
		{"no parts", proGenerate, `{"contents":[{"role":"user"}]}`, 400, "INVALID_ARGUMENT", "parts"},
		{"empty part", proGenerate, parts(`{}`), 400, "INVALID_ARGUMENT", "text, inlineData or fileData"},
		{"role", proGenerate, `{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}`, 400, "INVALID_ARGUMENT", "valid role"},
	}
}

func badValues() []badRequest {
	return []badRequest{
		{"aspect ratio", proGenerate, with(`"generationConfig":{"imageConfig":{"aspectRatio":"7:5"}}`), 400, "INVALID_ARGUMENT", `"7:5"`},
		{"ratio of another model", oldGenerate, with(`"generationConfig":{"imageConfig":{"aspectRatio":"1:8"}}`), 400, "INVALID_ARGUMENT", `"1:8"`},
		{"size", liteGenerate, with(`"generationConfig":{"imageConfig":{"imageSize":"2K"}}`), 400, "INVALID_ARGUMENT", `"2K"`},
		{"lower-case size", proGenerate, with(`"generationConfig":{"imageConfig":{"imageSize":"2k"}}`), 400, "INVALID_ARGUMENT", `"2k"`},
		{"512 on pro", proGenerate, with(`"generationConfig":{"imageConfig":{"imageSize":"512"}}`), 400, "INVALID_ARGUMENT", `"512"`},
		{"image type", proGenerate, with(`"generationConfig":{"imageConfig":{"imageOutputOptions":{"mimeType":"image/webp"}}}`), 400, "INVALID_ARGUMENT", "image/webp"},
		{"two forms", proGenerate, with(`"generationConfig":{"imageConfig":{},"responseFormat":[{"image":{}}]}`), 400, "INVALID_ARGUMENT", "response_format"},
		{"candidates", proGenerate, with(`"generationConfig":{"candidateCount":2}`), 400, "INVALID_ARGUMENT", "candidateCount"},
		{"temperature", proGenerate, with(`"generationConfig":{"temperature":2.5}`), 400, "INVALID_ARGUMENT", "temperature"},
		{"modality", proGenerate, with(`"generationConfig":{"responseModalities":["AUDIO"]}`), 400, "INVALID_ARGUMENT", "modality"},
		{"prompt too long", proGenerate, request(strings.Repeat("word", 65_537)), 400, "INVALID_ARGUMENT", "input token count is 65537 but model only supports up to 65536"},
	}
}

func badAttachments(t *testing.T) []badRequest {
	manyLabels := map[string]string{}
	for i := range 65 {
		manyLabels[fmt.Sprintf("k%d", i)] = "v"
	}
	labels, err := json.Marshal(manyLabels)
	if err != nil {
		t.Fatal(err)
	}
	big := base64.StdEncoding.EncodeToString(make([]byte, 7<<20+1))
	return []badRequest{
		{"body too large", proGenerate, request(strings.Repeat("x", 20<<20)), 400, "INVALID_ARGUMENT", "exceeds the limit"},
		{"15 references", proGenerate, parts(repeat(15, reference("gs://b/there/a.png"))...), 400, "INVALID_ARGUMENT", "15 image parts"},
		{"4 references on 2.5", oldGenerate, parts(repeat(4, reference("gs://b/there/a.png"))...), 400, "INVALID_ARGUMENT", "4 image parts"},
		{"11 URLs", proGenerate, parts(repeat(11, reference("https://example.com/a.png"))...), 400, "INVALID_ARGUMENT", "11 URLs"},
		{"missing reference", proGenerate, parts(reference("gs://b/gone.png")), 400, "INVALID_ARGUMENT", "gs://b/gone.png"},
		{"storage down", proGenerate, parts(reference("gs://broken/a.png")), 500, "INTERNAL", "Internal error"},
		{"reference scheme", proGenerate, parts(reference("s3://b/a.png")), 400, "INVALID_ARGUMENT", "s3://b/a.png"},
		{"reference without object", proGenerate, parts(reference("gs://b")), 400, "INVALID_ARGUMENT", "gs://b"},
		{"reference without type", proGenerate, parts(`{"fileData":{"fileUri":"gs://b/there/a.png"}}`), 400, "INVALID_ARGUMENT", "mimeType"},
		{"reference type", proGenerate, parts(`{"fileData":{"mimeType":"image/tiff","fileUri":"gs://b/there/a.png"}}`), 400, "INVALID_ARGUMENT", "image/tiff"},
		{"inline not base64", proGenerate, parts(`{"inlineData":{"mimeType":"image/png","data":"%%%"}}`), 400, "INVALID_ARGUMENT", "inline_data.data"},
		{"inline empty", proGenerate, parts(`{"inlineData":{"mimeType":"image/png","data":""}}`), 400, "INVALID_ARGUMENT", "empty data"},
		{"inline over 7 MiB", proGenerate, parts(`{"inlineData":{"mimeType":"image/png","data":"` + big + `"}}`), 400, "INVALID_ARGUMENT", "inline file"},
		{"65 labels", proGenerate, with(`"labels":` + string(labels)), 400, "INVALID_ARGUMENT", "65"},
		{"label key", proGenerate, with(`"labels":{"Campaign":"x"}`), 400, "INVALID_ARGUMENT", "Campaign"},
		{"label key starts with a digit", proGenerate, with(`"labels":{"1a":"x"}`), 400, "INVALID_ARGUMENT", "1a"},
		{"label value", proGenerate, with(`"labels":{"a":"x/y"}`), 400, "INVALID_ARGUMENT", "x/y"},
		{"label value too long", proGenerate, with(`"labels":{"a":"` + strings.Repeat("x", 64) + `"}`), 400, "INVALID_ARGUMENT", "label value"},
		{"label not text", proGenerate, with(`"labels":{"a":1}`), 400, "INVALID_ARGUMENT", "labels[a]"},
		{"armor and safety", proGenerate, with(`"modelArmorConfig":{},"safetySettings":[{"category":"HARM_CATEGORY_HATE_SPEECH"}]`), 400, "INVALID_ARGUMENT", "model_armor_config"},
	}
}

func TestRequestsRefused(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log, ReferenceExists: func(_ context.Context, bucket, object string) (bool, error) {
		if bucket == "broken" {
			return false, errors.New("storage is down")
		}
		return bucket == "b" && object == "there/a.png", nil
	}})
	for _, tc := range slices.Concat(badShapes(), badValues(), badAttachments(t)) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t, client(t, s, "h1"), s.URL()+tc.path, tc.body)
			message, canonical := errorOf(t, status, body)
			if status != tc.status || canonical != tc.canonical || !strings.Contains(message, tc.want) {
				t.Errorf("%d %s %q\nwant %d %s ...%s...", status, canonical, message, tc.status, tc.canonical, tc.want)
			}
		})
	}
	t.Cleanup(func() {
		if recs := log.records(t); len(recs) != 0 {
			t.Errorf("bad requests were billed: %+v", recs)
		}
	})
}

func TestOnlyPost(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	resp, err := client(t, s, "h1").Get(s.URL() + proPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		t.Errorf("GET: %s %s, want a 404 in JSON", resp.Status, resp.Header.Get("Content-Type"))
	}
}

func TestRequestsAccepted(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{PlainPictures: true, CallLog: &log})
	for name, body := range map[string]string{
		"snake case":       `{"contents":[{"parts":[{"text":"x"},{"file_data":{"mime_type":"image/png","file_uri":"gs://b/o"}}]}],"generation_config":{"image_config":{"aspect_ratio":"16:9","image_size":"2K"},"seed":"7"},"safety_settings":[]}`,
		"single for list":  `{"contents":{"role":"user","parts":{"text":"x"}}}`,
		"nulls":            `{"contents":[{"parts":[{"text":"x","inlineData":null}]}],"generationConfig":null,"labels":null}`,
		"tools":            with(`"tools":[{"googleSearch":{}}]`),
		"output config":    with(`"outputConfig":{"outputUriPrefix":"gs://b/p/"}`),
		"14 references":    parts(repeat(14, reference("gs://b/a.png"))...),
		"largest prompt":   request(strings.Repeat("word", 65_536)),
		"model turn":       `{"contents":[{"role":"user","parts":[{"text":"x"}]},{"role":"model","parts":[{"text":"y","thoughtSignature":"AAAA"}]},{"role":"user","parts":[{"text":"z"}]}]}`,
		"response format":  with(`"generationConfig":{"responseFormat":[{"image":{"aspectRatio":"ASPECT_RATIO_TWENTY_ONE_BY_NINE","imageSize":"IMAGE_SIZE_FOUR_K"}}]}`),
		"all safety":       with(`"safetySettings":[{"category":"HARM_CATEGORY_IMAGE_HATE","threshold":"OFF","method":"SEVERITY"}]`),
		"thinking":         with(`"generationConfig":{"thinkingConfig":{"thinkingLevel":"HIGH"}}`),
		"url-safe base64":  parts(`{"inlineData":{"mimeType":"image/png","data":"-_8"}}`),
		"empty label":      with(`"labels":{"a":""}`),
		"whitespace after": request("x") + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if n := len(generate(t, s, body).images()); n != 1 {
				t.Errorf("%d images, want 1", n)
			}
		})
	}
}

func TestOptionsReachTheAnswer(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log})
	r := generate(t, s, `{"contents":[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}],"labels":{"row_hi":"1","row_lo":"2"},
		"generationConfig":{"seed":-3,"responseFormat":[{"image":{"aspectRatio":"ASPECT_RATIO_NINE_BY_SIXTEEN","imageSize":"IMAGE_SIZE_TWO_K","mimeType":"IMAGE_JPEG"}}]}}`)
	rec := log.records(t)[0]
	if rec.Prompt != sum([]byte("a\nb")) || rec.Seed == nil || *rec.Seed != -3 || rec.Size != "2K" || rec.Ratio != "9:16" ||
		rec.Labels["row_lo"] != "2" || rec.Project != "p" || rec.Location != "global" || rec.Model != "gemini-3-pro-image" ||
		rec.Method != "generateContent" || rec.FinishReason != "STOP" || rec.Tokens != r.UsageMetadata.TotalTokenCount {
		t.Errorf("call log has %+v", rec)
	}
	checkPicture(t, r.images()[0], "image/jpeg", 1536, 2752)
	if hash, _ := vertextest.PromptHash(r.images()[0]); hash != sum([]byte("a\nb")) {
		t.Errorf("prompt hash of the JPEG is %q", hash)
	}
}

func TestCountTokens(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log, RequestsPerMinute: 1, Faults: vertextest.Faults{Internal: 1}})
	url := s.URL() + modelPath("v1beta1", "global", "gemini-3-pro-image", "countTokens")
	for range 3 { // free, without quota and faults
		status, body := post(t, client(t, s, "h1"), url, parts(`{"text":"123456789"}`, reference("gs://b/o")))
		var got struct{ TotalTokens int }
		if err := json.Unmarshal(body, &got); err != nil || status != http.StatusOK || got.TotalTokens != 3+560 {
			t.Errorf("%d %s: want totalTokens 563", status, body)
		}
	}
	if status, _ := post(t, client(t, s, "h1"), url, with(`"labels":{}`)); status != http.StatusBadRequest {
		t.Errorf("labels in countTokens: %d, want 400", status)
	}
	if st := s.Stats(); st.Calls != 0 || st.CountTokens != 4 || len(log.records(t)) != 0 {
		t.Errorf("countTokens was counted or billed: %+v", st)
	}
}
