// Package schemas holds the data contracts of assetmill: what producers publish, what is announced, and what
// lineage stores. The .proto files are the single source; `make generate` derives from them the Go types, the
// BigQuery table schemas and docs/schemas.md.
//
// Messages travel as JSON in protobuf's mapping with the field names of the .proto files. Unknown fields are
// refused by name. The package does no I/O and knows no cloud client.
package schemas

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

//go:embed job.proto result.proto batch.proto bigquery/*.json views/*.sql
var files embed.FS

// Topics and subscriptions, by name within the project.
const (
	TopicJobs           = "jobs"
	TopicDead           = "jobs-dead"
	TopicResults        = "results"
	TopicBatches        = "batches" // gathered batches, see BatchHandoff
	SubscriptionOnline  = "jobs-online"
	SubscriptionBatch   = "jobs-batch"
	SubscriptionBatches = "batches"
	SubscriptionDead    = "jobs-dead-review" // keeps what was given up until somebody looks at it
)

// Tables, by name within the dataset. Each has a view without the suffix `_raw` that keeps one row per key.
const (
	TableGenerations = "generations_raw"
	TableAttempts    = "attempts_raw"
	TableSubmissions = "submissions_raw"
	TableBatches     = "batches_raw"
)

// Attributes of messages.
const (
	// AttributeMode repeats Job.mode, since subscription filters see attributes only.
	AttributeMode = "mode"
	// AttributeBatch repeats BatchHandoff.batch_id.
	AttributeBatch = "batch_id"
	// AttributePublished is when a message that was published anew was published first, RFC 3339.
	AttributePublished = "first_published"
	// AttributeReason says on a dead letter why the message was given up, as a reason code.
	AttributeReason = "dead_reason"
	// AttributeDetail says the same as a sentence.
	AttributeDetail = "dead_detail"
	// AttributeMessageID is the id that a dead letter had on its first topic.
	AttributeMessageID = "dead_message_id"
)

// OnlineFilter and BatchFilter are the subscriptions' filters. A message without the attribute is online.
const (
	OnlineFilter = `NOT attributes.mode = "batch"`
	BatchFilter  = `attributes.mode = "batch"`
)

// TopicSchema returns the protobuf definition that Pub/Sub holds a topic's messages to, or "" for a topic that
// carries whatever could not be understood.
func TopicSchema(topic string) string {
	name := map[string]string{TopicJobs: "job.proto", TopicResults: "result.proto", TopicBatches: "batch.proto"}[topic]
	if name == "" {
		return ""
	}
	return string(mustRead(name))
}

// Table is one BigQuery table: its columns in BigQuery's JSON schema format, and its layout.
type Table struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	PartitionBy string   `json:"partition_by"` // TIMESTAMP column, partitioned by day
	ClusterBy   []string `json:"cluster_by"`
	SchemaFile  string   `json:"schema"`
	Schema      []byte   `json:"-"`
}

// Tables returns all tables.
func Tables() []Table {
	var all []Table
	if err := json.Unmarshal(mustRead("bigquery/tables.json"), &all); err != nil {
		panic(fmt.Sprintf("schemas: embedded tables.json: %v", err)) // generated beside this file
	}
	for i := range all {
		all[i].Schema = mustRead("bigquery/" + all[i].SchemaFile)
	}
	return all
}

// View is one BigQuery view in GoogleSQL.
type View struct {
	Name        string
	Description string // the comment on top of the SQL
	SQL         string
}

// Views returns all views in the order in which they can be created, with the names of the tables resolved.
func Views(project, dataset string) []View {
	entries, err := files.ReadDir("views")
	if err != nil {
		panic(fmt.Sprintf("schemas: embedded views: %v", err))
	}
	var all []View
	for _, e := range entries {
		text := string(mustRead("views/" + e.Name()))
		text = strings.ReplaceAll(text, "${dataset}", project+"."+dataset)
		comment, sql := splitComment(text)
		name := strings.TrimSuffix(path.Base(e.Name()), ".sql")
		all = append(all, View{Name: strings.TrimLeft(name, "0123456789_"), Description: comment, SQL: sql})
	}
	return all
}

// splitComment parts the leading `--` lines from the statement.
func splitComment(text string) (comment, sql string) {
	var lines []string
	for {
		line, rest, _ := strings.Cut(text, "\n")
		body, ok := strings.CutPrefix(line, "--")
		if !ok {
			return strings.Join(lines, " "), strings.TrimSpace(text)
		}
		lines = append(lines, strings.TrimSpace(body))
		text = rest
	}
}

func mustRead(name string) []byte {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("schemas: embedded %s: %v", name, err)) // embedding makes this a build error
	}
	return b
}

// Marshal encodes a message as it travels: JSON with the field names of the .proto files.
func Marshal(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

// Unmarshal decodes a message as it travels. An unknown field, a duplicate field or a wrong type is an error that
// names it.
func Unmarshal(data []byte, m proto.Message) error {
	if err := protojson.Unmarshal(data, m); err != nil {
		return fmt.Errorf("not a %s message: %s", m.ProtoReflect().Descriptor().Name(), plain(err))
	}
	return nil
}

// plain makes protojson's errors fit for people and stable for logs: they begin with "proto:" and hold, on purpose,
// sometimes a no-break space where a space belongs.
func plain(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, err.Error())
	text = strings.TrimPrefix(text, "proto:")
	return strings.TrimSpace(text)
}
