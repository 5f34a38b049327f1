package vertextest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

func text(s string) string { return `{"text":"` + s + `"}` }

func turn(role string, parts ...string) string {
	return `{"role":"` + role + `","parts":[` + strings.Join(parts, ",") + `]}`
}

func turns(system string, contents ...string) string {
	s := ""
	if system != "" {
		s = `"systemInstruction":{"parts":[` + text(system) + `]},`
	}
	return `{` + s + `"contents":[` + strings.Join(contents, ",") + `]}`
}

// fewShot is two examples and a prompt, with images on both sides.
func fewShot() string {
	return turns("Muted colours.",
		turn("user", text("a cup"), reference("gs://b/cup.png")), turn("model", text("done"), reference("gs://b/cup-made.png")),
		turn("user", text("a jug")), turn("model", reference("gs://b/jug-made.png")),
		turn("user", text("a bowl"), reference("gs://b/bowl.png")))
}

func TestFewShotTurns(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	s := start(t, vertextest.Config{PlainPictures: true, CallLog: &log})
	r := generate(t, s, fewShot())
	img := r.images()[0]
	if hash, _ := vertextest.PromptHash(img); hash != sum([]byte("a bowl")) {
		t.Error("the prompt is not what the user said last")
	}
	want := vertextest.HashContext("Muted colours.", []vertextest.Turn{
		{Role: "user", Parts: []vertextest.TurnPart{{Text: "a cup"}, {Image: "gs://b/cup.png"}}},
		{Role: "model", Parts: []vertextest.TurnPart{{Text: "done"}, {Image: "gs://b/cup-made.png"}}},
		{Role: "user", Parts: []vertextest.TurnPart{{Text: "a jug"}}},
		{Role: "model", Parts: []vertextest.TurnPart{{Image: "gs://b/jug-made.png"}}},
		{Role: "user", Parts: []vertextest.TurnPart{{Text: "a bowl"}, {Image: "gs://b/bowl.png"}}},
	})
	if got, ok := vertextest.ContextHash(img); !ok || got != want || log.records(t)[0].Context != want {
		t.Errorf("context %s %v, log %s, want %s", got, ok, log.records(t)[0].Context, want)
	}
	if r.UsageMetadata.PromptTokenCount < 4*560 {
		t.Errorf("%d prompt tokens for 4 images", r.UsageMetadata.PromptTokenCount)
	}
	if _, ok := vertextest.ContextHash(generate(t, s, request("a bowl")).images()[0]); ok {
		t.Error("a lone text has a context")
	}
}

// Whatever is mixed up in a request, the picture shows it.
func TestPictureDependsOnAllTurns(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	base := fewShot()
	seen := map[string]string{}
	for name, body := range map[string]string{
		"base":             base,
		"text of a turn":   strings.Replace(base, "a cup", "a mug", 1),
		"text of an answr": strings.Replace(base, `"done"`, `"made"`, 1),
		"image of a turn":  strings.Replace(base, "b/cup.png", "b/mug.png", 1),
		"image of answer":  strings.Replace(base, "jug-made", "mug-made", 1),
		"images exchanged": strings.NewReplacer("cup-made", "jug-made", "jug-made", "cup-made").Replace(base),
		"system":           strings.Replace(base, "Muted", "Loud", 1),
		"no system":        strings.Replace(base, `"systemInstruction":{"parts":[`+text("Muted colours.")+`]},`, "", 1),
		"order of parts":   strings.Replace(base, text("a bowl")+","+reference("gs://b/bowl.png"), reference("gs://b/bowl.png")+","+text("a bowl"), 1),
		"one turn":         turns("Muted colours.", turn("user", text("a bowl"), reference("gs://b/bowl.png"))),
		"prompt alone":     request("a bowl"),
		"image alone":      turns("", turn("user", text("a bowl"), reference("gs://b/bowl.png"))),
	} {
		img := generate(t, s, body).images()[0]
		hash, _ := vertextest.RequestHash(img)
		if other := seen[hash]; other != "" {
			t.Errorf("%s and %s have the same picture", name, other)
		}
		seen[hash] = name
	}
}

func TestTurnsAreChecked(t *testing.T) {
	t.Parallel()
	s := start(t, vertextest.Config{PlainPictures: true})
	// shots makes n images in as many examples, and one more turn.
	shots := func(n int) string {
		var contents []string
		for i := range n {
			contents = append(contents, turn("user", text("x")), turn("model", reference(fmt.Sprintf("gs://b/%d.png", i))))
		}
		return turns("", append(contents, turn("user", text("x")))...)
	}
	long := strings.Repeat("word", 40_000)
	for name, tc := range map[string]struct {
		body, want string // empty: accepted
	}{
		"14 images over turns": {shots(14), ""},
		"15 images over turns": {shots(15), "15 image parts"},
		"model first":          {turns("", turn("model", text("x")), turn("user", text("x"))), "start with a user role"},
		"model last":           {turns("", turn("user", text("x")), turn("model", text("x"))), "end with a user role"},
		"two users":            {turns("", turn("user", text("x")), turn("user", text("x"))), "alternate"},
		"two models":           {turns("", turn("user", text("x")), turn("model", text("x")), turn("model", text("x")), turn("user", text("x"))), "alternate"},
		"model alone":          {turns("", turn("model", text("x"))), "start with a user role"},
		"no role in a turn":    {turns("", turn("user", text("x")), turn("", text("x")), turn("user", text("x"))), "valid role"},
		"system role":          {turns("", turn("system", text("x")), turn("user", text("x"))), "valid role"},
		"empty turn":           {turns("", turn("user"), turn("model", text("x")), turn("user", text("x"))), "parts field"},
		"system of an image":   {strings.Replace(turns("y", turn("user", text("x"))), text("y"), reference("gs://b/a.png"), 1), "only text parts"},
		"empty system":         {strings.Replace(turns("y", turn("user", text("x"))), text("y"), "", 1), "system_instruction"},
		"tokens of all turns":  {turns("", turn("user", text(long)), turn("model", text(long)), turn("user", text("x"))), "input token count is 80001"},
		"8,192 tokens":         {turns("Short.", turn("user", text(strings.Repeat("word", 8192)), reference("gs://b/a.png"))), ""},
	} {
		status, body := post(t, client(t, s, "h1"), s.URL()+proPath, tc.body)
		if tc.want == "" {
			if status != http.StatusOK {
				t.Errorf("%s: %d %.300s", name, status, body)
			}
			continue
		}
		message, canonical := errorOf(t, status, body)
		if status != http.StatusBadRequest || canonical != "INVALID_ARGUMENT" || !strings.Contains(message, tc.want) {
			t.Errorf("%s: %d %q, want %q", name, status, message, tc.want)
		}
	}
	// Counting tokens takes any order: it is no conversation yet.
	if status, body := post(t, client(t, s, "h1"), s.URL()+modelPath("v1", "global", pro, "countTokens"), turns("", turn("model", text("x")))); status != http.StatusOK {
		t.Errorf("countTokens: %d %s", status, body)
	}
}
