package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/api/cloudresourcemanager/v3"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"

	"github.com/assetmill/assetmill/jobs"
)

// facts are what several areas need to know. They are gathered first.
type facts struct {
	buckets  map[string]*bucket  // ours, by name
	projects map[string]*project // that lanes use, and the deployment's own, by id
	unmade   map[string]bool     // folders that are no managed ones, as findings name them
}

// bucket is a bucket's settings, or why they are not known.
type bucket struct {
	storage.Bucket
	// rules are the lifecycle rules as they came: what is written back must lose nothing that this program does not know.
	rules []json.RawMessage
	err   error
}

// region returns where the bucket is, as data regions are written, or nothing when that is not known.
func (b *bucket) region() string { return strings.ToLower(b.Location) }

// project is what is known of a project.
type project struct {
	number string // empty: not known
	policy []binding
	// blind says that the policy could not be read.
	blind bool
}

// binding is a role and who has it, in a policy of any service.
type binding struct {
	role    string
	members []string
}

// gather looks at what several areas need.
func (x *exam) gather(ctx context.Context) {
	x.facts = facts{buckets: map[string]*bucket{}, projects: map[string]*project{}, unmade: map[string]bool{}}
	names := x.ownBuckets()
	found := make([]*bucket, len(names))
	each(len(names), func(i int) { found[i] = x.lookAtBucket(ctx, names[i]) })
	for i, name := range names {
		x.facts.buckets[name] = found[i]
	}
	x.gatherProjects(ctx)
	x.gatherFolders(ctx)
}

// ownBuckets returns the buckets of the deployment.
func (x *exam) ownBuckets() []string {
	names := []string{x.cfg.Bucket, x.cfg.WorkBucket}
	if x.cfg.Lanes != nil {
		names = slices.AppendSeq(names, maps.Values(x.cfg.Lanes.Buckets))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// assetBuckets returns the buckets that take images.
func (x *exam) assetBuckets() []string {
	return slices.DeleteFunc(x.ownBuckets(), func(name string) bool { return name == x.cfg.WorkBucket && name != x.cfg.Bucket })
}

func (x *exam) lookAtBucket(ctx context.Context, name string) *bucket {
	ctx, done := look(ctx)
	defer done()
	b := &bucket{}
	text, err := x.getBucket(ctx, name, "projection=noAcl")
	if err != nil {
		b.err = err
		return b
	}
	var raw struct {
		Lifecycle struct {
			Rule []json.RawMessage `json:"rule"`
		} `json:"lifecycle"`
	}
	b.err = errors.Join(json.Unmarshal(text, &b.Bucket), json.Unmarshal(text, &raw))
	b.rules = raw.Lifecycle.Rule
	return b
}

// getBucket reads a bucket as it comes.
func (x *exam) getBucket(ctx context.Context, name, query string) (text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.storageBase+"b/"+url.PathEscape(name)+"?"+query, nil)
	if err != nil {
		return nil, err
	}
	resp, err := x.storageHTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := googleapi.CheckResponse(resp); err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err = json.NewDecoder(resp.Body).Decode(&raw)
	return raw, err
}

// gatherProjects finds out the projects' numbers, which their service agents are named by, and who has roles on the projects.
func (x *exam) gatherProjects(ctx context.Context) {
	ids := x.laneProjects()
	if !slices.Contains(ids, x.cfg.Project) {
		ids = append(ids, x.cfg.Project)
	}
	found := make([]*project, len(ids))
	each(len(ids), func(i int) { found[i] = x.lookAtProject(ctx, ids[i]) })
	for i, id := range ids {
		x.facts.projects[id] = found[i]
	}
	own := x.facts.projects[x.cfg.Project]
	for _, b := range x.facts.buckets {
		if own.number == "" && b.ProjectNumber != 0 {
			own.number = strconv.FormatUint(b.ProjectNumber, 10)
		}
	}
}

// lookAtProject looks at a project. Nothing depends on it alone, so an error means only that less is known.
func (x *exam) lookAtProject(ctx context.Context, id string) *project {
	p := &project{blind: true}
	if x.projects == nil {
		return p
	}
	ctx, done := look(ctx)
	defer done()
	if answer, err := x.projects.Projects.Get("projects/" + id).Context(ctx).Do(); err == nil {
		p.number = strings.TrimPrefix(answer.Name, "projects/")
	}
	request := &cloudresourcemanager.GetIamPolicyRequest{Options: &cloudresourcemanager.GetPolicyOptions{RequestedPolicyVersion: policyVersion}}
	if policy, err := x.projects.Projects.GetIamPolicy("projects/"+id, request).Context(ctx).Do(); err == nil {
		p.blind = false
		for _, b := range policy.Bindings {
			p.policy = append(p.policy, binding{b.Role, b.Members})
		}
	}
	return p
}

// gatherFolders finds out which folders are managed ones, for the commands that grant something on them.
func (x *exam) gatherFolders(ctx context.Context) {
	if x.cfg.Local.Storage {
		return
	}
	var all []place
	for _, name := range x.assetBuckets() {
		all = append(all, place{kind: onFolder, name: name, folder: straightFolder})
	}
	for _, folder := range []string{batchesFolder, controlsFolder, receiptsFolder} {
		all = append(all, place{kind: onFolder, name: x.cfg.WorkBucket, folder: folder})
	}
	unmade := make([]bool, len(all))
	each(len(all), func(i int) {
		ctx, done := look(ctx)
		defer done()
		_, err := x.storage.ManagedFolders.Get(all[i].name, all[i].folder).Context(ctx).Do()
		f, _ := classify(err)
		unmade[i] = f == missing
	})
	for i, p := range all {
		x.facts.unmade[p.String()] = unmade[i]
	}
}

// policyVersion is the version of IAM policies that knows conditions. Asking for less would hide roles that have one.
const policyVersion = 3

// regional reports whether every lane is bound to a region, so that nothing may be processed elsewhere.
func (x *exam) regional() bool {
	if x.cfg.Lanes == nil || !x.cfg.OwnLanes {
		return false
	}
	for _, l := range slices.Concat(x.cfg.Lanes.Lanes, x.cfg.Lanes.Batch) {
		if l.Location == jobs.GlobalRegion {
			return false
		}
	}
	return true
}
