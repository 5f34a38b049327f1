package vertex

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// rowResult is a row whose image, if any, was read and released.
type rowResult struct {
	worker.OutputRow
	image []byte
}

// readRows reads a part of a file.
func readRows(t testing.TB, f *BatchFormat, r io.Reader, at, length int64) []rowResult {
	t.Helper()
	var all []rowResult
	err := f.Rows(t.Context(), r, at, length, func(row worker.OutputRow) error {
		all = append(all, taken(t, row))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// taken checks that exactly one of a row's outcomes is set, and takes its image.
func taken(t testing.TB, row worker.OutputRow) rowResult {
	t.Helper()
	outcomes := 0
	for _, is := range []bool{row.Answer != nil, row.Err != nil, row.Damaged != nil} {
		if is {
			outcomes++
		}
	}
	if outcomes != 1 {
		t.Errorf("a row has %d outcomes: %+v", outcomes, row)
	}
	r := rowResult{OutputRow: row}
	if row.Answer == nil {
		return r
	}
	if row.Answer.Image != nil {
		var err error
		if r.image, err = io.ReadAll(row.Answer.Image.Blob.NewReader()); err != nil {
			t.Error(err)
		}
		row.Answer.Image.Blob.Release()
		row.Answer.Image.Blob = nil
	}
	return r
}

// rowOf is a row of an output. Its request is that of the job.
func rowOf(t testing.TB, j *jobs.Job, hi, lo, response string) string {
	t.Helper()
	request, err := encodeRequest(j, hi, lo)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"status":"","processed_time":"2026-11-23T10:00:00.000+00:00","request":%s,"response":%s}`, request, response)
}

// What a row says is what the same response says online.
func TestRowsAnswerAsOnline(t *testing.T) {
	t.Parallel()
	pic, other := pngImage(t, 64, 36), pngImage(t, 8, 8)
	img, text := inline("image/png", pic), `{"text":"I can't draw A red bicycle leaning against a white wall."}`
	escaped := strings.ReplaceAll(strings.ReplaceAll(inline("image/png", pic), "/", `\/`), "iVBOR", `iVB\n\u004fR`)
	ratings := `,"safetyRatings":[{"category":"HARM_CATEGORY_HATE_SPEECH","probability":"LOW","blocked":true}]`
	for name, body := range map[string]string{
		"image":                     candidate("STOP", "", img),
		"image among texts":         candidate("STOP", ratings, text, img, text),
		"thoughts":                  candidate("STOP", "", thought(inline("image/png", other)), thought(`{"text":"hm"}`), img),
		"only a thought":            candidate("STOP", "", thought(img)),
		"two images":                candidate("STOP", "", img, inline("image/png", other)),
		"escapes":                   candidate("STOP", "", escaped),
		"a huge signature":          candidate("STOP", "", strings.TrimSuffix(img, "}")+`,"thoughtSignature":"`+strings.Repeat("QUJD", maxRowRemainder/3)+`"}`),
		"data first, URL alphabet":  candidate("STOP", "", `{"inline_data":{"data":"`+base64.RawURLEncoding.EncodeToString(pic)+`","mime_type":"image/png"}}`),
		"odd finish":                candidate("MAX_TOKENS", "", img),
		"blocked image":             candidate("IMAGE_SAFETY", ratings+`,"finishMessage":"no, A red bicycle leaning against a white wall is not allowed. Code 58061214"`, img),
		"blocked":                   candidate("PROHIBITED_CONTENT", ""),
		"declined":                  candidate("STOP", "", text),
		"no image":                  candidate("NO_IMAGE", ""),
		"unknown finish":            candidate("NEVER_SEEN", ""),
		"prompt blocked":            `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT","blockReasonMessage":"A red bicycle leaning"},"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}`,
		"no candidate":              `{"candidates":[],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}`,
		"no image at all":           candidate("STOP", "", inline("image/png", []byte("nothing of the kind"))),
		"image elsewhere":           candidate("STOP", "", `{"fileData":{"fileUri":"gs://b/1.png","mimeType":"image/png"}}`),
		"image whose type is wrong": candidate("STOP", "", inline("image/jpeg", pic)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := newJob(t, nil)
			want, err := newOnline(t, serve(t, respond(200, body)), nil).Generate(t.Context(), callOf(job))
			if err != nil {
				t.Fatal(err)
			}
			wanted := taken(t, worker.OutputRow{Answer: want})
			f := newFormat(t)
			_, hash, err := f.Line(job, "001", "002")
			if err != nil {
				t.Fatal(err)
			}
			doc := rowOf(t, job, "001", "002", body) + "\n"
			for way, r := range readers(doc) {
				rows := readRows(t, f, r, 0, int64(len(doc)))
				if len(rows) != 1 || rows[0].Hash != hash || rows[0].Hi != "001" || rows[0].Lo != "002" || rows[0].Offset != 0 || rows[0].Length != int64(len(doc)-1) {
					t.Fatalf("%s: rows %+v", way, rows)
				}
				if diff := cmp.Diff(wanted.Answer, rows[0].Answer, protocmp.Transform(), cmpopts.IgnoreFields(worker.Image{}, "Blob")); diff != "" {
					t.Errorf("%s: answer (-online +batch):\n%s", way, diff)
				}
				if !bytes.Equal(wanted.image, rows[0].image) {
					t.Errorf("%s: another image", way)
				}
			}
		})
	}
}

func TestRowsOfOtherShapes(t *testing.T) {
	t.Parallel()
	pic := pngImage(t, 64, 36)
	img := inline("image/png", pic)
	job := newJob(t, nil)
	f := newFormat(t)
	_, hash, err := f.Line(job, "", "")
	if err != nil {
		t.Fatal(err)
	}
	row := rowOf(t, job, "001", "002", candidate("STOP", "", img))
	request, response := row[strings.Index(row, `"request":`):strings.Index(row, `,"response":`)], candidate("STOP", "", img)
	at := strings.Index(row, img[len(img)/2:len(img)-10])
	image := func(r rowResult) bool {
		return r.Answer != nil && r.Answer.Reason == jobs.ReasonImage && bytes.Equal(r.image, pic) && r.Hash == hash
	}
	damaged := func(words string) func(rowResult) bool {
		return func(r rowResult) bool { return r.Damaged != nil && strings.Contains(r.Damaged.Error(), words) }
	}
	mine := func(check func(rowResult) bool) func(rowResult) bool {
		return func(r rowResult) bool { return check(r) && r.Hash == hash && r.Hi == "001" && r.Lo == "002" }
	}
	nobodys := func(check func(rowResult) bool) func(rowResult) bool {
		return func(r rowResult) bool { return check(r) && r.Hash == [32]byte{} && r.Hi == "" && r.Lo == "" }
	}
	failing := func(r rowResult) bool { return r.Err != nil && r.Err.Kind == worker.Failing }
	tests := []struct {
		name, line string
		want       func(rowResult) bool
	}{
		{"response before request", `{"response":` + response + `,` + request + `,"status":""}`, mine(image)},
		{"white space", " \t" + strings.ReplaceAll(strings.ReplaceAll(row, `":`, "\"\t: "), "},", "} , ") + " \r", mine(image)},
		{"escaped keys", strings.Replace(row, `"response":`, `"resp\u006fnse":`, 1), mine(image)},
		{"a null status", strings.Replace(row, `"status":""`, `"status":null`, 1), mine(image)},
		{"no status", strings.Replace(row, `"status":"",`, ``, 1), mine(image)},
		{"a status beside an image", strings.Replace(row, `"status":""`, `"status":"OK"`, 1), mine(image)},
		{"a status beside an answer without an image", strings.Replace(rowOf(t, job, "001", "002", candidate("NO_IMAGE", "")), `"status":""`, `"status":"Internal error"`, 1), mine(failing)},
		{"other fields", strings.Replace(row, `"status":""`, `"status":"","response2":{"candidates":1},"key":[{"inlineData":{"data":"?"}}]`, 1), mine(image)},
		{"no labels", strings.Replace(row, `"labels":`, `"labels_":{},"labels":null,"x":`, 1), func(r rowResult) bool { return r.Hi == "" && r.Hash != hash && r.Answer != nil }},
		{"labels lost", strings.Replace(row, row[strings.Index(row, `,"labels":`):strings.Index(row, `},"response"`)], "", 1), func(r rowResult) bool { return image(r) && r.Hi == "" }},
		{"labels that are no text", strings.Replace(strings.Replace(row, `"001"`, "1", 1), `"002"`, "null", 1), func(r rowResult) bool { return image(r) && r.Hi == "" && r.Lo == "" }},
		{"nulls", strings.Replace(row, `"generationConfig":{`, `"tools":null,"cachedContent":null,"generationConfig":{"topK":null,"stopSequences":[],`, 1), mine(image)},
		{"neither", `{"status":"",` + request + `,"response":{}}`, mine(failing)},
		{"no response", `{"status":"",` + request + `}`, mine(failing)},
		{"null response", `{"status":"",` + request + `,"response":null}`, mine(failing)},
		{"image in the request", `{"request":{"contents":[{"parts":[` + img + `]}]},"response":` + response + `}`, func(r rowResult) bool {
			return r.Answer != nil && bytes.Equal(r.image, pic) && r.Hash != hash && r.Hash != [32]byte{}
		}},
		{"nobody's", `{"response":` + response + `}`, func(r rowResult) bool { return r.Answer != nil && r.Hash == [32]byte{} }},

		{"cut in the image", row[:at], mine(damaged("cut"))},
		{"cut in the request", row[:strings.Index(row, "red bicycle")], nobodys(damaged("cut"))},
		{"cut at the end", row[:len(row)-1], mine(damaged("cut"))},
		{"cut in front of the request", `{"response":` + response + `,`, nobodys(damaged("cut"))},
		{"cut behind the request, which comes last", `{"response":` + response + `,` + request, mine(damaged("cut"))},
		{"bad base64", row[:at] + "!" + row[at+1:], mine(damaged("base64"))},
		{"bad base64 before the request", `{"response":` + strings.Replace(response, img[60:64], "*!*!", 1) + `,` + request + `}`, mine(damaged("base64"))},
		{"bad escape in base64", row[:at] + `\x` + row[at+2:], mine(damaged("malformed"))},
		{"control character", row[:at] + "\x01" + row[at+1:], mine(damaged("base64"))},
		{"garbage", `{"status":"","processed_time":<html><title>Error</title></html>`, nobodys(damaged("not JSON"))},
		{"garbage behind the request", `{` + request + `,"response":<html></html>}`, mine(damaged("not JSON"))},
		{"text", "Internal Server Error", nobodys(damaged("no JSON object"))},
		{"zeros", strings.Repeat("\x00", 1000), nobodys(damaged("no JSON object"))},
		{"an array", "[" + row + "]", nobodys(damaged("no JSON object"))},
		{"a bracket too many", `{` + request + `}}`, mine(damaged("closes nothing"))},
		{"more than one", row + row, mine(damaged("behind its JSON"))},
		{"brackets", strings.Repeat("[", 1000), nobodys(damaged("nested"))},
		{"a huge request", `{"request":{"x":"` + strings.Repeat("x", maxRowRemainder) + `"}}`, nobodys(damaged("too large"))},
		{"an answer of another shape", `{` + request + `,"response":{"candidates":{"a":1}}}`, mine(damaged("decode"))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// A damaged line must not damage those beside it.
			doc := row + "\n" + test.line + "\n" + row
			for way, r := range readers(doc) {
				if len(doc) > 1<<20 && way != "whole" && way != "halves" {
					continue
				}
				rows := readRows(t, f, r, 0, int64(len(doc)))
				if len(rows) != 3 || !mine(image)(rows[0]) || !mine(image)(rows[2]) || rows[1].Offset != int64(len(row)+1) || rows[1].Length != int64(len(test.line)) {
					t.Fatalf("%s: rows %+v", way, rows)
				}
				if !test.want(rows[1]) {
					t.Errorf("%s: row %+v, error %+v", way, rows[1], rows[1].Err)
				}
			}
		})
	}
}

func TestRowsThatFailed(t *testing.T) {
	t.Parallel()
	plain := newJob(t, nil)
	withImages := newJob(t, func(m *schemas.Job) { m.References = []string{"gs://bkt/gone.png"} })
	quoted := func(code int, status, message string) string {
		return fmt.Sprintf(`{\"error\":{\"code\":%d,\"message\":\"%s\",\"status\":\"%s\"}}`, code, message, status)
	}
	tests := []struct {
		status string // as JSON, without quotes
		job    *jobs.Job
		kind   worker.Kind
		reason jobs.Reason
		code   int
		detail string
	}{
		{"Bad Request: " + quoted(400, "INVALID_ARGUMENT", "No. A red bicycle leaning against a white wall."), plain, worker.Rejected, jobs.ReasonRejected, 400, "No. [prompt]."},
		{"Bad Request: " + quoted(400, "INVALID_ARGUMENT", "Cannot fetch gs://bkt/gone.png"), withImages, worker.Rejected, jobs.ReasonReferenceUnavailable, 400, "Cannot fetch gs://bkt/gone.png"},
		{"Forbidden: " + quoted(403, "PERMISSION_DENIED", "no access to gs://bkt/gone.png"), withImages, worker.Rejected, jobs.ReasonReferenceUnavailable, 403, "no access to gs://bkt/gone.png"},
		{"Forbidden: " + quoted(403, "PERMISSION_DENIED", "no"), plain, worker.Failing, "", 403, "no"},
		{"Not Found: " + quoted(404, "NOT_FOUND", "no"), plain, worker.Failing, "", 404, "no"},
		{"RESOURCE_EXHAUSTED error occurred: " + quoted(429, "RESOURCE_EXHAUSTED", "later"), plain, worker.Throttled, "", 429, "later"},
		{"Service Unavailable: " + quoted(503, "UNAVAILABLE", "later"), plain, worker.Throttled, "", 503, "later"},
		{"Internal Server Error: " + quoted(500, "INTERNAL", "oops"), plain, worker.Failing, "", 500, "oops"},
		{"Gateway Timeout: " + quoted(504, "DEADLINE_EXCEEDED", "slow"), plain, worker.Failing, "", 504, "slow"},
		{"Client Closed Request: " + quoted(499, "CANCELLED", "cancelled"), plain, worker.Failing, "", 499, "cancelled"},
		{"Bad Request: {\\\"error\\\":{\\\"code\\\": 400, \\\"message\\\":\\\"cut he", plain, worker.Rejected, jobs.ReasonRejected, 400, `Bad Request: {"error":{"code": 400, "message":"cut he`},
		{"Bad Request: 400 INVALID_ARGUMENT", plain, worker.Rejected, jobs.ReasonRejected, 400, "Bad Request: 400 INVALID_ARGUMENT"},
		{"429 RESOURCE_EXHAUSTED. Internal quota.", plain, worker.Throttled, "", 429, "429 RESOURCE_EXHAUSTED. Internal quota."},
		{"The request was cancelled: deadline exceeded", plain, worker.Failing, "", 499, "The request was cancelled: deadline exceeded"},
		{"The job ended before this request was processed.", plain, worker.Failing, "", 0, "The job ended before this request was processed."},
		{"Something about A red bicycle leaning against a", plain, worker.Failing, "", 0, "Something about [prompt]"},
		{`{\"code\":3,\"message\":\"bad\"}`, plain, worker.Rejected, jobs.ReasonRejected, 400, "bad"},
		{`{\"code\":8,\"message\":\"later\"}`, plain, worker.Throttled, "", 429, "later"},
		{`{\"code\":13,\"message\":\"oops\"}`, plain, worker.Failing, "", 500, "oops"},
		{`{\"error\":{\"status\":\"INVALID_ARGUMENT\",\"message\":\"m\"}}`, plain, worker.Rejected, jobs.ReasonRejected, 400, "m"},
	}
	for _, test := range tests {
		f := newFormat(t)
		line := strings.Replace(rowOf(t, test.job, "1", "2", "{}"), `"status":""`, `"status":"`+test.status+`"`, 1)
		rows := readRows(t, f, strings.NewReader(line), 0, 1)
		if len(rows) != 1 || rows[0].Err == nil || rows[0].Hi != "1" || rows[0].Hash == [32]byte{} {
			t.Errorf("%s: %+v", test.status, rows)
			continue
		}
		if e := rows[0].Err; e.Kind != test.kind || e.Reason != test.reason || e.Status != test.code || e.Detail != test.detail {
			t.Errorf("%s: %v (%d, %q), detail %q", test.status, e.Kind, e.Status, e.Reason, e.Detail)
		}
	}
	object := strings.Replace(rowOf(t, plain, "1", "2", "{}"), `"status":""`, `"status":{"code":8,"message":"later"}`, 1)
	if rows := readRows(t, newFormat(t), strings.NewReader(object), 0, 1); len(rows) != 1 || rows[0].Err == nil || rows[0].Err.Kind != worker.Throttled {
		t.Errorf("a status that is no text: %+v", rows)
	}
}

func TestRowsWithoutCounts(t *testing.T) {
	t.Parallel()
	line := rowOf(t, newJob(t, nil), "1", "2", `{"candidates":[{"content":{"parts":[`+inline("image/png", pngImage(t, 4, 4))+`]},"finishReason":"STOP"}]}`)
	rows := readRows(t, newFormat(t), strings.NewReader(line), 0, 1)
	if len(rows) != 1 || rows[0].Answer == nil || rows[0].Answer.Image == nil || !rows[0].Answer.UsageMissing || rows[0].Answer.Usage != (jobs.Usage{}) {
		t.Errorf("%+v", rows)
	}
}

// Lines of different kinds and lengths. The third begins right behind the newline at byte 10.
const partsFile = "{\"a\":\"bc\"}\n\n{}\r\n   \n{\"longer\":\"line\"}\nx\n{\"last\":1}"

func TestRowsOfParts(t *testing.T) {
	t.Parallel()
	f := newFormat(t)
	for _, file := range []string{partsFile, partsFile + "\n", partsFile + "\n\n", "\n" + partsFile, "", "\n", "x"} {
		size := int64(len(file))
		want := places(readRows(t, f, strings.NewReader(file), 0, max(size, 1)))
		if strings.HasPrefix(file, "{") && len(want) != 5 {
			t.Fatalf("%d rows in %q", len(want), file)
		}
		for part := int64(1); part <= size+2; part++ {
			var got [][2]int64
			for at := int64(0); at < size; at += part {
				got = append(got, places(readRows(t, f, iotest.OneByteReader(strings.NewReader(file[at:])), at, min(part, size-at)))...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q in parts of %d (-whole +parts):\n%s", file, part, diff)
			}
		}
		// And in two parts of any size.
		for cut := int64(1); cut < size; cut++ {
			got := append(places(readRows(t, f, strings.NewReader(file), 0, cut)), places(readRows(t, f, strings.NewReader(file[cut:]), cut, size-cut))...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q cut at %d (-whole +parts):\n%s", file, cut, diff)
			}
		}
	}
	if rows := readRows(t, f, strings.NewReader(partsFile), 0, 0); len(rows) != 0 {
		t.Errorf("a part of no bytes has %d rows", len(rows))
	}
}

func places(rows []rowResult) [][2]int64 {
	var all [][2]int64
	for _, r := range rows {
		all = append(all, [2]int64{r.Offset, r.Length})
	}
	return all
}

func TestRowsErrors(t *testing.T) {
	t.Parallel()
	line := rowOf(t, newJob(t, nil), "1", "2", candidate("STOP", "", inline("image/png", pngImage(t, 64, 64)))) + "\n"
	boom := errors.New("boom")

	f := newFormat(t)
	rows := 0
	err := f.Rows(t.Context(), strings.NewReader(line+line+line), 0, 1<<40, func(row worker.OutputRow) error {
		row.Answer.Image.Blob.Release()
		if rows++; rows == 2 {
			return boom
		}
		return nil
	})
	if err != boom || rows != 2 {
		t.Errorf("each fails: %v after %d rows", err, rows)
	}

	rows = 0
	err = f.Rows(t.Context(), io.MultiReader(strings.NewReader(line+line[:len(line)/2]), iotest.ErrReader(boom)), 0, 1<<40, func(row worker.OutputRow) error {
		rows++
		row.Answer.Image.Blob.Release()
		return nil
	})
	if !errors.Is(err, boom) || rows != 1 {
		t.Errorf("reading fails: %v after %d rows", err, rows)
	}

	if err := f.Rows(t.Context(), nothing{}, 0, 10, nil); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	if err := f.Rows(ctx, strings.NewReader(line), 0, 10, nil); !errors.Is(err, boom) {
		t.Errorf("ended before: %v", err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

// A reader that waits for the budget gives up with its context, and holds nothing.
func TestRowsWaitForTheBudget(t *testing.T) {
	t.Parallel()
	budget := blob.NewBudget(capacity)
	f := NewBatchFormat(budget)
	all, err := budget.Reserve(t.Context(), capacity, capacity)
	if err != nil {
		t.Fatal(err)
	}
	line := rowOf(t, newJob(t, nil), "1", "2", candidate("STOP", "", inline("image/png", pngImage(t, 64, 64))))
	failed := rowOf(t, newJob(t, nil), "1", "2", candidate("NO_IMAGE", "")) + "\n"
	ctx, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	// A row without an image waits for nothing.
	err = f.Rows(ctx, strings.NewReader(failed+line), 0, 1<<40, func(row worker.OutputRow) error {
		if row.Answer == nil || row.Answer.Reason != jobs.ReasonNoImage {
			t.Errorf("row %+v", row)
		}
		cancel(boom)
		return nil
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	all.Release()
	checkFree(t, budget)
}

// However large the budget is and however slowly images are stored, those of outputs leave most of it to others.
func TestRowsLeaveMostOfTheBudget(t *testing.T) {
	t.Parallel()
	const size, rows = 4 << 20, 12
	line := rowOf(t, newJob(t, nil), "1", "2", candidate("STOP", "", inline("image/png", append(pngImage(t, 64, 64), make([]byte, size)...)))) + "\n"
	synctest.Test(t, func(t *testing.T) {
		budget := blob.NewBudget(256 << 20)
		f := NewBatchFormat(budget)
		stored, all := make(chan struct{}), make(chan error)
		held := 0
		go func() {
			var storing sync.WaitGroup
			err := f.Rows(t.Context(), strings.NewReader(strings.Repeat(line, rows)), 0, 1<<40, func(row worker.OutputRow) error {
				held++
				storing.Go(func() { <-stored; row.Answer.Image.Blob.Release() })
				return nil
			})
			storing.Wait()
			all <- err
		}()
		synctest.Wait()
		if used := budget.Usage().Reserved; held < 4 || held == rows || used > maxBatchImages {
			t.Errorf("%d images of %d are held, in %d bytes", held, rows, used)
		}
		close(stored)
		if err := <-all; err != nil || held != rows {
			t.Errorf("%d images of %d: %v", held, rows, err)
		}
		if used := budget.Usage().Reserved; used != 0 {
			t.Errorf("%d bytes are still held", used)
		}
	})
}

// Many readers share a budget of a single image, and hand rows to others that take their time. None may wait for ever.
func TestRowsShareABudget(t *testing.T) {
	t.Parallel()
	const readers, rows = 8, 20
	budget := blob.NewBudget(expected1K)
	f := NewBatchFormat(budget)
	kinds := []string{
		candidate("STOP", "", inline("image/png", append(pngImage(t, 64, 64), make([]byte, 300_000)...))),
		candidate("IMAGE_SAFETY", "", inline("image/png", pngImage(t, 64, 64))), // holds a blob that nobody takes
		candidate("STOP", "", thought(inline("image/png", pngImage(t, 8, 8)))),
	}
	var file strings.Builder
	for i := range rows {
		file.WriteString(rowOf(t, newJob(t, nil), "1", fmt.Sprint(i), kinds[i%len(kinds)]) + "\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	handed := make(chan worker.OutputRow, 4)
	var read, work sync.WaitGroup
	var mu sync.Mutex
	images := 0
	for range 3 {
		work.Go(func() {
			for row := range handed {
				if row.Answer.Image != nil {
					mu.Lock()
					images++
					mu.Unlock()
					row.Answer.Image.Blob.Release()
				}
			}
		})
	}
	for range readers {
		read.Go(func() {
			err := f.Rows(ctx, strings.NewReader(file.String()), 0, int64(file.Len()), func(row worker.OutputRow) error {
				handed <- row
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	read.Wait()
	close(handed)
	work.Wait()
	if want := readers * (rows + 2) / 3; images != readers*7 {
		t.Errorf("%d images, want about %d", images, want)
	}
	whole, err := budget.Reserve(ctx, expected1K, expected1K)
	if err != nil {
		t.Fatal("bytes of the budget are still held")
	}
	whole.Release()
}

// A line of any length takes no more memory than its image.
func TestRowsOfLongLines(t *testing.T) {
	const megabyte = 1 << 20
	f := newFormat(t)
	f.maxImage = 4 * megabyte
	head := strings.TrimSuffix(rowOf(t, newJob(t, nil), "1", "2", ""), "}")
	pic := base64.StdEncoding.EncodeToString(pngImage(t, 64, 36))
	pic = pic[:len(pic)&^3-4] // before its padding
	tests := []struct {
		name   string
		before string
		filler string
		after  string
		want   func(rowResult) bool
	}{
		{
			"image", head + `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + pic, "AAAA", `"}}]},"finishReason":"STOP"}],"usageMetadata":` + usageJSON + `}}`,
			func(r rowResult) bool {
				return r.Answer != nil && r.Answer.Reason == jobs.ReasonBadAnswer && strings.Contains(r.Answer.Detail, "larger") && r.Answer.Usage.Image == 1120
			},
		},
		{
			"signature", head + `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + pic + `"},"thoughtSignature":"`, "QUJD", `"}]},"finishReason":"STOP"}],"usageMetadata":` + usageJSON + `}}`,
			func(r rowResult) bool { return r.Answer != nil && r.Answer.Reason == jobs.ReasonImage },
		},
		{"text", head + `{"candidates":[{"content":{"parts":[{"text":"`, "blah", `"}]}}]}}`, func(r rowResult) bool { return r.Damaged != nil && r.Hi == "1" }},
		{"garbage", "", "blah", "", func(r rowResult) bool { return r.Damaged != nil }},
		{"white space and garbage", "", "    ", "x", func(r rowResult) bool { return r.Damaged != nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			filler := []byte(strings.Repeat(test.filler, megabyte/4))
			parts := []io.Reader{strings.NewReader(test.before)}
			for range 100 {
				parts = append(parts, bytes.NewReader(filler))
			}
			parts = append(parts, strings.NewReader(test.after+"\n"))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			rows := readRows(t, f, io.MultiReader(parts...), 0, 1)
			runtime.ReadMemStats(&after)
			if len(rows) != 1 || !test.want(rows[0]) || rows[0].Length != int64(len(test.before)+100*megabyte+len(test.after)) {
				t.Errorf("rows %+v", rows)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 40*megabyte {
				t.Errorf("%d MB were allocated for a line of 100 MB", got/megabyte)
			}
		})
	}
}

// The race of the decoder must not change what is decoded, wherever the pieces end.
func TestRowsOfAllSizes(t *testing.T) {
	t.Parallel()
	f := newFormat(t)
	job := newJob(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		pic := append(pngImage(t, 4, 4), make([]byte, rnd.IntN(4*stepSize))...)
		for i := len(pic) - rnd.IntN(200); i < len(pic); i++ {
			pic[i] = byte(rnd.Uint32())
		}
		body := candidate("STOP", "", inline("image/png", pic))
		switch rnd.IntN(4) {
		case 0:
			body = strings.ReplaceAll(body, "/", `\/`)
		case 1:
			cut := strings.Index(body, "iVBOR") + rnd.IntN(len(pic))
			body = body[:cut] + `\n` + body[cut:]
		}
		doc := rowOf(t, job, "1", "2", body)
		rows := readRows(t, f, &pieces{strings.NewReader(doc), rnd}, 0, 1)
		if len(rows) != 1 || !bytes.Equal(rows[0].image, pic) {
			t.Fatalf("%d bytes: %+v", len(pic), rows)
		}
	}
}

// pieces reads in pieces of any size, mostly large.
type pieces struct {
	r   io.Reader
	rnd *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.rnd.IntN(3) == 0 {
		return p.r.Read(b[:1+p.rnd.IntN(7)])
	}
	return p.r.Read(b[:1+p.rnd.IntN(min(len(b), 2*stepSize))])
}
