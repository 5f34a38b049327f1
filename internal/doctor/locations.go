package doctor

import (
	"slices"
	"strings"

	"github.com/assetmill/assetmill/jobs"
)

// contains reports whether what is in one location, a region or a multi-region, lies in another. Both are in lower case.
func contains(outer, inner string) bool {
	switch outer {
	case inner:
		return true
	case "us":
		return strings.HasPrefix(inner, "us-")
	case "eu":
		return strings.HasPrefix(inner, "europe-")
	default:
		return false
	}
}

// checkLocations checks that images rest where their jobs are bound to.
func (a *area) checkLocations() {
	home := a.facts.buckets[a.cfg.Bucket].region()
	work := a.facts.buckets[a.cfg.WorkBucket].region()
	if home != "" && work != "" {
		at := place{kind: onBucket, name: a.cfg.WorkBucket}.String()
		if contains(home, work) || contains(work, home) {
			a.pass(idBucketLocation, at, "It is where the assets are.")
		} else {
			a.fail(idBucketLocation, Warning, at, sentence("It is in %s and the assets are in %s: prompts rest in both, and each job's records travel", work, home),
				Fix{Command: a.gcloud("storage", "buckets", "create", "gs://"+a.cfg.WorkBucket+"-"+home, "--location="+home, "--uniform-bucket-level-access", "--public-access-prevention", "--soft-delete-duration=0"),
					Terraform: "variable region", Note: "Point ASSETMILL_WORK_BUCKET to it before the first job: the ledger must not be left behind."})
		}
	}
	if a.cfg.Lanes == nil {
		return
	}
	for _, region := range sortedKeys(a.cfg.Lanes.Buckets) {
		a.checkListed(region, a.cfg.Lanes.Buckets[region])
	}
	if a.cfg.OwnLanes && home != "" {
		a.checkRegions(home)
	}
}

// checkListed checks that a bucket is in the region that it is listed for.
func (a *area) checkListed(region, name string) {
	at := place{kind: onBucket, name: name}.String()
	switch is := a.facts.buckets[name].region(); is {
	case "": // said already
	case region:
		a.pass(idBucketLocation, at, "It is in "+region+", as the file of lanes says.")
	default:
		a.fail(idBucketLocation, Error, at, sentence("The file of lanes lists it for %s, and it is in %s: no worker starts", region, is), a.regionalBucket(region))
	}
}

// regionalBucket is the fix of a region that has no bucket.
func (a *area) regionalBucket(region string) Fix {
	name := strings.TrimSuffix(a.cfg.Bucket, "-"+region) + "-" + region
	return Fix{
		Command:   a.gcloud("storage", "buckets", "create", "gs://"+name, "--location="+region, "--uniform-bucket-level-access", "--public-access-prevention"),
		Terraform: "variable extra_regions",
		Note:      "List it in the file of lanes: `buckets: {" + region + ": " + name + "}`.",
	}
}

// checkRegions checks that jobs bound to the lanes' regions can be stored.
func (a *area) checkRegions(home string) {
	var regions []string
	for _, l := range slices.Concat(a.cfg.Lanes.Lanes, a.cfg.Lanes.Batch) {
		if l.Location != jobs.GlobalRegion {
			regions = append(regions, l.Location)
		}
	}
	slices.Sort(regions)
	for _, region := range slices.Compact(regions) {
		_, listed := a.cfg.Lanes.Buckets[region]
		if !listed && region != home {
			a.fail(idBucketLocation, Warning, "region "+region, sentence("Lanes are there, but no bucket: jobs that are bound to it are given up as no_lane"), a.regionalBucket(region))
		}
	}
	if a.regional() && !slices.Contains(regions, home) {
		at := place{kind: onBucket, name: a.cfg.Bucket}.String()
		a.fail(idBucketLocation, Warning, at, sentence("It is in %s, and all lanes are bound to %s: images leave the region that they are made in", home, strings.Join(slices.Compact(regions), ", ")),
			Fix{Command: a.regionalBucket(regions[0]).Command, Terraform: "variable region", Note: "Point ASSETMILL_BUCKET to it."})
	}
}
