package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Numbers of the options in options.proto. They are read by number because the generator must work before the Go
// types that it generates exist.
const (
	optionBigQueryType = 50101
	optionRequired     = 50102
	optionTable        = 50111
	optionPartitionBy  = 50112
	optionClusterBy    = 50113
)

// column is one field in BigQuery's JSON schema format, which bq, Terraform and the Go client all read.
type column struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Mode        string   `json:"mode"`
	Description string   `json:"description"`
	Fields      []column `json:"fields,omitempty"`
}

// table is what a table needs besides its columns.
type table struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	PartitionBy string   `json:"partition_by"`
	ClusterBy   []string `json:"cluster_by"`
	Schema      string   `json:"schema"`
}

// tables adds bigquery/<table>.json for every row message and bigquery/tables.json with their layout.
func tables(files []protoreflect.FileDescriptor, out map[string][]byte) error {
	var index []table
	for _, f := range files {
		for i := range f.Messages().Len() {
			msg := f.Messages().Get(i)
			name := stringOption(msg.Options(), optionTable)
			if name == "" {
				continue
			}
			cols, err := columns(msg)
			if err != nil {
				return err
			}
			comment, err := comment(msg)
			if err != nil {
				return err
			}
			t := table{
				Name:        name,
				Description: comment,
				PartitionBy: stringOption(msg.Options(), optionPartitionBy),
				ClusterBy:   stringOptions(msg.Options(), optionClusterBy),
				Schema:      name + ".json",
			}
			index = append(index, t)
			if out[filepath.Join(schemaDir, "bigquery", t.Schema)], err = encode(cols); err != nil {
				return err
			}
		}
	}
	var err error
	out[filepath.Join(schemaDir, "bigquery", "tables.json")], err = encode(index)
	return err
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

func columns(msg protoreflect.MessageDescriptor) ([]column, error) {
	var cols []column
	for i := range msg.Fields().Len() {
		f := msg.Fields().Get(i)
		text, err := comment(f)
		if err != nil {
			return nil, err
		}
		c := column{Name: string(f.Name()), Mode: "NULLABLE", Description: text}
		switch {
		case f.IsList():
			c.Mode = "REPEATED"
		case boolOption(f.Options(), optionRequired):
			c.Mode = "REQUIRED"
		}
		if c.Type = stringOption(f.Options(), optionBigQueryType); c.Type == "" {
			if c.Type, err = defaultType(f); err != nil {
				return nil, err
			}
		}
		if f.Kind() == protoreflect.MessageKind {
			if c.Fields, err = columns(f.Message()); err != nil {
				return nil, err
			}
		}
		cols = append(cols, c)
	}
	return cols, nil
}

// defaultType is the BigQuery type that the Storage Write API accepts a protobuf type for.
func defaultType(f protoreflect.FieldDescriptor) (string, error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		return "STRING", nil
	case protoreflect.Int64Kind, protoreflect.Int32Kind:
		return "INTEGER", nil
	case protoreflect.BoolKind:
		return "BOOLEAN", nil
	case protoreflect.DoubleKind:
		return "FLOAT", nil
	case protoreflect.MessageKind:
		if f.IsMap() {
			return "", fmt.Errorf("%s: BigQuery has no maps; use a repeated KeyValue", f.FullName())
		}
		return "RECORD", nil
	default:
		return "", fmt.Errorf("%s: no BigQuery type for %s", f.FullName(), f.Kind())
	}
}

// option returns the value of a custom option by its number, in whichever form the compiler left it.
func option(opts proto.Message, number protoreflect.FieldNumber) (value protoreflect.Value, ok bool) {
	opts.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Number() == number {
			value, ok = v, true
		}
		return !ok
	})
	return value, ok
}

func stringOption(opts proto.Message, number protoreflect.FieldNumber) string {
	if v, ok := option(opts, number); ok {
		return v.String()
	}
	return ""
}

func boolOption(opts proto.Message, number protoreflect.FieldNumber) bool {
	v, ok := option(opts, number)
	return ok && v.Bool()
}

func stringOptions(opts proto.Message, number protoreflect.FieldNumber) []string {
	v, ok := option(opts, number)
	if !ok {
		return nil
	}
	var all []string
	for i := range v.List().Len() {
		all = append(all, v.List().Get(i).String())
	}
	return all
}
