package vertextest_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

// checkPicture decodes file and compares type and pixel size.
func checkPicture(t *testing.T, file []byte, mime string, width, height int) {
	t.Helper()
	img, format, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		t.Errorf("image does not decode: %v", err)
		return
	}
	if "image/"+format != mime || img.Bounds().Dx() != width || img.Bounds().Dy() != height {
		t.Errorf("%s of %v, want %s of %d x %d", format, img.Bounds().Size(), mime, width, height)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	for _, tc := range []struct {
		name, model, location, size string
		headers                     []string
		image                       int
		thinks                      bool
		traffic                     string
	}{
		{"pro 1K", "gemini-3-pro-image", "global", "1K", nil, 1120, true, "ON_DEMAND"},
		{"pro 4K flex", "gemini-3-pro-image", "global", "4K", []string{"X-Vertex-AI-LLM-Request-Type", "shared", "X-Vertex-AI-LLM-Shared-Request-Type", "flex"}, 2000, true, "ON_DEMAND_FLEX"},
		{"flash 512 provisioned", "gemini-3.1-flash-image", "global", "512", []string{"X-Vertex-AI-LLM-Request-Type", "dedicated"}, 747, true, "PROVISIONED_THROUGHPUT"},
		{"flash 2K priority is not offered", "gemini-3.1-flash-image", "global", "2K", []string{"X-Vertex-AI-LLM-Shared-Request-Type", "priority"}, 1680, true, "ON_DEMAND"},
		{"2.5 in a region, flex is not offered", "gemini-2.5-flash-image", "europe-west4", "1K", []string{"X-Vertex-AI-LLM-Shared-Request-Type", "flex"}, 1290, false, "ON_DEMAND"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t, client(t, s, "h2c"), s.URL()+modelPath("v1", tc.location, tc.model, "generateContent"),
				with(`"generationConfig":{"imageConfig":{"imageSize":"`+tc.size+`"}}`), tc.headers...)
			if status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			r := decode(t, body)
			u := r.UsageMetadata
			if u.PromptTokenCount != 1 || u.CandidatesTokenCount != tc.image || u.TrafficType != tc.traffic || (u.ThoughtsTokenCount > 0) != tc.thinks ||
				u.TotalTokenCount != u.PromptTokenCount+u.CandidatesTokenCount+u.ThoughtsTokenCount ||
				len(u.CandidatesTokensDetails) != 1 || u.CandidatesTokensDetails[0].Modality != "IMAGE" || u.CandidatesTokensDetails[0].TokenCount != tc.image {
				t.Errorf("usage %+v, want %d image tokens, %s", u, tc.image, tc.traffic)
			}
			if r.ModelVersion != tc.model || r.ResponseID == "" || r.CreateTime == "" {
				t.Errorf("modelVersion %q, responseId %q, createTime %q", r.ModelVersion, r.ResponseID, r.CreateTime)
			}
		})
	}
}

func TestEveryOfferedPictureHasItsSize(t *testing.T) {
	t.Parallel()
	drawn := map[string]bool{}
	for _, m := range vertextest.DefaultModels() {
		for _, size := range m.Sizes {
			if m.ImageTokens[size] == 0 {
				t.Errorf("%s: no tokens for %s", m.ID, size)
			}
			for _, ratio := range m.Ratios {
				w, h, ok := vertextest.PixelSize(ratio, size)
				if !ok {
					t.Errorf("%s: no pixel size for %s %s", m.ID, ratio, size)
					continue
				}
				if drawn[ratio+size] || (size == "4K" && ratio != "16:9") {
					continue // one of the largest size is enough: they are slow under the race detector
				}
				drawn[ratio+size] = true
				file, err := vertextest.Draw(vertextest.Picture{Prompt: "x", Size: size, AspectRatio: ratio, Plain: true})
				if err != nil {
					t.Error(err)
					continue
				}
				got, _, err := image.DecodeConfig(bytes.NewReader(file))
				if err != nil || got.Width != w || got.Height != h {
					t.Errorf("%s %s: %d x %d, want %d x %d (%v)", ratio, size, got.Width, got.Height, w, h, err)
				}
			}
		}
	}
}

func TestDocumentedPixelSizes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ratio, size   string
		width, height int
	}{
		{"1:1", "1K", 1024, 1024}, {"1:1", "2K", 2048, 2048}, {"1:1", "4K", 4096, 4096}, {"1:1", "512", 512, 512},
		{"16:9", "1K", 1376, 768}, {"16:9", "2K", 2752, 1536}, {"16:9", "4K", 5504, 3072}, {"4:5", "1K", 928, 1152},
	} {
		if w, h, ok := vertextest.PixelSize(tc.ratio, tc.size); !ok || w != tc.width || h != tc.height {
			t.Errorf("%s %s: %d x %d, want %d x %d", tc.ratio, tc.size, w, h, tc.width, tc.height)
		}
	}
	for _, bad := range [][2]string{{"1:1", "8K"}, {"1:2", "1K"}, {"", ""}, {"8:1", ""}, {"1:8", ""}} {
		if _, _, ok := vertextest.PixelSize(bad[0], bad[1]); ok {
			t.Errorf("PixelSize(%q, %q) is known", bad[0], bad[1])
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ directive, block, finish, text string }{
		{"refuse:prompt", "PROHIBITED_CONTENT", "", ""},
		{"refuse:prompt:JAILBREAK", "JAILBREAK", "", ""},
		{"refuse:output", "", "IMAGE_SAFETY", ""},
		{"refuse:none", "", "NO_IMAGE", ""},
		{"refuse:IMAGE_FUTURE_REASON", "", "IMAGE_FUTURE_REASON", ""},
		{"refuse:text", "", "STOP", "can't"},
	} {
		t.Run(tc.directive, func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			s := start(t, vertextest.Config{CallLog: &log})
			r := generate(t, s, request("x [["+tc.directive+"]]"))
			if len(r.images()) != 0 {
				t.Error("a refusal has an image")
			}
			switch {
			case tc.block != "":
				if r.PromptFeedback == nil || r.PromptFeedback.BlockReason != tc.block || len(r.Candidates) != 0 {
					t.Errorf("answer %+v, want only blockReason %s", r, tc.block)
				}
			case len(r.Candidates) != 1 || r.Candidates[0].FinishReason != tc.finish:
				t.Errorf("candidates %+v, want finishReason %s", r.Candidates, tc.finish)
			case tc.text == "" && r.Candidates[0].Content != nil:
				t.Error("a filtered candidate has content")
			case tc.text != "" && (r.Candidates[0].Content == nil || !strings.Contains(r.Candidates[0].Content.Parts[0].Text, tc.text)):
				t.Errorf("candidate %+v, want text", r.Candidates[0])
			}
			rec := log.records(t)
			if len(rec) != 1 || rec[0].Result != "refused" || rec[0].FinishReason != tc.block+tc.finish || rec[0].Image != "" {
				t.Errorf("call log %+v, want one refusal", rec)
			}
		})
	}
}

func TestTextOnlyModality(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	if r := generate(t, s, with(`"generationConfig":{"responseModalities":["TEXT"]}`)); len(r.images()) != 0 || r.Candidates[0].Content == nil {
		t.Errorf("answer %+v, want text and no image", r)
	}
}

func TestPartsAndForms(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	t.Run("text", func(t *testing.T) {
		t.Parallel()
		p := generate(t, s, request("x [[text]]")).Candidates[0].Content.Parts
		if len(p) != 2 || p[0].Text == "" || p[1].InlineData == nil {
			t.Errorf("parts %+v, want text before the image", p)
		}
	})
	t.Run("thought", func(t *testing.T) {
		t.Parallel()
		r := generate(t, s, request("x [[thought]]"))
		p := r.Candidates[0].Content.Parts
		if len(p) != 2 || !p[0].Thought || p[0].InlineData == nil || p[1].Thought || p[1].ThoughtSignature == "" {
			t.Fatalf("parts: want an interim image, then the image with a signature")
		}
		if _, ok := vertextest.PromptHash(p[0].InlineData.Data); ok {
			t.Error("the interim image has a prompt hash: a mix-up would go unseen")
		}
		if bytes.Equal(p[0].InlineData.Data, p[1].InlineData.Data) || r.UsageMetadata.CandidatesTokenCount != 1120 {
			t.Error("the interim image is the image, or is billed as one")
		}
	})
	t.Run("two", func(t *testing.T) {
		t.Parallel()
		imgs := generate(t, s, request("x [[two]]")).images()
		if len(imgs) != 2 || bytes.Equal(imgs[0], imgs[1]) {
			t.Errorf("%d images, want two different ones", len(imgs))
		}
	})
	t.Run("nousage", func(t *testing.T) {
		t.Parallel()
		if r := generate(t, s, request("x [[nousage]]")); r.UsageMetadata != nil {
			t.Errorf("usage %+v", r.UsageMetadata)
		}
	})
	t.Run("unknown directive", func(t *testing.T) {
		t.Parallel()
		if n := len(generate(t, s, request("a [[wiki:link]] and [[[]] [[bytes:-1]] [[latency:1000h]] [[fault:200]]")).images()); n != 1 {
			t.Errorf("%d images, want 1", n)
		}
	})
}

func TestEscapedForm(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	c := client(t, s, "h1")
	_, plain := post(t, c, s.URL()+proPath, request("x"))
	_, odd := post(t, c, s.URL()+proPath, request("x [[escape]]"))
	for _, want := range []string{`\/`, `\u00`, `\n`, "\r\n\t"} {
		if !bytes.Contains(odd, []byte(want)) {
			t.Errorf("escaped answer has no %q", want)
		}
	}
	if bytes.Index(odd, []byte(`"data"`)) > bytes.Index(odd, []byte(`"mimeType"`)) {
		t.Error("data does not stand before mimeType")
	}
	if bytes.Contains(plain, []byte(`\/`)) {
		t.Error("the plain answer has escapes")
	}
	img := decode(t, odd).images()[0]
	checkPicture(t, img, "image/png", 1024, 1024)
	if hash, _ := vertextest.PromptHash(img); hash != sum([]byte("x [[escape]]")) {
		t.Error("wrong image after unescaping")
	}
	if n := len(decode(t, plain).images()); n != 1 {
		t.Errorf("%d images", n)
	}
}

func TestPaddedImages(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log, ImageBytes: 300_000})
	jpeg := `"generationConfig":{"imageConfig":{"imageOutputOptions":{"mimeType":"image/jpeg"}}}`
	for _, tc := range []struct {
		body, mime string
		size       int
	}{
		{request("[[bytes:1500000]]"), "image/png", 1_500_000},
		{request("[[bytes:1500001]]"), "image/png", 1_500_001},
		{request("[[bytes:6291456]]"), "image/png", 6 << 20},
		{request("x"), "image/png", 300_000},
		{strings.Replace(request("[[bytes:700000]]"), "{", "{"+jpeg+",", 1), "image/jpeg", 700_000},
		{strings.Replace(request("[[bytes:700003]]"), "{", "{"+jpeg+",", 1), "image/jpeg", 700_003},
	} {
		img := generate(t, s, tc.body).images()[0]
		if len(img) != tc.size {
			t.Errorf("%d bytes, want %d", len(img), tc.size)
		}
		checkPicture(t, img, tc.mime, 1024, 1024)
		if _, ok := vertextest.PromptHash(img); !ok {
			t.Error("no prompt hash")
		}
		recs := log.records(t)
		if rec := recs[len(recs)-1]; rec.Image != sum(img) || rec.Bytes != tc.size {
			t.Errorf("call log has %d bytes, %s", rec.Bytes, rec.Image)
		}
	}
	// Too small to hold the picture: left alone.
	checkPicture(t, generate(t, s, request("[[bytes:10]]")).images()[0], "image/png", 1024, 1024)
}

func TestSamePictureForSameRequest(t *testing.T) {
	t.Parallel()
	s, varying := start(t, vertextest.Config{}), start(t, vertextest.Config{VaryRepeats: true})
	one := func(s *vertextest.Server, body string) string { return sum(generate(t, s, body).images()[0]) }
	base := one(s, request("x"))
	if one(s, request("x")) != base {
		t.Error("the same request has another image")
	}
	for _, other := range []string{request("y"), with(`"labels":{"row":"2"}`), with(`"generationConfig":{"seed":1}`)} {
		if one(s, other) == base {
			t.Errorf("%s has the same image", other)
		}
	}
	if a, b := one(varying, request("x")), one(varying, request("x")); a != base || b == base {
		t.Error("VaryRepeats: want the first image as always and the second another")
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{Gzip: true})
	c := client(t, s, "h1")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+proPath, strings.NewReader(request("x")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip") // by hand, so that the transport leaves the body alone
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatalf("%v; Content-Encoding %q", err, resp.Header.Get("Content-Encoding"))
	}
	body, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(decode(t, body).images()); n != 1 {
		t.Errorf("%d images", n)
	}
}

func TestBodyIsOneBase64Text(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{})
	_, body := post(t, client(t, s, "h1"), s.URL()+proPath, request("[[bytes:200002]]"))
	_, rest, _ := strings.Cut(string(body), `"data": "`)
	text, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatal("no data in the answer")
	}
	// The strict decoder finds padding in the middle, which lenient ones skip.
	if b, err := base64.StdEncoding.Strict().DecodeString(text); err != nil || len(b) != 200_002 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
