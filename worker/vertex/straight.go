package vertex

import (
	"net/http"
	"regexp"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/worker"
)

// wish is whether a call asks the model to write its image to Cloud Storage itself.
type wish int

const (
	unasked  wish = iota // the image comes with the answer
	probing              // asked, and nobody knows what will come of it
	straight             // asked, and it has been honoured before
)

// outlet is what is found out once: whether a model, reached by a lane, writes into a bucket. Denials are about the bucket.
type outlet struct{ model, lane, bucket string }

func outletOf(c worker.Call) outlet {
	bucket, _, _ := strings.Cut(strings.TrimPrefix(c.Prefix, "gs://"), "/")
	return outlet{c.Job.Model.ID, c.Lane.Name, bucket}
}

// finding is what is known of an outlet.
type finding int

const (
	unknown   finding = iota
	underTest         // a probe is under way; other calls don't ask meanwhile
	honoured
	spurned // never asked again
)

// lesson is what a call that asked has taught.
type lesson struct {
	finding finding // unknown: nothing
	warn    bool
	words   string
	detail  string // of the service
}

// outlets remembers what became of wishes, for as long as the process lives. Which models honour them is not documented, and one that
// does not may ignore the wish or refuse the whole request; so one call at a time finds out.
type outlets struct {
	log *zap.Logger

	mu    sync.Mutex
	known map[outlet]finding // no more than lanes times buckets
}

// choose decides how a call asks for its image. A call that asks ends with learn.
func (o *outlets) choose(at outlet) wish {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.known[at] {
	case honoured:
		return straight
	case unknown:
		o.known[at] = underTest
		return probing
	default:
		return unasked
	}
}

// learn ends a call that asked.
func (o *outlets) learn(at outlet, how wish, l lesson) {
	o.mu.Lock()
	before := o.known[at]
	switch {
	case l.finding != unknown && before != spurned:
		o.known[at] = l.finding
	case how == probing && before == underTest:
		o.known[at] = unknown
	}
	after := o.known[at]
	o.mu.Unlock()
	if after == before || after == unknown {
		return
	}
	log := o.log.Info
	if l.warn {
		log = o.log.Warn
	}
	log(l.words, zap.String("model", at.model), zap.String("lane", at.lane), zap.String("bucket", "gs://"+at.bucket), zap.String("detail", l.detail))
}

// lesson is what a try that asked has taught. again says that the same call is to be made at once without the wish: the wish was, or may
// have been, why the service refused, and a refusal is free.
func (t *try) lesson(how wish) (l lesson, again bool) {
	switch {
	case t.err != nil && t.aboutOutput:
		return t.refusal(), true
	case t.err != nil:
		// Services are known to say no more than that an argument is invalid, or that something is forbidden.
		refused := t.err.Kind == worker.Rejected || t.err.Kind == worker.Denied && t.err.Status != 0 && t.err.Status != http.StatusUnauthorized
		return lesson{}, t.agentMissing || how == probing && refused
	case t.answer.Written != "":
		return lesson{finding: honoured, words: "the model writes its images to Cloud Storage itself"}, false
	case t.strayed:
		return lesson{finding: spurned, warn: true, words: "the model wrote an image elsewhere than it was asked to: its images come through this worker from now on", detail: t.answer.Detail}, false
	case t.images:
		return lesson{finding: spurned, words: "the model ignores the wish to write its images to Cloud Storage: they come through this worker"}, false
	default:
		return lesson{}, false
	}
}

// serviceAgent finds the account that was denied in the service's words.
var serviceAgent = regexp.MustCompile(`service-[0-9]+@gcp-sa-aiplatform[a-z-]*\.iam\.gserviceaccount\.com`)

// refusal is the lesson of a request that was refused for the wish.
func (t *try) refusal() lesson {
	l := lesson{finding: spurned, words: "the model refuses to write its images to Cloud Storage: they come through this worker", detail: t.err.Detail}
	if t.err.Status != http.StatusForbidden && t.err.Status != http.StatusNotFound {
		return l
	}
	agent := serviceAgent.FindString(t.err.Detail)
	if agent == "" {
		agent = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"
	}
	l.warn = true
	l.words = "Vertex AI may not write to the bucket, so images come through this worker. To spare it that, grant roles/storage.objectCreator on the bucket to " +
		agent + " and restart"
	return l
}

// isAboutOutput recognises that a refusal is about the wish to have the image written below a prefix.
func isAboutOutput(status int, message, prefix string, references bool) bool {
	if prefix == "" || isAgentMissing(message) {
		return false
	}
	message = strings.ToLower(message)
	names := strings.ReplaceAll(message, "_", "")
	switch {
	case strings.Contains(names, "outputuriprefix"), strings.Contains(names, "outputconfig"):
		return true
	case strings.Contains(message, strings.TrimSuffix(prefix, "/")), strings.Contains(message, "storage.objects.create"):
		return true
	case references:
		return false // which may be what it is about
	default:
		return (status == http.StatusForbidden || status == http.StatusNotFound) && isAboutReference(message)
	}
}

// isBelow reports whether an object is below a prefix.
func isBelow(uri, prefix string) bool {
	return prefix != "" && len(uri) > len(prefix) && strings.HasPrefix(uri, prefix)
}
