package doctor

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// What is enough to read, to write, and to do both. A project gives Vertex's agent the last of these roles by itself, for all its buckets.
var (
	readingRoles = []string{objectViewer, objectUser, "roles/storage.objectAdmin", "roles/storage.admin", "roles/storage.legacyObjectReader", "roles/aiplatform.serviceAgent"}
	writingRoles = []string{objectCreator, objectUser, "roles/storage.objectAdmin", "roles/storage.admin", "roles/storage.legacyBucketWriter", "roles/aiplatform.serviceAgent"}
	usingRoles   = []string{objectUser, "roles/storage.objectAdmin", "roles/storage.admin", "roles/aiplatform.serviceAgent"}
)

// errand is where Vertex's service agent of some projects reads or writes.
type errand struct {
	at        place
	projects  []string
	role      string // that does
	enough    []string
	without   string
	terraform string
	severity  Severity
}

// errands returns where the service agents of the lanes' projects go.
func (x *exam) errands() []errand {
	online, batch := map[string]bool{}, map[string]bool{}
	if x.cfg.Lanes != nil {
		for _, l := range x.cfg.Lanes.Lanes {
			online[l.Project] = true
		}
		for _, l := range x.cfg.Lanes.Batch {
			batch[l.Project] = true
		}
	}
	both := maps.Clone(online)
	maps.Copy(both, batch)
	list := func(set map[string]bool) []string {
		if len(set) == 0 {
			return []string{x.cfg.Project}
		}
		return slices.Sorted(maps.Keys(set))
	}
	all := []errand{{place{kind: onFolder, name: x.cfg.WorkBucket, folder: batchesFolder}, list(batch), objectUser, usingRoles,
		"batches can't be read, and their images not be written", tfWorkFolders, x.forBatches()}}
	for _, name := range x.assetBuckets() {
		all = append(all, errand{place{kind: onFolder, name: name, folder: straightFolder}, list(online), objectUser, writingRoles,
			"models can't write images themselves, and all of them pass through workers", tfStraight, Warning})
	}
	for _, name := range x.cfg.References {
		all = append(all, errand{place{kind: onBucket, name: name}, list(both), objectViewer, readingRoles,
			"every job with a reference there fails", tfRefGrants, Error})
	}
	return all
}

func (a *area) checkAgents(ctx context.Context) {
	for _, e := range a.errands() {
		if a.gone[e.at.String()] {
			continue
		}
		policy, blind := a.storagePolicy(ctx, e.at)
		for _, p := range e.projects {
			a.checkAgent(e, p, policy, blind)
		}
	}
}

// storagePolicy returns who has roles on a bucket or folder, by itself or by what is above it, and whether some of that could not be read.
func (a *area) storagePolicy(ctx context.Context, at place) (all []binding, blind bool) {
	own := a.facts.projects[a.cfg.Project]
	all, blind = slices.Clone(own.policy), own.blind
	policy, err := a.bucketPolicy(ctx, at.name)
	all, blind = append(all, policy...), blind || err != nil
	if at.kind == onFolder {
		policy, err = a.folderPolicy(ctx, at)
		all, blind = append(all, policy...), blind || err != nil
	}
	return all, blind
}

func (a *area) checkAgent(e errand, project string, policy []binding, blind bool) {
	at := e.at.String()
	number := a.facts.projects[project].number
	if number == "" {
		a.limited("project "+project, "its number is not known, and whether Vertex AI's service agent may use "+at+" is not checked.",
			Fix{Command: a.grant(place{kind: onProject, project: project}, "roles/browser", a.member())})
		return
	}
	agent := "serviceAccount:service-" + number + "@gcp-sa-aiplatform.iam.gserviceaccount.com"
	switch got := granted(policy, agent, e.enough); {
	case got == yes:
		a.pass(idAgent, at, "Vertex AI's service agent may use it.")
	case got == perhaps:
		a.limited(at, "whether a custom role of Vertex AI's service agent is enough is not known.", Fix{})
	case blind:
		a.limited(at, "whether Vertex AI's service agent has "+e.role+" on it is not checked.",
			Fix{Command: a.grant(place{kind: onProject, project: a.cfg.Project}, "roles/iam.securityReviewer", a.member())})
	default:
		a.fail(idAgent, e.severity, at, sentence("Vertex AI's service agent %s lacks %s on it: %s", strings.TrimPrefix(agent, "serviceAccount:"), e.role, e.without),
			Fix{Command: a.grantAgent(e, agent), Terraform: e.terraform,
				Note: "If there is no such account yet: gcloud beta services identity create --service=aiplatform.googleapis.com --project=" + project})
	}
}

// grantAgent is the command that grants what an errand needs, with a folder made first where there is none.
func (a *area) grantAgent(e errand, agent string) string {
	command := a.grant(e.at, e.role, agent)
	if a.facts.unmade[e.at.String()] {
		command = a.gcloud("storage", "managed-folders", "create", "gs://"+e.at.name+"/"+e.at.folder) + " && " + command
	}
	return command
}
