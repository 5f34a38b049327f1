package vertextest

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dice gives the random numbers of one call. Each name has its own number, so
// that a new knob does not change what the others decide.
type dice struct{ key [sha256.Size]byte }

func newDice(seed uint64, content []byte, number int) dice {
	b := binary.BigEndian.AppendUint64(nil, seed)
	b = binary.BigEndian.AppendUint64(b, uint64(number))
	return dice{sha256.Sum256(append(b, content...))}
}

// unit returns a number in [0, 1).
func (d dice) unit(name string) float64 {
	sum := sha256.Sum256(append(d.key[:], name...))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// decide chooses the fate of a call: the rates, then the directives in the
// prompt, then the hook.
func (s *Server) decide(c *Call) Fate {
	d := newDice(s.cfg.Seed, c.content[:], c.Number)
	f := s.modelFate(d)
	f.Latency = s.latency(c)
	s.cfg.Faults.apply(&f, d)
	if strings.Contains(c.Prompt, "[[") {
		applyDirectives(&f, c.Prompt, s.seen.countPrompt(c.promptSum))
	}
	if s.cfg.Hook != nil {
		f = s.cfg.Hook(c, f)
	}
	f.tidyStatus()
	return f
}

// modelFate chooses what does not depend on how the model was asked.
func (s *Server) modelFate(d dice) Fate {
	f := Fate{
		TextPart:     d.unit("text") < s.cfg.TextPart,
		ThoughtImage: d.unit("thought") < s.cfg.ThoughtImage,
		NoUsage:      d.unit("usage") < s.cfg.MissingUsage,
		Bytes:        s.cfg.ImageBytes,
	}
	s.cfg.Refusals.apply(&f, d)
	return f
}

// tidyStatus repairs what a hook may leave behind.
func (f *Fate) tidyStatus() {
	if f.Status < 400 || f.Status > 599 {
		f.Status = 0
	}
	if f.Fault == FaultStatus && f.Status == 0 {
		f.Status = 500 // a hook may set the fault and leave the status
	}
}

// latency is fixed by prompt and seed alone, so that a repeated call takes as long.
func (s *Server) latency(c *Call) time.Duration {
	spread := s.cfg.MaxLatency - s.cfg.MinLatency
	if spread == 0 {
		return s.cfg.MinLatency
	}
	key := c.promptSum[:]
	if c.Seed != nil {
		key = binary.BigEndian.AppendUint32(key[:len(key):len(key)], uint32(*c.Seed))
	}
	u := newDice(s.cfg.Seed, key, 0).unit("latency")
	return s.cfg.MinLatency + time.Duration(u*float64(spread))
}

func (r Refusals) apply(f *Fate, d dice) {
	u := d.unit("refusal")
	for _, kind := range []struct {
		share   float64
		refusal Refusal
		reasons []string
	}{
		{r.Prompt, RefusalPrompt, []string{"PROHIBITED_CONTENT", "SAFETY", "BLOCKLIST", "OTHER", "IMAGE_SAFETY"}},
		{r.Output, RefusalOutput, []string{"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "SAFETY", "PROHIBITED_CONTENT"}},
		{r.Text, RefusalText, []string{""}},
		{r.NoImage, RefusalOutput, []string{"NO_IMAGE"}},
	} {
		if u < kind.share {
			f.Refusal = kind.refusal
			f.Reason = kind.reasons[int(d.unit("reason")*float64(len(kind.reasons)))]
			return
		}
		u -= kind.share
	}
}

func (r Faults) apply(f *Fate, d dice) {
	u := d.unit("fault")
	for _, kind := range []struct {
		share  float64
		fault  Fault
		status int
	}{
		{r.Internal, FaultStatus, 500},
		{r.Unavailable, FaultStatus, 503},
		{r.Hang, FaultHang, 0},
		{r.Cut, FaultCut, 0},
		{r.Garbage, FaultGarbage, 0},
		{r.Slow, FaultSlow, 0},
		{r.Lost, FaultLost, 0},
	} {
		if u < kind.share {
			f.Fault, f.Status = kind.fault, kind.status
			return
		}
		u -= kind.share
	}
}

var (
	directive = regexp.MustCompile(`\[\[(refuse|fault|text|thought|two|nousage|escape|bytes|latency|batch)(?::([^\[\]]*))?\]\]`)
	firstN    = regexp.MustCompile(`^(.*)x([0-9]{1,6})$`)
)

// directives returns the names and arguments of the directives that count for
// a call with so many before it.
func directives(prompt string, before int) iter.Seq2[string, string] {
	return func(yield func(name, arg string) bool) {
		for _, m := range directive.FindAllStringSubmatch(prompt, -1) {
			name, arg := m[1], m[2]
			if n := firstN.FindStringSubmatch(arg); n != nil {
				limit, err := strconv.Atoi(n[2])
				if err != nil || before >= limit {
					continue
				}
				arg = n[1]
			}
			if !yield(name, arg) {
				return
			}
		}
	}
}

// applyDirectives reads the directives in prompt; before is how many calls
// with this prompt were decided earlier.
func applyDirectives(f *Fate, prompt string, before int) {
	for name, arg := range directives(prompt, before) {
		switch name {
		case "refuse":
			directRefusal(f, arg)
		case "fault":
			directFault(f, arg)
		case "text":
			f.TextPart = true
		case "thought":
			f.ThoughtImage = true
		case "two":
			f.TwoImages = true
		case "nousage":
			f.NoUsage = true
		case "escape":
			f.Escape = true
		case "bytes":
			if n, err := strconv.Atoi(arg); err == nil && n >= 0 && n <= maxImageBytes {
				f.Bytes = n
			}
		case "latency":
			if d, err := time.ParseDuration(arg); err == nil && d >= 0 && d <= maxLatency {
				f.Latency = d
			}
		}
	}
}

func directRefusal(f *Fate, arg string) {
	kind, reason, _ := strings.Cut(arg, ":")
	switch kind {
	case "":
	case "prompt":
		f.Refusal, f.Reason = RefusalPrompt, "PROHIBITED_CONTENT"
		if reason != "" {
			f.Reason = reason
		}
	case "output":
		f.Refusal, f.Reason = RefusalOutput, "IMAGE_SAFETY"
	case "text":
		f.Refusal, f.Reason = RefusalText, ""
	case "none":
		f.Refusal, f.Reason = RefusalOutput, "NO_IMAGE"
	default:
		f.Refusal, f.Reason = RefusalOutput, kind
	}
}

func directFault(f *Fate, arg string) {
	faults := map[string]Fault{"hang": FaultHang, "cut": FaultCut, "garbage": FaultGarbage, "slow": FaultSlow, "lost": FaultLost}
	if fault, ok := faults[arg]; ok {
		f.Fault, f.Status = fault, 0
		return
	}
	kind := FaultStatus
	text, after := strings.CutPrefix(arg, "lost")
	if after {
		kind = FaultLost
	}
	if status, err := strconv.Atoi(text); err == nil && status >= 400 && status <= 599 {
		f.Fault, f.Status = kind, status
	}
}

// withoutDirectives is the prompt as a person should see it on the picture.
func withoutDirectives(prompt string) string {
	return strings.TrimSpace(directive.ReplaceAllString(prompt, ""))
}

// maxSeen bounds each table of counts to about 100 MB. A simulated day has 1.2
// million requests.
const maxSeen = 2 << 20

// seen counts how often each request and each prompt came. When a table is
// full it starts again from nothing: counts are then too low, memory is not too high.
type seen struct {
	mu      sync.Mutex
	content map[uint64]uint32
	prompts map[uint64]uint32
}

func (s *seen) countContent(sum [sha256.Size]byte) int { return s.count(&s.content, sum) }
func (s *seen) countPrompt(sum [sha256.Size]byte) int  { return s.count(&s.prompts, sum) }

func (s *seen) count(table *map[uint64]uint32, sum [sha256.Size]byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *table == nil || len(*table) >= maxSeen {
		*table = map[uint64]uint32{}
	}
	key := binary.BigEndian.Uint64(sum[:8])
	n := (*table)[key]
	(*table)[key] = n + 1
	return int(n)
}
