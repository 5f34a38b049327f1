package doctor

import (
	"strings"
)

// quote returns a word so that a POSIX shell reads it back unchanged, bare where that is possible.
func quote(word string) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,=", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !bare(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// line joins words into a command.
func line(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// gcloud returns a command with the project at its end.
func (x *exam) gcloud(words ...string) string {
	return line(append(append([]string{"gcloud"}, words...), "--project="+x.cfg.Project)...)
}

// kind is what a permission can be granted on.
type kind int

const (
	onProject kind = iota
	onTopic
	onSubscription
	onBucket
	onFolder
	onDataset
	onTable
	onAccount
)

// place is a resource.
type place struct {
	kind    kind
	project string // empty: the deployment's
	name    string // of a table: without the dataset; of an account: its address
	folder  string // of a bucket, ends in a slash
}

// String returns the resource as findings name it.
func (p place) String() string {
	switch p.kind {
	case onTopic:
		return "topic " + p.name
	case onSubscription:
		return "subscription " + p.name
	case onBucket:
		return "bucket gs://" + p.name
	case onFolder:
		return "folder gs://" + p.name + "/" + p.folder
	case onDataset:
		return "dataset " + p.name
	case onTable:
		return "table " + p.name
	case onAccount:
		return "account " + p.name
	default:
		return "project " + p.project
	}
}

// grant returns the command that grants a role on a resource.
func (x *exam) grant(p place, role, member string) string {
	flags := []string{"--member=" + member, "--role=" + role}
	gcloud := func(words ...string) string { return x.gcloud(append(words, flags...)...) }
	switch p.kind {
	case onTopic:
		return gcloud("pubsub", "topics", "add-iam-policy-binding", p.name)
	case onSubscription:
		return gcloud("pubsub", "subscriptions", "add-iam-policy-binding", p.name)
	case onBucket:
		return gcloud("storage", "buckets", "add-iam-policy-binding", "gs://"+p.name)
	case onFolder:
		return gcloud("storage", "managed-folders", "add-iam-policy-binding", "gs://"+p.name+"/"+p.folder)
	case onTable:
		return line("bq", "add-iam-policy-binding", "--member="+member, "--role="+role, "--table", x.cfg.Project+":"+x.cfg.Dataset+"."+p.name)
	case onDataset:
		// An IAM policy of a dataset and its access entries get in each other's way; this statement adds an entry.
		sql := "GRANT `" + role + "` ON SCHEMA `" + x.cfg.Project + "." + p.name + "` TO \"" + member + "\""
		return line("bq", "query", "--project_id="+x.cfg.Project, "--use_legacy_sql=false", sql)
	case onAccount:
		return gcloud("iam", "service-accounts", "add-iam-policy-binding", p.name)
	default:
		return line("gcloud", "projects", "add-iam-policy-binding", p.project, "--member="+member, "--role="+role, "--condition=None")
	}
}
