package vertextest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

const pro = "gemini-3-pro-image"

// into is a request whose image is to be written below prefix.
func into(prefix, prompt string) string {
	return strings.TrimSuffix(request(prompt), "}") + `,"outputConfig":{"outputUriPrefix":"` + prefix + `"}}`
}

func direct(kind vertextest.DirectOutput, b *buckets, log *safeBuffer) vertextest.Config {
	return vertextest.Config{
		DirectOutput: map[string]vertextest.DirectOutput{pro: kind}, CreateObject: b.create, CallLog: log, PlainPictures: true,
	}
}

func TestDirectOutputHonoured(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	var b buckets
	s := start(t, direct(vertextest.DirectHonoured, &b, &log))
	status, body := post(t, client(t, s, "h2c"), s.URL()+proPath, into("gs://bucket/jobs/7/", "A lighthouse"))
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, body)
	}
	uri, img := b.only(t)
	if !strings.HasPrefix(uri, "gs://bucket/jobs/7/") || !strings.HasSuffix(uri, "/sample_0.png") || b.types[uri] != "image/png" {
		t.Errorf("object %s of type %s", uri, b.types[uri])
	}
	if hash, _ := vertextest.PromptHash(img); hash != sum([]byte("A lighthouse")) {
		t.Error("wrong picture")
	}
	part := decode(t, body).Candidates[0].Content.Parts[0]
	if part.InlineData != nil || part.FileData == nil || part.FileData.FileURI != uri || part.FileData.MIMEType != "image/png" {
		t.Errorf("part %+v, want fileData of %s", part, uri)
	}
	if rec := log.records(t)[0]; rec.Object != uri || rec.Image != sum(img) || rec.Bytes != len(img) || !rec.Delivered {
		t.Errorf("call log %+v", rec)
	}
	// The same request again: a second object, none overwritten.
	post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/jobs/7", "A lighthouse"))
	post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket", "A lighthouse"))
	if n := b.names(); len(n) != 3 {
		t.Errorf("objects %v, want 3", n)
	}
	// Refusals write nothing; several images are several objects.
	post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/no", "x [[refuse:output]]"))
	post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/two", "x [[two]]"))
	if n := b.names(); len(n) != 5 {
		t.Errorf("objects %v, want 5", n)
	}
	if status, _ := post(t, client(t, s, "h1"), s.URL()+proPath, into("bucket/x", "x")); status != http.StatusBadRequest {
		t.Errorf("a prefix without gs:// has status %d", status)
	}
}

func TestDirectOutputNotHonoured(t *testing.T) {
	t.Parallel()
	for kind, want := range map[vertextest.DirectOutput]struct {
		status int
		text   string
	}{
		vertextest.DirectIgnored: {http.StatusOK, "inlineData"},
		vertextest.DirectRefused: {http.StatusBadRequest, "output_config.output_uri_prefix"},
		vertextest.DirectDenied:  {http.StatusForbidden, "storage.objects.create"},
	} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			var b buckets
			s := start(t, direct(kind, &b, &log))
			status, body := post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/jobs/7/", "A lighthouse"))
			if status != want.status || !strings.Contains(string(body), want.text) {
				t.Errorf("%d: %.300s; want %+v", status, body, want)
			}
			if n := len(log.records(t)); (n == 1) != (status == http.StatusOK) || len(b.names()) != 0 {
				t.Errorf("%d billed, objects %v", n, b.names())
			}
		})
	}
}

func TestDirectOutputWriteFails(t *testing.T) {
	t.Parallel()
	for status, err := range map[int]error{
		http.StatusForbidden: fs.ErrPermission, http.StatusNotFound: fs.ErrNotExist, http.StatusInternalServerError: errors.New("disk full"),
	} {
		var log safeBuffer
		b := buckets{fail: fmt.Errorf("create: %w", err)}
		s := start(t, direct(vertextest.DirectHonoured, &b, &log))
		if got, body := post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/7", "x")); got != status {
			t.Errorf("%v: %d %s, want %d", err, got, body, status)
		}
		if recs := log.records(t); len(recs) != 1 || recs[0].Delivered {
			t.Errorf("%v: call log %+v, want one undelivered image: it was made", err, recs)
		}
	}
}

// An answer may be lost after its image was written and billed.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		directive string
		status    int // 0: none
	}{{"fault:cut", http.StatusOK}, {"fault:lost503", http.StatusServiceUnavailable}, {"fault:lost", 0}} {
		t.Run(tc.directive, func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			var b buckets
			s := start(t, direct(vertextest.DirectHonoured, &b, &log))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				status, _, err := tryPost(ctx, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/7", "x [["+tc.directive+"x1]]"))
				if status != tc.status || (err == nil) != (status == http.StatusServiceUnavailable) {
					t.Errorf("status %d, error %v", status, err)
				}
			}()
			if tc.status == 0 {
				log.wait(t, 1) // billed while the client still waits
				cancel()
			}
			<-done
			cancel()
			uri, img := b.only(t)
			log.wait(t, 1)
			if rec := log.records(t)[0]; rec.Delivered || rec.Object != uri || rec.Image != sum(img) {
				t.Errorf("call log %+v", rec)
			}
			if hash, _ := vertextest.PromptHash(img); hash != sum([]byte("x [["+tc.directive+"x1]]")) {
				t.Error("wrong picture")
			}
			// Asked again, the call is served.
			if status, _ := post(t, client(t, s, "h1"), s.URL()+proPath, into("gs://bucket/7", "x [["+tc.directive+"x1]]")); status != http.StatusOK {
				t.Errorf("second call has status %d", status)
			}
		})
	}
}

func TestDirectOutputOverGRPCIsInline(t *testing.T) {
	t.Parallel()
	// The public proto has no outputConfig, so nothing can ask for it.
	var b buckets
	s := start(t, direct(vertextest.DirectHonoured, &b, &safeBuffer{}))
	resp, err := prediction(t, s).GenerateContent(t.Context(), protoRequest("x"))
	if err != nil || resp.Candidates[0].Content.Parts[0].GetInlineData() == nil || len(b.names()) != 0 {
		t.Errorf("%v, %v", resp, err)
	}
}
