package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// reference adds docs/schemas.md: every message and field with its comment.
func reference(files []protoreflect.FileDescriptor, out map[string][]byte) error {
	var b strings.Builder
	b.WriteString("# Messages and tables\n\nMade from the comments in `schemas/*.proto` by `make generate`; change them there.\n")
	for _, f := range files {
		if strings.HasSuffix(f.Path(), "options.proto") {
			continue
		}
		for i := range f.Messages().Len() {
			if err := describe(&b, f.Messages().Get(i)); err != nil {
				return err
			}
		}
	}
	out[filepath.Join("docs", "schemas.md")] = []byte(b.String())
	return nil
}

func describe(b *strings.Builder, msg protoreflect.MessageDescriptor) error {
	text, err := comment(msg)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| field | type | meaning |\n|---|---|---|\n", messageName(msg), text)
	for i := range msg.Fields().Len() {
		f := msg.Fields().Get(i)
		text, err := comment(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.Name(), typeName(f), strings.ReplaceAll(text, "|", `\|`))
	}
	for i := range msg.Messages().Len() {
		nested := msg.Messages().Get(i)
		if nested.IsMapEntry() {
			continue
		}
		if err := describe(b, nested); err != nil {
			return err
		}
	}
	return nil
}

// messageName is a message's name within its package, such as `Job.Turn`.
func messageName(msg protoreflect.MessageDescriptor) string {
	return strings.TrimPrefix(string(msg.FullName()), string(msg.ParentFile().Package())+".")
}

func typeName(f protoreflect.FieldDescriptor) string {
	name := f.Kind().String()
	switch {
	case f.IsMap():
		return fmt.Sprintf("map of %s to %s", f.MapKey().Kind(), f.MapValue().Kind())
	case f.Kind() == protoreflect.MessageKind:
		name = messageName(f.Message())
	}
	if t := stringOption(f.Options(), optionBigQueryType); t != "" {
		name = t
	}
	if f.IsList() {
		return "list of " + name
	}
	return name
}

// comment returns the comment above a declaration as one line, or an error when there is none.
func comment(d protoreflect.Descriptor) (string, error) {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return "", fmt.Errorf("%s: %s has no comment", d.ParentFile().Path(), d.FullName())
	}
	return text, nil
}
