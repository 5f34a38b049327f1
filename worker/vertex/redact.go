package vertex

import (
	"strings"
	"unicode/utf8"

	"github.com/assetmill/assetmill/jobs"
)

const (
	// maxDetailBytes bounds what is kept of the service's and the model's words: enough for a sentence with a support code.
	maxDetailBytes = 500
	// anchorBytes is how much of a prompt's beginning must be repeated to be cut out. Shortened prompts are found by it.
	anchorBytes = 24
	redacted    = "[prompt]"
)

// detail returns words of the service in one line, without the job's prompts and system instruction, shortened.
func detail(j *jobs.Job, words string) string {
	secrets := []string{j.Prompt, j.System}
	for _, t := range j.Turns {
		secrets = append(secrets, t.Prompt)
	}
	for _, s := range secrets {
		words = redact(words, s)
	}
	words = oneLine(words)
	// Once more, for texts that repeat a prompt with other white space.
	for _, s := range secrets {
		words = redact(words, oneLine(s))
	}
	if len(words) <= maxDetailBytes {
		return words
	}
	cut := maxDetailBytes - len("…")
	for cut > 0 && !utf8.RuneStart(words[cut]) {
		cut--
	}
	return words[:cut] + "…"
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "�")), " ")
}

// redact cuts out every place where the text repeats the secret, whole or from its beginning on.
func redact(text, secret string) string {
	secret = strings.TrimSpace(secret)
	if secret == "" {
		return text
	}
	anchor := secret[:min(anchorBytes, len(secret))]
	var out strings.Builder
	for {
		at := strings.Index(text, anchor)
		if at < 0 {
			out.WriteString(text)
			return out.String()
		}
		n := len(anchor)
		for n < len(secret) && at+n < len(text) && text[at+n] == secret[n] {
			n++
		}
		out.WriteString(text[:at] + redacted)
		text = text[at+n:]
	}
}
