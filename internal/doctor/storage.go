package doctor

import (
	"context"
	"slices"
	"strconv"
	"time"

	"google.golang.org/api/storage/v1"
)

const storageAPI = "storage.googleapis.com"

func (a *area) checkStorage(ctx context.Context) {
	for _, name := range a.ownBuckets() {
		a.checkBucket(ctx, name)
	}
	if a.cfg.Local.Storage {
		return
	}
	a.checkLocations()
	a.checkNeeds(ctx, onBucket, onFolder)
	if a.cfg.Role == Worker {
		a.checkAgents(ctx)
	}
}

// tfBucket is what makes a bucket in deploy/terraform.
func (x *exam) tfBucket(name string) string {
	if name == x.cfg.WorkBucket {
		return "google_storage_bucket.work"
	}
	return "google_storage_bucket.assets"
}

func (a *area) checkBucket(ctx context.Context, name string) {
	at := place{kind: onBucket, name: name}
	b := a.facts.buckets[name]
	switch f, _ := classify(b.err); {
	case f == missing:
		a.gone[at.String()] = true
		for _, folder := range []string{straightFolder, batchesFolder, receiptsFolder, controlsFolder} {
			a.gone[place{kind: onFolder, name: name, folder: folder}.String()] = true
		}
		a.fail(idBucketMissing, Error, at.String(), "It does not exist.", Fix{Command: a.createBucket(name), Terraform: a.tfBucket(name)})
		return
	case f == denied:
		a.limited(at.String(), "its settings are not checked.", Fix{Command: a.grant(at, bucketReader, a.member()), Terraform: a.tfBucket(name)})
		return
	case b.err != nil:
		a.trouble(ctx, storageAPI, at.String(), b.err)
		return
	}
	a.pass(idBucketMissing, at.String(), sentence("It exists, in %s", b.Location))
	if a.cfg.Local.Storage {
		return
	}
	a.checkUniform(at, b)
	a.checkPublic(ctx, at, b)
	if name == a.cfg.WorkBucket {
		a.checkSoftDelete(at, b)
	}
	a.checkLifecycle(at, b)
}

// createBucket is the command that creates a bucket, where its siblings are.
func (a *area) createBucket(name string) string {
	location := "REGION"
	for _, other := range a.facts.buckets {
		if other.Location != "" {
			location = other.Location
		}
	}
	if a.cfg.Lanes != nil {
		for region, listed := range a.cfg.Lanes.Buckets {
			if listed == name {
				location = region
			}
		}
	}
	words := []string{"storage", "buckets", "create", "gs://" + name, "--location=" + location, "--uniform-bucket-level-access", "--public-access-prevention"}
	if name == a.cfg.WorkBucket {
		words = append(words, "--soft-delete-duration=0")
	}
	return a.gcloud(words...)
}

// updateBucket is the fix that sets something of a bucket.
func (a *area) updateBucket(at place, flags ...string) Fix {
	return Fix{Command: a.gcloud(append([]string{"storage", "buckets", "update", "gs://" + at.name}, flags...)...), Terraform: a.tfBucket(at.name)}
}

func (a *area) checkUniform(at place, b *bucket) {
	if c := b.IamConfiguration; c != nil && c.UniformBucketLevelAccess != nil && c.UniformBucketLevelAccess.Enabled {
		a.pass(idBucketUniform, at.String(), "Access is uniform.")
		return
	}
	a.fail(idBucketUniform, Warning, at.String(), "Uniform bucket-level access is off: single objects can be shared past all policies, and rights on folders don't work.",
		a.updateBucket(at, "--uniform-bucket-level-access"))
}

func (a *area) checkPublic(ctx context.Context, at place, b *bucket) {
	if b.IamConfiguration != nil && b.IamConfiguration.PublicAccessPrevention == "enforced" {
		a.pass(idBucketPublic, at.String(), "Nobody can make it public.")
		return
	}
	fix := a.updateBucket(at, "--public-access-prevention")
	policy, err := a.bucketPolicy(ctx, at.name)
	open := slices.ContainsFunc(policy, func(b binding) bool {
		return slices.Contains(b.members, "allUsers") || slices.Contains(b.members, "allAuthenticatedUsers")
	})
	if err == nil && open {
		a.fail(idBucketPublic, Error, at.String(), "Everybody has a role on it: prompts and images are public.", fix)
		return
	}
	a.fail(idBucketPublic, Warning, at.String(), "Public access prevention is not enforced on it: one wrong grant would make prompts and images public.", fix)
}

func (a *area) checkSoftDelete(at place, b *bucket) {
	if b.SoftDeletePolicy == nil || b.SoftDeletePolicy.RetentionDurationSeconds == 0 {
		a.pass(idSoftDelete, at.String(), "Soft delete is off.")
		return
	}
	kept := time.Duration(b.SoftDeletePolicy.RetentionDurationSeconds) * time.Second
	a.fail(idSoftDelete, Warning, at.String(),
		sentence("Soft delete keeps for %s, and charges for, everything that is overwritten: each worker's sign of life every 5 s, each step of the ledger", days(kept)),
		a.updateBucket(at, "--clear-soft-delete"))
}

// bucketPolicy returns who has roles on a bucket.
func (a *area) bucketPolicy(ctx context.Context, name string) ([]binding, error) {
	ctx, done := look(ctx)
	defer done()
	policy, err := a.storage.Buckets.GetIamPolicy(name).OptionsRequestedPolicyVersion(policyVersion).Context(ctx).Do()
	if err != nil {
		return nil, err
	}
	return bindings(policy), nil
}

// folderPolicy returns who has roles on a managed folder. A folder that is none grants nothing.
func (a *area) folderPolicy(ctx context.Context, at place) ([]binding, error) {
	ctx, done := look(ctx)
	defer done()
	policy, err := a.storage.ManagedFolders.GetIamPolicy(at.name, at.folder).OptionsRequestedPolicyVersion(policyVersion).Context(ctx).Do()
	if f, _ := classify(err); f == missing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return bindings(policy), nil
}

// bindings returns who has which role in a policy of Cloud Storage.
func bindings(policy *storage.Policy) (all []binding) {
	for _, b := range policy.Bindings {
		all = append(all, binding{b.Role, b.Members})
	}
	return all
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
