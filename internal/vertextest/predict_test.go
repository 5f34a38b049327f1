package vertextest_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func TestPredictOverREST(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{CallLog: &log, Endpoints: []string{"77"}, Dedicated: true, PlainPictures: true})
	c := client(t, s, "h2c")
	url := s.URL() + "/v1/projects/p/locations/us-central1/endpoints/77:predict"
	const body = `{"instances":[{"prompt":"A lighthouse","seed":3},{"prompt":"x [[refuse:output]]"}],"parameters":{"aspectRatio":"4:5"},"labels":{"row":"1"}}`
	status, got := post(t, c, url, body, "x-vertex-ai-endpoint-id", "77")
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, got)
	}
	var resp struct {
		Predictions []struct{ BytesBase64Encoded, MIMEType, RAIFilteredReason string }
	}
	if err := json.Unmarshal(got, &resp); err != nil || len(resp.Predictions) != 2 {
		t.Fatalf("%v: %.300s", err, got)
	}
	file, err := base64.StdEncoding.DecodeString(resp.Predictions[0].BytesBase64Encoded)
	if err != nil {
		t.Fatal(err)
	}
	checkPicture(t, file, "image/png", 928, 1152)
	if hash, _ := vertextest.PromptHash(file); hash != sum([]byte("A lighthouse")) || resp.Predictions[1].RAIFilteredReason != "IMAGE_SAFETY" {
		t.Error("wrong picture, or the refusal was not told")
	}
	if recs := log.records(t); len(recs) != 2 || recs[0].Method != "predict" || recs[0].Labels["row"] != "1" || recs[0].Image != sum(file) {
		t.Errorf("call log %+v", recs)
	}
	for name, tc := range map[string]struct {
		url, body, id string
		status        int
	}{
		"no endpoint id":   {url, body, "", 400},
		"unknown endpoint": {s.URL() + "/v1/projects/p/locations/us-central1/endpoints/78:predict", body, "78", 404},
		"unknown name":     {url, `{"instance":[]}`, "77", 400},
		"no instance":      {url, `{}`, "77", 400},
		"throttled":        {url, `{"instances":[{"prompt":"[[fault:429]]"}]}`, "77", 429},
		"another method":   {s.URL() + "/v1/projects/p/locations/us-central1/endpoints/77:explain", body, "77", 404},
	} {
		if status, got := post(t, c, tc.url, tc.body, "x-vertex-ai-endpoint-id", tc.id); status != tc.status {
			t.Errorf("%s: %d %s, want %d", name, status, got, tc.status)
		}
	}
}
