package vertextest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a request, as documented.
const (
	maxRequestBytes = 20 << 20 // whole body; the real limit is unpublished, 20 MB is the figure clients quote
	maxInlineBytes  = 7 << 20  // one inline file
	maxURLs         = 10       // public HTTPS references
	maxLabels       = 64
	bytesPerToken   = 4 // estimate; the real tokenizer is not public
	defaultTimeout  = 600 * time.Second
	maxTimeout      = 1800 * time.Second // granted on Flex
)

// Call is one request that passed validation.
type Call struct {
	// Method is generateContent, predict or batch.
	Method string
	// Project, Location and Model from the resource name. For predict, Model is
	// the endpoint id.
	Project, Location, Model string
	// Tier is one of the Tier constants: the one that serves the call.
	Tier string
	// Prompt is the text parts of what the user said last, joined by newlines.
	// System is the system instruction.
	Prompt, System string
	// Turns are all contents. Empty for predict.
	Turns []Turn
	// References are the URIs of the images in all turns; an inline image
	// stands as "inline:" and the SHA-256 of its bytes.
	References []string
	Labels     map[string]string
	// Seed is nil when the request has none.
	Seed              *int32
	Size, AspectRatio string
	// MIMEType of the image asked for: image/png or image/jpeg.
	MIMEType string
	// Quality of a JPEG, 1 to 100; 0 is the encoder's default.
	Quality int
	// OutputPrefix is where the images go, as gs://bucket/prefix; empty when they
	// go into the answer.
	OutputPrefix string
	// Number says how often the same request came before, from 0.
	Number int
	// Header holds the request headers (REST) or metadata (gRPC).
	Header http.Header

	model     *Model
	textOnly  bool // responseModalities without IMAGE
	thoughts  bool // thinkingConfig.includeThoughts
	spills    bool // provisioned throughput may serve it before Tier does
	inTokens  int
	content   [sha256.Size]byte
	timeout   time.Duration
	promptSum [sha256.Size]byte
	context   string // HashContext, if there is more than one text
}

// PromptSHA256 returns the SHA-256 of the prompt in hex, as the call log and
// the images carry it.
func (c *Call) PromptSHA256() string { return hex.EncodeToString(c.promptSum[:]) }

// resource is what a path or a gRPC resource name says.
type resource struct{ project, location, model string }

func (r resource) name() string {
	return "projects/" + r.project + "/locations/" + r.location + "/publishers/google/models/" + r.model
}

var resourceName = regexp.MustCompile(`^projects/([^/]+)/locations/([^/]+)/publishers/google/models/([^/:]+)$`)

func parseResource(name string) (resource, bool) {
	m := resourceName.FindStringSubmatch(name)
	if m == nil {
		return resource{}, false
	}
	return resource{m[1], m[2], m[3]}, true
}

// lookUp finds the model where it is asked for.
func (s *Server) lookUp(r resource) (*Model, *apiError) {
	for i := range s.cfg.Models {
		m := &s.cfg.Models[i]
		if m.ID == r.model && slices.Contains(m.Locations, r.location) {
			return m, nil
		}
	}
	e := statusError(http.StatusNotFound)
	e.Message = fmt.Sprintf("Publisher Model `%s` was not found or your project does not have access to it. "+
		"Please ensure you are using a valid model version. For more information, see: "+
		"https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions", r.name())
	return nil, e
}

// newCall validates a generateContent request in the order in which the
// service does: shape (done by decodeTree), model, values, then references.
func (s *Server) newCall(ctx context.Context, r resource, t tree, header http.Header) (*Call, *apiError) {
	model, err := s.lookUp(r)
	if err != nil {
		return nil, err
	}
	c := &Call{
		Method: "generateContent", Project: r.project, Location: r.location, Model: r.model,
		Header: header, model: model, thoughts: t.get("generationConfig", "thinkingConfig", "includeThoughts") == true,
	}
	c.Tier = tierOf(header, model, r.location)
	c.spills = header.Get("X-Vertex-AI-LLM-Request-Type") == ""
	if c.timeout, err = serverTimeout(header, c.Tier); err != nil {
		return nil, err
	}
	if err := s.readCall(ctx, c, t); err != nil {
		return nil, err
	}
	if err := s.setOutput(c, t); err != nil {
		return nil, err
	}
	c.seal(t)
	return c, nil
}

// readCall reads and checks what online and batch requests have in common.
func (s *Server) readCall(ctx context.Context, c *Call, t tree) *apiError {
	for _, step := range []func(tree) *apiError{c.setContents, c.checkTurns, c.setLabels, c.setConfig} {
		if err := step(t); err != nil {
			return err
		}
	}
	if c.inTokens > c.model.MaxInputTokens {
		return invalid("Unable to submit request because the input token count is %d but model only supports up to %d. "+
			"Reduce the input token count and try again. You can also use the CountTokens API to calculate prompt token count.",
			c.inTokens, c.model.MaxInputTokens)
	}
	return s.checkReferences(ctx, c)
}

func tierOf(h http.Header, m *Model, location string) string {
	kind := strings.ToLower(h.Get("X-Vertex-AI-LLM-Request-Type"))
	shared := strings.ToLower(h.Get("X-Vertex-AI-LLM-Shared-Request-Type"))
	switch {
	case kind == "dedicated":
		return TierProvisioned
	case shared == "flex" && m.Flex && location == "global":
		return TierFlex
	default:
		return TierStandard // a tier that the model lacks is served as standard; trafficType tells
	}
}

func serverTimeout(h http.Header, tier string) (time.Duration, *apiError) {
	v := h.Get("X-Server-Timeout")
	if v == "" {
		return defaultTimeout, nil
	}
	seconds, err := strconv.ParseFloat(v, 64)
	if err != nil || seconds <= 0 {
		return 0, invalid("Invalid value for header X-Server-Timeout: %q", v)
	}
	limit := defaultTimeout
	if tier == TierFlex {
		limit = maxTimeout
	}
	// Compare as floats: a huge header would overflow a Duration.
	return time.Duration(min(seconds, limit.Seconds()) * float64(time.Second)), nil
}

func checkImageType(mime string) *apiError {
	switch mime {
	case "image/png", "image/jpeg", "image/webp", "image/heic", "image/heif":
		return nil
	}
	return invalid("Unable to submit request because it has a mimeType parameter with value %s, which is not supported. Update the mimeType and try again.", mime)
}

func splitGS(uri string) (bucket, object string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	if !ok {
		return "", "", false
	}
	bucket, object, _ = strings.Cut(rest, "/")
	return bucket, object, bucket != "" && object != ""
}

func (s *Server) checkReferences(ctx context.Context, c *Call) *apiError {
	if s.cfg.ReferenceExists == nil {
		return nil
	}
	for _, uri := range c.References {
		bucket, object, ok := splitGS(uri)
		if !ok {
			continue
		}
		exists, err := s.cfg.ReferenceExists(ctx, bucket, object)
		if err != nil {
			return statusError(http.StatusInternalServerError)
		}
		if !exists {
			return invalid("Invalid or unsupported file uri: %s. No such object: %s/%s", uri, bucket, object)
		}
	}
	return nil
}

var (
	labelKey   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	labelValue = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
)

func (c *Call) setLabels(t tree) *apiError {
	labels, _ := t.get("labels").(map[string]any)
	texts := make(map[string]string, len(labels))
	for key, value := range labels {
		texts[key], _ = value.(string)
	}
	var err *apiError
	c.Labels, err = readLabels(texts)
	return err
}

// readLabels checks labels. None are nil.
func readLabels(labels map[string]string) (map[string]string, *apiError) {
	if len(labels) == 0 {
		return nil, nil
	}
	if len(labels) > maxLabels {
		return nil, invalid("Too many labels: %d. At most %d are allowed.", len(labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !labelKey.MatchString(key) {
			return nil, invalid("Invalid label key %q: it must start with a lower-case letter and have up to 63 lower-case letters, digits, underscores and dashes.", key)
		}
		if !labelValue.MatchString(labels[key]) {
			return nil, invalid("Invalid label value %q of key %q: it must have up to 63 lower-case letters, digits, underscores and dashes.", labels[key], key)
		}
	}
	return labels, nil
}

func (c *Call) setConfig(t tree) *apiError {
	config, _ := t.get("generationConfig").(map[string]any)
	g := tree(config)
	if seed, ok := g["seed"].(int32); ok {
		c.Seed = &seed
	}
	if n, ok := g["candidateCount"].(int32); ok && n != 1 {
		return invalid("Unable to submit request because candidateCount must be 1 but was %d.", n)
	}
	if v, ok := g["temperature"].(float64); ok && (v < 0 || v > 2) {
		return invalid("Unable to submit request because it has a temperature value of %v but the supported range is from 0 (inclusive) to 2 (inclusive). Update the value and try again.", v)
	}
	if v, ok := g["topP"].(float64); ok && (v < 0 || v > 1) {
		return invalid("Unable to submit request because it has a topP value of %v but the supported range is from 0 (inclusive) to 1 (inclusive). Update the value and try again.", v)
	}
	modalities, _ := g["responseModalities"].([]any)
	c.textOnly = len(modalities) > 0 && !slices.Contains(modalities, any("IMAGE"))
	for _, m := range modalities {
		if m != "TEXT" && m != "IMAGE" {
			return invalid("Unable to submit request because response modality %v is not supported by model %s.", m, c.Model)
		}
	}
	if t["modelArmorConfig"] != nil && len(t.objects("safetySettings")) > 0 {
		return invalid("Only one of safety_settings and model_armor_config can be set.")
	}
	return c.setImage(g)
}

// setImage reads imageConfig, or responseFormat, its replacement.
func (c *Call) setImage(g tree) *apiError {
	c.AspectRatio, c.Size, c.MIMEType = g.text("imageConfig", "aspectRatio"), g.text("imageConfig", "imageSize"), "image/png"
	mime := g.text("imageConfig", "imageOutputOptions", "mimeType")
	if q, ok := g.get("imageConfig", "imageOutputOptions", "compressionQuality").(int32); ok {
		if q < 0 || q > 100 {
			return invalid("compression_quality must be between 0 and 100 but was %d.", q)
		}
		c.Quality = int(q)
	}
	for _, format := range g.objects("responseFormat") {
		if format["image"] == nil {
			continue
		}
		if g["imageConfig"] != nil {
			return invalid("Only one of image_config and response_format can be set.")
		}
		c.AspectRatio = formatRatio(format.text("image", "aspectRatio"))
		c.Size = formatSize(format.text("image", "imageSize"))
		if format.text("image", "mimeType") == "IMAGE_JPEG" {
			mime = "image/jpeg"
		}
	}
	if c.AspectRatio == "" {
		c.AspectRatio = "1:1"
	}
	if c.Size == "" {
		c.Size = size1K
	}
	if mime != "" {
		c.MIMEType = mime
	}
	if !slices.Contains(c.model.Ratios, c.AspectRatio) {
		return invalid("Aspect ratio %q is not supported by model %s. Supported values: %s.", c.AspectRatio, c.Model, strings.Join(c.model.Ratios, ", "))
	}
	if !slices.Contains(c.model.Sizes, c.Size) {
		return invalid("Image size %q is not supported by model %s. Supported values: %s.", c.Size, c.Model, strings.Join(c.model.Sizes, ", "))
	}
	if c.MIMEType != "image/png" && c.MIMEType != "image/jpeg" {
		return invalid("Image output MIME type %q is not supported. Supported values: image/png, image/jpeg.", c.MIMEType)
	}
	return nil
}

// formatRatio turns ASPECT_RATIO_TWENTY_ONE_BY_NINE into 21:9. A name that it
// cannot read comes back as it is, to be refused by name.
func formatRatio(name string) string {
	words := map[string]string{
		"ONE": "1", "TWO": "2", "THREE": "3", "FOUR": "4", "FIVE": "5", "EIGHT": "8",
		"NINE": "9", "SIXTEEN": "16", "TWENTY_ONE": "21",
	}
	if name == "ASPECT_RATIO_UNSPECIFIED" {
		return ""
	}
	a, b, _ := strings.Cut(strings.TrimPrefix(name, "ASPECT_RATIO_"), "_BY_")
	if words[a] == "" || words[b] == "" {
		return name
	}
	return words[a] + ":" + words[b]
}

func formatSize(name string) string {
	switch name {
	case "IMAGE_SIZE_FIVE_TWELVE":
		return size512
	case "IMAGE_SIZE_ONE_K":
		return size1K
	case "IMAGE_SIZE_TWO_K":
		return size2K
	case "IMAGE_SIZE_FOUR_K":
		return size4K
	}
	return ""
}

// seal hashes what makes a request the same request: everything in the body,
// the resource and the tier, but not the API version, the transport or the
// order of keys. The hash is over the decoded tree, which Go prints with sorted keys.
func (c *Call) seal(t tree) {
	h := sha256.New()
	field := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, s := range []string{c.Method, c.Project, c.Location, c.Model, c.Tier} {
		field([]byte(s))
	}
	delete(t, "model") // REST has it in the path only
	for _, key := range slices.Sorted(maps.Keys(t)) {
		field([]byte(key))
		if key == "contents" {
			// Inline images are already hashed in References: printing them again would cost megabytes.
			field([]byte(c.Prompt))
			field([]byte(strings.Join(c.References, "\n")))
			continue
		}
		field(fmt.Append(nil, t[key])) // fmt prints maps in key order
	}
	if c.hasContext() {
		c.context = HashContext(c.System, c.Turns)
		field([]byte(c.context))
	}
	h.Sum(c.content[:0])
	c.promptSum = sha256.Sum256([]byte(c.Prompt))
}

// variant is what tells two calls with the same prompt apart in the drawing.
func (c *Call) variant() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		fmt.Fprintf(&b, "%s=%s;", key, c.Labels[key])
	}
	return b.String()
}
