package localcloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/bigquery"
)

// draw has the simulated model make a picture.
func draw(t *testing.T, c *Cloud, prompt string) string {
	t.Helper()
	request, err := json.Marshal(map[string]any{
		"contents":         []any{map[string]any{"role": "user", "parts": []any{map[string]any{"text": prompt}}}},
		"generationConfig": map[string]any{"responseModalities": []string{"IMAGE"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const path = "/v1/projects/" + Project + "/locations/global/publishers/google/models/gemini-3-pro-image:generateContent"
	resp, err := http.Post(c.Vertex().URL()+path, "application/json", bytes.NewReader(request))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Candidates []struct {
			Content struct {
				Parts []struct {
					InlineData struct{ Data []byte }
				}
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Candidates) == 0 || len(answer.Candidates[0].Content.Parts) == 0 {
		t.Fatalf("%v in %.300s", err, body)
	}
	return string(answer.Candidates[0].Content.Parts[0].InlineData.Data)
}

// record puts a row into lineage as if the picture were the job's.
func record(t *testing.T, client *bigquery.Client, job, prompt, uri, picture string) {
	t.Helper()
	hash := sha256.Sum256([]byte(prompt))
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(picture), crc32.MakeTable(crc32.Castagnoli))))
	insert := fmt.Sprintf("INSERT INTO assetmill.generations_raw (job_id, prompt, prompt_sha256, outcome, reason, finished_at, asset_uri, asset_bytes, asset_crc32c) "+
		"VALUES ('%s', '%s', '%s', 'succeeded', 'image', TIMESTAMP '2026-11-23 10:00:00 UTC', '%s', %d, '%s')", job, prompt, hex.EncodeToString(hash[:]), uri, len(picture), sum)
	if _, err := client.Query(insert).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCheckSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Dir: t.TempDir()})
	bucket := storageClient(t, c.storage.url()).Bucket(Bucket)
	client := bigqueryClient(t, c.bigquery.RESTURL())
	store := func(name, content string) string {
		write(t, bucket.Object(name), content, nil)
		return "gs://" + Bucket + "/" + name
	}
	fox, hen := draw(t, c, "a fox"), draw(t, c, "a hen")
	record(t, client, "fox", "a fox", store("fox.png", fox), fox)
	record(t, client, "hen", "a hen", store("hen.png", hen), hen)
	if got, err := c.Check(t.Context()); err != nil || got.Jobs != 2 || got.Right != 2 || len(got.Wrong) != 0 || got.Unknown != 0 {
		t.Fatalf("all is well: %+v, %v", got, err)
	}

	record(t, client, "mixed-up", "a hen", store("mixed-up.png", fox), fox)
	record(t, client, "cut", "a fox", store("cut.png", fox[:len(fox)-1]), fox)
	record(t, client, "other-bytes", "a fox", store("other-bytes.png", strings.Replace(fox, "IDAT", "IDAX", 1)), fox)
	record(t, client, "gone", "a fox", "gs://"+Bucket+"/gone.png", fox)
	record(t, client, "elsewhere", "a fox", "gs://other/fox.png", fox)
	record(t, client, "no-picture", "a fox", store("no-picture.png", "text"), "text")
	store("unknown.png", hen)
	got, err := c.Check(t.Context())
	if err != nil || got.Jobs != 8 || got.Right != 2 || got.Unknown != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, want := range []string{
		"job mixed-up: gs://assetmill-assets/mixed-up.png shows another prompt", "job gone: gs://assetmill-assets/gone.png is not there",
		"job no-picture: gs://assetmill-assets/no-picture.png is no picture of the simulated model",
		"job elsewhere: its row names \"gs://other/fox.png\", which is not in gs://assetmill-assets/",
	} {
		if !slices.Contains(got.Wrong, want) {
			t.Errorf("it does not say: %s", want)
		}
	}
	for _, job := range []string{"cut", "other-bytes"} {
		if !slices.ContainsFunc(got.Wrong, func(text string) bool {
			return strings.HasPrefix(text, "job "+job+": ") && strings.Contains(text, "checksum")
		}) {
			t.Errorf("it does not say that job %s has other bytes: %q", job, got.Wrong)
		}
	}
	if len(got.Wrong) != 6 {
		t.Errorf("%d are wrong: %q", len(got.Wrong), got.Wrong)
	}
}

func TestCheckOfNothing(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Dir: t.TempDir()})
	if got, err := c.Check(t.Context()); err != nil || got.Jobs != 0 || got.Right != 0 || len(got.Wrong) != 0 || got.Unknown != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
