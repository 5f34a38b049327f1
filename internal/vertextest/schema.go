package vertextest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The service refuses unknown names and wrong types before it looks at values.
// This file holds the shape of a request and the check, with the service's
// texts, because clients show them to people.

type kind int

const (
	kindAny kind = iota // accepted as it is: parts of the API that play no role here
	kindString
	kindInt32
	kindNumber
	kindBool
	kindBytes
	kindEnum
	kindMessage
	kindStringMap
)

type field struct {
	kind    kind
	list    bool
	message *message
	enum    []string
}

// message is the shape of one JSON object, by lowerCamelCase name.
type message map[string]field

func msg(m message) field        { return field{kind: kindMessage, message: &m} }
func msgs(m message) field       { return field{kind: kindMessage, message: &m, list: true} }
func enum(names ...string) field { return field{kind: kindEnum, enum: names} }
func listOf(f field) field       { f.list = true; return f }
func simple(k kind) field        { return field{kind: k} }
func withUnspecified(p string, names ...string) field {
	return enum(append([]string{p + "_UNSPECIFIED"}, names...)...)
}

func contentShape() message {
	return message{
		"role": simple(kindString),
		"parts": msgs(message{
			"text":                simple(kindString),
			"inlineData":          msg(message{"mimeType": simple(kindString), "data": simple(kindBytes), "displayName": simple(kindString)}),
			"fileData":            msg(message{"mimeType": simple(kindString), "fileUri": simple(kindString), "displayName": simple(kindString)}),
			"thought":             simple(kindBool),
			"thoughtSignature":    simple(kindBytes),
			"mediaResolution":     simple(kindAny),
			"videoMetadata":       simple(kindAny),
			"audioTranscription":  simple(kindAny),
			"speechMetadata":      simple(kindAny),
			"functionCall":        simple(kindAny),
			"functionResponse":    simple(kindAny),
			"executableCode":      simple(kindAny),
			"codeExecutionResult": simple(kindAny),
		}),
	}
}

func imageConfigShape() message {
	return message{
		"aspectRatio":        simple(kindString),
		"imageSize":          simple(kindString),
		"personGeneration":   withUnspecified("PERSON_GENERATION", "ALLOW_ALL", "ALLOW_ADULT", "ALLOW_NONE"),
		"prominentPeople":    withUnspecified("PROMINENT_PEOPLE", "ALLOW_PROMINENT_PEOPLE", "BLOCK_PROMINENT_PEOPLE"),
		"imageOutputOptions": msg(message{"mimeType": simple(kindString), "compressionQuality": simple(kindInt32)}),
	}
}

func responseFormatShape() message {
	return message{
		"image": msg(message{
			"delivery":    withUnspecified("DELIVERY", "INLINE", "URI"),
			"mimeType":    withUnspecified("MIME_TYPE", "IMAGE_JPEG"),
			"aspectRatio": simple(kindString),
			"imageSize":   withUnspecified("IMAGE_SIZE", "IMAGE_SIZE_FIVE_TWELVE", "IMAGE_SIZE_ONE_K", "IMAGE_SIZE_TWO_K", "IMAGE_SIZE_FOUR_K"),
		}),
		"text": simple(kindAny), "audio": simple(kindAny), "video": simple(kindAny),
	}
}

func generationConfigShape() message {
	m := message{
		"candidateCount":     simple(kindInt32),
		"maxOutputTokens":    simple(kindInt32),
		"logprobs":           simple(kindInt32),
		"seed":               simple(kindInt32),
		"temperature":        simple(kindNumber),
		"topP":               simple(kindNumber),
		"topK":               simple(kindNumber),
		"frequencyPenalty":   simple(kindNumber),
		"presencePenalty":    simple(kindNumber),
		"stopSequences":      listOf(simple(kindString)),
		"responseMimeType":   simple(kindString),
		"responseLogprobs":   simple(kindBool),
		"audioTimestamp":     simple(kindBool),
		"responseModalities": listOf(withUnspecified("MODALITY", "TEXT", "IMAGE", "AUDIO", "VIDEO")),
		"mediaResolution":    withUnspecified("MEDIA_RESOLUTION", "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"),
		"imageConfig":        msg(imageConfigShape()),
		"responseFormat":     msgs(responseFormatShape()),
		"thinkingConfig": msg(message{
			"includeThoughts": simple(kindBool),
			"thinkingBudget":  simple(kindInt32),
			"thinkingLevel":   withUnspecified("THINKING_LEVEL", "LOW", "MEDIUM", "HIGH", "MINIMAL"),
		}),
	}
	for _, name := range []string{
		"responseSchema", "responseJsonSchema", "routingConfig", "speechConfig", "translationConfig",
		"audioTranscriptionConfig", "enableAffectiveDialog",
	} {
		m[name] = simple(kindAny)
	}
	return m
}

func safetySettingShape() message {
	return message{
		"category": withUnspecified("HARM_CATEGORY",
			"HARM_CATEGORY_HATE_SPEECH", "HARM_CATEGORY_DANGEROUS_CONTENT", "HARM_CATEGORY_HARASSMENT",
			"HARM_CATEGORY_SEXUALLY_EXPLICIT", "HARM_CATEGORY_CIVIC_INTEGRITY", "HARM_CATEGORY_JAILBREAK",
			"HARM_CATEGORY_IMAGE_HATE", "HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT",
			"HARM_CATEGORY_IMAGE_HARASSMENT", "HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT"),
		"threshold": withUnspecified("HARM_BLOCK_THRESHOLD",
			"BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"),
		"method": withUnspecified("HARM_BLOCK_METHOD", "SEVERITY", "PROBABILITY"),
	}
}

// generateContentShape and countTokensShape are made once; shapes are read-only.
var generateContentShape = sync.OnceValue(func() message {
	return message{
		// The path names the model; the proto has the field too.
		"model":             simple(kindString),
		"contents":          msgs(contentShape()),
		"systemInstruction": msg(contentShape()),
		"generationConfig":  msg(generationConfigShape()),
		"safetySettings":    msgs(safetySettingShape()),
		"labels":            simple(kindStringMap),
		"cachedContent":     simple(kindString),
		"continuationToken": simple(kindString),
		"modelArmorConfig":  msg(message{"promptTemplateName": simple(kindString), "responseTemplateName": simple(kindString)}),
		"outputConfig":      msg(message{"outputUriPrefix": simple(kindString)}),
		"tools":             listOf(simple(kindAny)),
		"toolConfig":        simple(kindAny),
	}
})

var countTokensShape = sync.OnceValue(func() message {
	return message{
		"model":             simple(kindString),
		"contents":          msgs(contentShape()),
		"systemInstruction": msg(contentShape()),
		"generationConfig":  msg(generationConfigShape()),
		"instances":         listOf(simple(kindAny)),
		"tools":             listOf(simple(kindAny)),
	}
})

// tree is a decoded JSON object with lowerCamelCase names.
type tree map[string]any

// decodeTree parses body and checks it against m. Names in snake_case are
// accepted, as everywhere in Google's APIs, and renamed.
func decodeTree(body []byte, m message) (tree, *apiError) {
	if len(bytes.TrimSpace(body)) == 0 {
		return tree{}, nil // an empty body is an empty message
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // float64 would round large integers before they are checked
	var v any
	err := dec.Decode(&v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		return nil, invalid("Invalid JSON payload received. %s.", strings.TrimSuffix(err.Error(), "."))
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("Invalid JSON payload received. Expected an object.")
	}
	c := &shapeCheck{}
	c.object("", obj, m)
	if len(c.violations) > 0 {
		return nil, c.error()
	}
	return obj, nil
}

// maxViolations bounds how many mistakes one error lists.
const maxViolations = 20

type violation struct {
	Field       string `json:"field,omitempty"`
	Description string `json:"description"`
}

type shapeCheck struct{ violations []violation }

func (c *shapeCheck) add(path, description string) {
	if len(c.violations) < maxViolations {
		c.violations = append(c.violations, violation{path, description})
	}
}

func (c *shapeCheck) error() *apiError {
	lines := make([]string, len(c.violations))
	for i, v := range c.violations {
		lines[i] = v.Description
	}
	e := invalid("%s", strings.Join(lines, "\n"))
	e.Details = []any{map[string]any{
		"@type":           "type.googleapis.com/google.rpc.BadRequest",
		"fieldViolations": c.violations,
	}}
	return e
}

func (c *shapeCheck) object(path string, obj map[string]any, m message) {
	names := make([]string, 0, len(obj))
	for name := range obj {
		names = append(names, name)
	}
	slices.Sort(names) // the same request has the same error text
	for _, name := range names {
		value := obj[name]
		camel := camelCase(name)
		f, ok := m[camel]
		if !ok {
			at := ""
			if path != "" {
				at = fmt.Sprintf(" at '%s'", path)
			}
			c.add(path, fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", name, at))
			continue
		}
		if camel != name {
			delete(obj, name)
		}
		sub := snakeCase(camel)
		if path != "" {
			sub = path + "." + sub
		}
		if value == nil { // null means absent
			delete(obj, camel)
			continue
		}
		obj[camel] = c.list(sub, value, f)
	}
}

func (c *shapeCheck) list(path string, value any, f field) any {
	if !f.list {
		return c.value(path, value, f)
	}
	items, ok := value.([]any)
	if !ok {
		items = []any{value} // the JSON mapping takes a single value for a repeated field
	}
	for i, item := range items {
		items[i] = c.value(path+"["+strconv.Itoa(i)+"]", item, f)
	}
	return items
}

func (c *shapeCheck) value(path string, value any, f field) any {
	switch f.kind {
	case kindAny:
		return value
	case kindMessage:
		obj, ok := value.(map[string]any)
		if !ok {
			c.add(path, fmt.Sprintf("Invalid value at '%s' (message), %s", path, shortJSON(value)))
			return value
		}
		c.object(path, obj, *f.message)
		return obj
	case kindStringMap:
		return c.stringMap(path, value)
	}
	typeName, out, ok := scalar(value, f)
	if !ok {
		c.add(path, fmt.Sprintf("Invalid value at '%s' (%s), %s", path, typeName, shortJSON(value)))
	}
	return out
}

func (c *shapeCheck) stringMap(path string, value any) any {
	obj, ok := value.(map[string]any)
	if !ok {
		c.add(path, fmt.Sprintf("Invalid value at '%s' (map), %s", path, shortJSON(value)))
		return value
	}
	for k, v := range obj {
		if _, ok := v.(string); !ok {
			c.add(path, fmt.Sprintf("Invalid value at '%s[%s]' (TYPE_STRING), %s", path, k, shortJSON(v)))
		}
	}
	return obj
}

// scalar checks one value and returns it as string, int32, float64, bool or []byte.
func scalar(value any, f field) (typeName string, out any, ok bool) {
	switch f.kind {
	case kindString:
		s, ok := value.(string)
		return "TYPE_STRING", s, ok
	case kindBool:
		b, ok := value.(bool)
		return "TYPE_BOOL", b, ok
	case kindBytes:
		s, ok := value.(string)
		if !ok {
			return "TYPE_BYTES", value, false
		}
		b, err := decodeBase64(s)
		return "TYPE_BYTES", b, err == nil
	case kindEnum:
		if s, ok := value.(string); ok {
			return "TYPE_ENUM", s, slices.Contains(f.enum, s)
		}
		_, ok := value.(json.Number) // the JSON mapping takes numbers for enums, known or not
		return "TYPE_ENUM", fmt.Sprint(value), ok
	}
	text := fmt.Sprint(value)
	switch value.(type) {
	case json.Number, string: // the JSON mapping takes numbers in quotes
	default:
		text = ""
	}
	if f.kind == kindInt32 {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n != float64(int32(n)) {
			return "TYPE_INT32", value, false
		}
		return "TYPE_INT32", int32(n), true
	}
	n, err := strconv.ParseFloat(text, 64)
	return "TYPE_FLOAT", n, err == nil
}

// decodeBase64 takes the standard and the URL alphabet, padded or not.
func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// shortJSON is value as an error quotes it.
func shortJSON(value any) string {
	const limit = 120
	b, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	if len(b) > limit {
		return string(b[:limit]) + "..."
	}
	return string(b)
}

func camelCase(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	var b strings.Builder
	up := false
	for _, r := range name {
		switch {
		case r == '_':
			up = true
		case up:
			b.WriteString(strings.ToUpper(string(r)))
			up = false
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func snakeCase(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// get walks down objects; it returns nil where the path ends early.
func (t tree) get(path ...string) any {
	var v any = map[string]any(t)
	for _, name := range path {
		obj, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = obj[name]
	}
	return v
}

func (t tree) text(path ...string) string {
	s, _ := t.get(path...).(string)
	return s
}

// objects returns the objects of a list.
func (t tree) objects(path ...string) []tree {
	items, _ := t.get(path...).([]any)
	out := make([]tree, 0, len(items))
	for _, item := range items {
		if obj, ok := item.(map[string]any); ok {
			out = append(out, obj)
		}
	}
	return out
}
