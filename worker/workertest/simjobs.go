package workertest

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// What jobs are like. Everything about a job follows from its number, so nothing about it is kept.

const idPrefix = "day-"

func jobID(n int) string { return fmt.Sprintf("%s%07d", idPrefix, n) }

// jobNumber is the reverse of jobID; false for another's id.
func jobNumber(id string) (int, bool) {
	digits, ok := strings.CutPrefix(id, idPrefix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

// prompt is the prompt of a job. One job in fifty asks for the same as the one before it.
func prompt(n int) string {
	n = firstOf(n)
	return fmt.Sprintf("product photo %d: a red fox on a %d-legged chair", n, n%7)
}

// firstOf returns the first job with the same prompt.
func firstOf(n int) int {
	if n%50 == 1 {
		n--
	}
	return n
}

// twinOf returns the other job with the same prompt, or the job itself if there is none.
func twinOf(n int) int {
	switch n % 50 {
	case 0:
		return n + 1
	case 1:
		return n - 1
	default:
		return n
	}
}

// submission names the file that a job came in; jobs that come one by one have a submission an hour of the day.
func (s *sim) submission(n int) string {
	if u := s.uploadOf(n); u >= 0 {
		return fmt.Sprintf("file-%d", u)
	}
	return fmt.Sprintf("direct-%d", n*24/s.cfg.Jobs)
}

func (s *sim) uploadOf(n int) int {
	for i, u := range s.plan.uploads {
		if u.from <= n && n < u.to {
			return i
		}
	}
	return -1
}

// message kinds.
type messageKind uint8

const (
	valid    messageKind = iota
	conflict             // the id of a job that has ended, with another prompt
	junk                 // no JSON
	invalid              // a job for a model that nobody has
)

// region is the data region of a job, and modelOf its model.
func (s *sim) region(n int) string {
	switch r := s.dice.roll(saltJob, uint64(n), 5); {
	case r < 0.06:
		return europe
	case r < 0.10:
		return america
	case r < 0.101:
		return unserved
	default:
		return jobs.GlobalRegion
	}
}

func (s *sim) modelOf(n int) string {
	if s.dice.roll(saltJob, uint64(n), 5) < 0.13 {
		return flashModel
	}
	return proModel
}

// mode is how a job's producer wants it served: files as a whole, others one by one.
func (s *sim) mode(n int) jobs.Mode {
	about, salt := uint64(n), uint64(6)
	if u := s.uploadOf(n); u >= 0 {
		about, salt = uint64(u), 7
	}
	if s.dice.roll(saltJob, about, salt) < s.cfg.Batch && !s.hasDeadline(n) && s.region(n) != america {
		return jobs.Batch
	}
	return jobs.Online
}

func topicOf(m jobs.Mode) topic {
	if m == jobs.Batch {
		return batchJobs
	}
	return onlineJobs
}

func (t topic) mode() jobs.Mode {
	if t == batchJobs {
		return jobs.Batch
	}
	return jobs.Online
}

// laneless reports whether no lane serves a job, ever.
func (s *sim) laneless(n int) bool { return s.region(n) == unserved }

// data is a message's body, as a worker with that skew of its clock sees it. Nothing in the spine but a deadline is compared with the
// worker's own clock, so moving the deadline against the clock is the same as moving the clock.
func (s *sim) data(m *message, skew time.Duration) []byte {
	n := int(m.job)
	switch {
	case m.topic == handoffs:
		return s.handoffData(n)
	case m.kind == junk:
		return fmt.Appendf(nil, `{"prompt": broken %d`, n)
	case m.kind == invalid:
		return fmt.Appendf(nil, `{"prompt":"x %d","model":"dall-e-3"}`, n)
	case m.kind == conflict:
		return fmt.Appendf(nil, `{"id":%q,"prompt":"something else than %d","campaign":"c%d","mode":%q}`, jobID(n), n, n%8, m.topic.mode())
	}
	deadline := ""
	if s.hasDeadline(n) {
		at := s.began.Add(s.firstPublished(n) + deadlineAfter - skew)
		deadline = `,"deadline":"` + at.UTC().Format(time.RFC3339) + `"`
	}
	return fmt.Appendf(nil, `{"id":%q,"prompt":%q,"campaign":"c%d","submission":%q,"source":{"sku":"%d"},"model":%q,"region":%q,"mode":%q%s}`,
		jobID(n), prompt(n), n%8, s.submission(n), n, s.modelOf(n), s.region(n), m.topic.mode(), deadline)
}

// invalidID is the id under which lineage records a message that is no valid job, or whose id belongs to another.
func (s *sim) invalidID(m int, msg *message) string {
	data := s.data(msg, 0)
	if msg.kind != conflict {
		return jobs.InvalidID(messageID(m), data)
	}
	j := &schemas.Job{}
	if err := schemas.Unmarshal(data, j); err != nil {
		return ""
	}
	job, err := s.catalogue.Parse(j)
	if err != nil {
		return ""
	}
	return job.ConflictID()
}

const (
	deadlineShare = 0.01
	deadlineAfter = time.Hour
)

func (s *sim) hasDeadline(n int) bool { return s.dice.roll(saltJob, uint64(n), 1) < deadlineShare }

// firstPublished is when a job is first published, by the plan.
func (s *sim) firstPublished(n int) time.Duration {
	if u := s.uploadOf(n); u >= 0 {
		return s.plan.uploads[u].at
	}
	return s.steadyAt(n)
}

// steadyAt is when a job that comes alone is published.
func (s *sim) steadyAt(n int) time.Duration {
	steady := s.plan.uploads[0].from
	return time.Duration(float64(s.cfg.day()) * float64(n) / float64(steady))
}

var refusals = []jobs.Reason{jobs.ReasonPromptFilter, jobs.ReasonOutputFilter, jobs.ReasonModelDeclined, jobs.ReasonNoImage}

// refusal returns why the model refuses the job, whoever asks and however often; "" when it does not.
func (s *sim) refusal(n int) jobs.Reason {
	if r := s.dice.roll(saltJob, uint64(firstOf(n)), 2); r < 0.03 {
		return refusals[int(r/0.03*float64(len(refusals)))]
	}
	return ""
}

// rejected says whether the service can never serve the job.
func (s *sim) rejected(n int) bool { return s.dice.roll(saltJob, uint64(firstOf(n)), 3) < 0.002 }

// rowRefused says whether lineage can never store the job's row.
func (s *sim) rowRefused(n int) bool {
	return s.cfg.Faults&RowRefused != 0 && s.dice.roll(saltJob, uint64(n), 4) < 0.0005
}

// picture is the image of the call-th call for a job. It names its job, and its bytes differ from call to call.
func (s *sim) picture(n, call int) []byte {
	hash := sha256.Sum256([]byte(prompt(n)))
	text := fmt.Appendf(nil, "simulated image\njob %s\nprompt %x\ncall %d\n", s.id(n), hash, call)
	x := s.dice.bits(saltImage, uint64(n), uint64(call))
	for range 4 + x%100 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		text = append(text, byte(x), byte(x>>8), byte(x>>16), byte(x>>24))
	}
	return text
}

// pictureOf tells which job and prompt a picture is of.
func pictureOf(content []byte) (id, promptHash string, ok bool) {
	lines := strings.SplitN(string(content), "\n", 4)
	if len(lines) != 4 {
		return "", "", false
	}
	id, ok1 := strings.CutPrefix(lines[1], "job ")
	promptHash, ok2 := strings.CutPrefix(lines[2], "prompt ")
	return id, promptHash, ok1 && ok2
}

func hash64(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data)
	return h.Sum64()
}
