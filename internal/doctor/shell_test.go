package doctor_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/protobuf/types/known/durationpb"
)

// words takes a command line apart as a POSIX shell does, as far as fixes need it.
func (c *cloud) words(text string) (all []string) {
	var b strings.Builder
	quoted, any := false, false
	for i := 0; i < len(text); i++ {
		switch ch := text[i]; {
		case ch == '\'':
			quoted, any = !quoted, true
		case ch == '\\' && !quoted:
			i++
			b.WriteByte(text[i])
		case (ch == ' ' || ch == '\n') && !quoted:
			if any {
				all = append(all, b.String())
			}
			b.Reset()
			any = false
		default:
			b.WriteByte(ch)
			any = true
		}
	}
	if quoted {
		c.t.Fatalf("a quote has no end: %s", text)
	}
	if any {
		all = append(all, b.String())
	}
	return all
}

// separator finds what parts commands, outside of quotes as fixes write them.
var separator = regexp.MustCompile(`^(?:[^']|'[^']*')*?( && |; )`)

// run carries out a fix on the cloud. What it does not know fails the test: a fix must not be made up.
func (c *cloud) run(text string) {
	c.t.Helper()
	for text != "" {
		command := text
		if m := separator.FindStringSubmatchIndex(text); m != nil {
			command, text = text[:m[2]], text[m[3]:]
		} else {
			text = ""
		}
		w := c.words(command)
		switch {
		case w[0] == "gcloud":
			c.gcloud(w[1:])
		case w[0] == "bq":
			c.bq(w[1:])
		case w[0] == "echo" && len(w) == 4 && w[2] == ">":
			c.files[w[3]] = w[1]
		default:
			c.t.Fatalf("the test can't run %q", command)
		}
	}
}

// command is a parsed command line.
type command struct {
	*cloud
	path  string // of words without their arguments
	args  []string
	flags map[string]string
}

// parse parts words into arguments and flags. Every flag must be allowed.
func (c *cloud) parse(path string, words []string, allowed ...string) command {
	c.t.Helper()
	cmd := command{c, path, nil, map[string]string{}}
	for _, w := range words {
		flag, ok := strings.CutPrefix(w, "--")
		if !ok {
			cmd.args = append(cmd.args, w)
			continue
		}
		name, value, _ := strings.Cut(flag, "=")
		if !slices.Contains(allowed, name) {
			c.t.Fatalf("%s has no flag --%s", path, name)
		}
		cmd.flags[name] = value
	}
	return cmd
}

func (c *cloud) gcloud(words []string) {
	c.t.Helper()
	for _, one := range []struct {
		path string
		do   func(command)
		// flags beside --project
		flags []string
	}{
		{"services enable", func(cmd command) { cmd.apis[cmd.args[0]] = true }, nil},
		{"projects add-iam-policy-binding", func(cmd command) { cmd.bind("project") }, []string{"member", "role", "condition"}},
		{"pubsub topics add-iam-policy-binding", func(cmd command) { cmd.bind("topic " + cmd.args[0]) }, []string{"member", "role"}},
		{"pubsub subscriptions add-iam-policy-binding", func(cmd command) { cmd.bind("subscription " + cmd.args[0]) }, []string{"member", "role"}},
		{"storage buckets add-iam-policy-binding", func(cmd command) { cmd.bind("bucket " + cmd.url()) }, []string{"member", "role"}},
		{"storage managed-folders add-iam-policy-binding", func(cmd command) { cmd.bindFolder() }, []string{"member", "role"}},
		{"storage managed-folders create", func(cmd command) { cmd.folders[cmd.url()] = true }, nil},
		{"iam service-accounts add-iam-policy-binding", func(cmd command) { cmd.bind("account " + cmd.args[0]) }, []string{"member", "role"}},
		{"storage buckets update", func(cmd command) { cmd.updateBucket() }, []string{"uniform-bucket-level-access", "public-access-prevention", "clear-soft-delete", "lifecycle-file", "clear-lifecycle"}},
		{"storage buckets create", func(cmd command) { cmd.createBucket() }, []string{"location", "uniform-bucket-level-access", "public-access-prevention", "soft-delete-duration"}},
		{"pubsub subscriptions update", func(cmd command) { cmd.updateSubscription() }, subscriptionFlags},
		{"pubsub subscriptions create", func(cmd command) { cmd.createSubscription() }, append([]string{"topic", "message-filter"}, subscriptionFlags...)},
		{"pubsub subscriptions delete", func(cmd command) {
			cmd.must1(cmd.pubsub.GServer.DeleteSubscription(cmd.t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: subscriptionName(cmd.args[0])}))
		}, nil},
		{"pubsub topics create", func(cmd command) { cmd.createTopic() }, []string{"schema", "message-encoding"}},
		{"pubsub topics update", func(cmd command) { cmd.updateTopic() }, []string{"schema", "message-encoding", "clear-schema-settings", "message-storage-policy-allowed-regions"}},
		{"pubsub schemas create", func(cmd command) { cmd.schema() }, []string{"type", "definition-file"}},
		{"pubsub schemas commit", func(cmd command) { cmd.schema() }, []string{"type", "definition-file"}},
		{"auth application-default set-quota-project", func(command) {}, nil},
	} {
		if path := strings.Fields(one.path); len(words) >= len(path) && slices.Equal(words[:len(path)], path) {
			cmd := c.parse("gcloud "+one.path, words[len(path):], append(one.flags, "project")...)
			if p, ok := cmd.flags["project"]; ok && p != projectID {
				c.t.Fatalf("project %q", p)
			}
			one.do(cmd)
			return
		}
	}
	c.t.Fatalf("the test knows no gcloud %v", words)
}

// url is the argument without its scheme.
func (c command) url() string {
	name, ok := strings.CutPrefix(c.args[0], "gs://")
	if !ok {
		c.t.Fatalf("%s is no gs:// address", c.args[0])
	}
	return name
}

func (c command) bind(resource string) {
	c.grant(c.flags["member"], c.flags["role"]+" on "+resource)
}

func (c command) bindFolder() {
	if !c.folders[c.url()] {
		c.t.Fatalf("%s is no managed folder", c.url())
	}
	c.bind("folder " + c.url())
}

func (c command) updateBucket() {
	b := c.buckets[c.url()]
	if b == nil {
		c.t.Fatalf("there is no bucket %s", c.url())
	}
	c.set(b)
}

func (c command) createBucket() {
	if c.buckets[c.url()] != nil {
		c.t.Fatalf("bucket %s is there already", c.url())
	}
	b := parseJSON(c.t, `{"projectNumber":"`+projectNumber+`","metageneration":"1","softDeletePolicy":{"retentionDurationSeconds":"604800"},"iamConfiguration":{}}`)
	b["name"], b["location"] = c.url(), strings.ToUpper(c.flags["location"])
	if c.flags["soft-delete-duration"] == "0" {
		delete(b, "softDeletePolicy")
	}
	c.buckets[c.url()] = b
	c.set(b)
}

func (c command) set(b map[string]any) {
	access, _ := b["iamConfiguration"].(map[string]any)
	if _, ok := c.flags["uniform-bucket-level-access"]; ok {
		access["uniformBucketLevelAccess"] = map[string]any{"enabled": true}
	}
	if _, ok := c.flags["public-access-prevention"]; ok {
		access["publicAccessPrevention"] = "enforced"
	}
	if _, ok := c.flags["clear-soft-delete"]; ok {
		b["softDeletePolicy"] = map[string]any{"retentionDurationSeconds": "0"}
	}
	if _, ok := c.flags["clear-lifecycle"]; ok {
		delete(b, "lifecycle")
	}
	if name, ok := c.flags["lifecycle-file"]; ok {
		b["lifecycle"] = parseJSON(c.t, c.files[name])
	}
}

var subscriptionFlags = []string{
	"ack-deadline", "expiration-period", "message-retention-duration", "min-retry-delay", "max-retry-delay", "dead-letter-topic", "max-delivery-attempts",
	"no-enable-exactly-once-delivery", "push-endpoint", "clear-bigquery-config", "clear-cloud-storage-config", "clear-dead-letter-policy",
}

func (c command) number(flag string) int32 {
	n, err := strconv.Atoi(c.flags[flag])
	c.must(err)
	return int32(n)
}

// duration reads a time as gcloud does, which also knows days.
func (c command) duration(flag string) *durationpb.Duration {
	text := c.flags[flag]
	if n, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.Atoi(n)
		c.must(err)
		return durationpb.New(time.Duration(days) * 24 * time.Hour)
	}
	d, err := time.ParseDuration(text)
	c.must(err)
	return durationpb.New(d)
}

func (c command) updateSubscription() { c.sub(c.args[0], c.apply) }

func (c command) createSubscription() {
	s := &pubsubpb.Subscription{
		Name: subscriptionName(c.args[0]), Topic: topicName(c.flags["topic"]), Filter: c.flags["message-filter"], AckDeadlineSeconds: 10,
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(31 * 24 * time.Hour)},
	}
	c.apply(s)
	kept := s.GetMessageRetentionDuration()
	s.MessageRetentionDuration = nil
	c.addSubscription(s, kept)
}

// apply sets what the flags say.
func (c command) apply(s *pubsubpb.Subscription) {
	for flag := range c.flags {
		switch flag {
		case "ack-deadline":
			s.AckDeadlineSeconds = c.number(flag)
		case "expiration-period":
			if c.flags[flag] != "never" {
				c.t.Fatalf("--%s=%s", flag, c.flags[flag])
			}
			s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
		case "message-retention-duration":
			s.MessageRetentionDuration = c.duration(flag)
		case "min-retry-delay":
			s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: c.duration(flag), MaximumBackoff: c.duration("max-retry-delay")}
		case "dead-letter-topic":
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName(c.flags[flag]), MaxDeliveryAttempts: c.number("max-delivery-attempts")}
		case "no-enable-exactly-once-delivery":
			s.EnableExactlyOnceDelivery = false
		case "push-endpoint":
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: c.flags[flag]}
		case "clear-bigquery-config":
			s.BigqueryConfig = nil
		case "clear-cloud-storage-config":
			s.CloudStorageConfig = nil
		case "clear-dead-letter-policy":
			s.DeadLetterPolicy = nil
		case "project", "topic", "message-filter", "max-retry-delay", "max-delivery-attempts":
		default:
			c.t.Fatalf("the test can't apply --%s", flag)
		}
	}
}

func (c command) createTopic() {
	t := &pubsubpb.Topic{Name: topicName(c.args[0]), MessageStoragePolicy: &pubsubpb.MessageStoragePolicy{AllowedPersistenceRegions: []string{region}}}
	c.setTopic(t)
	c.must1(c.pubsub.GServer.CreateTopic(c.t.Context(), t))
}

func (c command) updateTopic() { c.topic(c.args[0], c.setTopic) }

func (c command) setTopic(t *pubsubpb.Topic) {
	if id := c.flags["schema"]; id != "" {
		if c.flags["message-encoding"] != "json" {
			c.t.Fatalf("encoding %q", c.flags["message-encoding"])
		}
		t.SchemaSettings = &pubsubpb.SchemaSettings{Schema: "projects/" + projectID + "/schemas/" + id, Encoding: pubsubpb.Encoding_JSON}
	}
	if _, ok := c.flags["clear-schema-settings"]; ok {
		t.SchemaSettings = nil
	}
	if regions := c.flags["message-storage-policy-allowed-regions"]; regions != "" {
		t.MessageStoragePolicy = &pubsubpb.MessageStoragePolicy{AllowedPersistenceRegions: strings.Split(regions, ",")}
	}
}

// schema creates a schema, or a revision of one.
func (c command) schema() {
	text, err := os.ReadFile(filepath.Join("../..", c.flags["definition-file"]))
	c.must(err)
	name := "projects/" + projectID + "/schemas/" + c.args[0]
	s := &pubsubpb.Schema{Name: name, Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: string(text)}
	_, err = c.pubsub.GServer.GetSchema(c.t.Context(), &pubsubpb.GetSchemaRequest{Name: name})
	switch there := err == nil; {
	case strings.HasSuffix(c.path, "commit"):
		c.must1(c.pubsub.GServer.CommitSchema(c.t.Context(), &pubsubpb.CommitSchemaRequest{Name: name, Schema: s}))
	case !there: // creating one that exists fails, and the commands behind it go on
		c.must1(c.pubsub.GServer.CreateSchema(c.t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/" + projectID, SchemaId: c.args[0], Schema: s}))
	}
}

// statement finds what fixes say in SQL.
var (
	grantStatement  = regexp.MustCompile("^GRANT `(roles/[a-zA-Z.]+)` ON SCHEMA `" + projectID + "[.]([a-z]+)` TO \"(.+)\"$")
	renameStatement = regexp.MustCompile("^ALTER TABLE `" + projectID + "[.]" + datasetID + "[.]([a-z_]+)` RENAME TO `([a-z_]+)`$")
)

func (c *cloud) bq(words []string) {
	c.t.Helper()
	switch words[0] {
	case "add-iam-policy-binding":
		cmd := c.parse("bq add-iam-policy-binding", words[1:], "member", "role", "table")
		cmd.bind("table " + c.table(cmd.args[0]))
	case "query":
		c.query(c.parse("bq query", words[1:], "project_id", "use_legacy_sql"))
	case "mk":
		c.make(c.parse("bq mk", words[1:], "dataset", "location", "table", "schema", "time_partitioning_type", "time_partitioning_field", "clustering_fields", "use_legacy_sql", "description", "view"))
	case "update":
		c.update(c.parse("bq update", words[1:], "use_legacy_sql", "description", "view", "clustering_fields", "expiration", "default_table_expiration", "norequire_partition_filter"))
	default:
		c.t.Fatalf("the test knows no bq %v", words)
	}
}

// table is the name in project:dataset.table.
func (c *cloud) table(id string) string {
	name, ok := strings.CutPrefix(id, projectID+":"+datasetID+".")
	if !ok {
		c.t.Fatalf("%s is no table of the dataset", id)
	}
	return name
}

func (c *cloud) query(cmd command) {
	if m := grantStatement.FindStringSubmatch(cmd.args[0]); m != nil {
		c.grant(m[3], m[1]+" on dataset "+m[2])
	} else if m := renameStatement.FindStringSubmatch(cmd.args[0]); m != nil && c.tables[m[1]] != nil {
		c.tables[m[2]] = c.tables[m[1]]
		delete(c.tables, m[1])
	} else {
		c.t.Fatalf("the test can't query %s", cmd.args[0])
	}
}

func (c *cloud) columns(file string) *bigquery.TableSchema {
	text, err := os.ReadFile(filepath.Join("../..", file))
	c.must(err)
	var fields []*bigquery.TableFieldSchema
	c.must(json.Unmarshal(text, &fields))
	return &bigquery.TableSchema{Fields: fields}
}

func (c *cloud) make(cmd command) {
	if _, ok := cmd.flags["dataset"]; ok {
		if cmd.args[0] != projectID+":"+datasetID {
			c.t.Fatalf("dataset %s", cmd.args[0])
		}
		c.dataset = &bigquery.Dataset{Location: cmd.flags["location"]}
		return
	}
	t := &bigquery.Table{Type: "VIEW"}
	if sql := cmd.flags["view"]; sql != "" {
		t.View = &bigquery.ViewDefinition{Query: sql, UseLegacySql: cmd.flags["use_legacy_sql"] != "false"}
	} else {
		t.Type, t.Schema = "TABLE", c.columns(cmd.flags["schema"])
		t.TimePartitioning = &bigquery.TimePartitioning{Type: cmd.flags["time_partitioning_type"], Field: cmd.flags["time_partitioning_field"]}
		t.Clustering = &bigquery.Clustering{Fields: strings.Split(cmd.flags["clustering_fields"], ",")}
	}
	c.tables[c.table(cmd.args[0])] = t
}

func (c *cloud) update(cmd command) {
	if cmd.args[0] == projectID+":"+datasetID {
		if cmd.flags["default_table_expiration"] == "0" {
			c.dataset.DefaultTableExpirationMs = 0
		}
		return
	}
	t := c.tables[c.table(cmd.args[0])]
	if len(cmd.args) == 2 {
		t.Schema = c.columns(cmd.args[1])
	}
	for flag, value := range cmd.flags {
		switch flag {
		case "view":
			t.View = &bigquery.ViewDefinition{Query: value, UseLegacySql: cmd.flags["use_legacy_sql"] != "false"}
		case "clustering_fields":
			t.Clustering = &bigquery.Clustering{Fields: strings.Split(value, ",")}
		case "expiration":
			t.ExpirationTime = 0
		case "norequire_partition_filter":
			t.RequirePartitionFilter = false
		}
	}
}
