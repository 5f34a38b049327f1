package doctor

import (
	"context"
	"slices"
	"strings"
)

// neededAPIs returns the APIs without which a role can't work.
func neededAPIs(r Role) []string {
	all := []string{"bigquery.googleapis.com", "bigquerystorage.googleapis.com", "pubsub.googleapis.com", "storage.googleapis.com"}
	switch r {
	case Worker:
		all = append(all, "aiplatform.googleapis.com")
	case Console:
		all = append(all, "iamcredentials.googleapis.com")
	}
	return all
}

func needsAPI(r Role, api string) bool { return slices.Contains(neededAPIs(r), api) }

func disabledAPI(project, api string) Finding {
	return Finding{
		ID: idAPI, Area: areaAPIs, Severity: Error, Resource: "API " + api + " in project " + project, Problem: "It is not enabled, and needed.",
		Fix: Fix{
			Command:   line("gcloud", "services", "enable", api, "--project="+project),
			Terraform: `google_project_service.this["` + strings.TrimSuffix(api, ".googleapis.com") + `"]`,
		},
	}
}

// checkAPIs looks which APIs are enabled, and at the permissions that belong to no single service.
func (a *area) checkAPIs(ctx context.Context) {
	a.noteEmulators()
	if a.cfg.Local.all() || a.services == nil {
		return
	}
	a.checkEnabled(ctx, a.cfg.Project, neededAPIs(a.cfg.Role))
	for _, p := range a.laneProjects() {
		if p != a.cfg.Project && a.cfg.Role == Worker {
			a.checkEnabled(ctx, p, []string{"aiplatform.googleapis.com"})
		}
	}
	a.checkNeeds(ctx, onProject, onAccount)
}

// checkEnabled asks for all APIs at once.
func (a *area) checkEnabled(ctx context.Context, project string, apis []string) {
	apis = slices.DeleteFunc(slices.Clone(apis), a.localAPI)
	if len(apis) == 0 {
		return
	}
	parent := "projects/" + project
	names := make([]string, len(apis))
	for i, api := range apis {
		names[i] = parent + "/services/" + api
	}
	lookCtx, done := look(ctx)
	defer done()
	answer, err := a.services.Services.BatchGet(parent).Names(names...).Context(lookCtx).Do()
	resource := "APIs of project " + project
	if err != nil {
		if !a.trouble(ctx, serviceUsageAPI, resource, err) {
			a.limited(resource, "which of them are enabled is not known; an API that is not enabled is found where it is used.",
				Fix{Command: a.grant(place{kind: onProject, project: project}, "roles/serviceusage.serviceUsageViewer", a.member())})
		}
		return
	}
	enabled := map[string]bool{}
	for _, s := range answer.Services {
		enabled[s.Name[strings.LastIndex(s.Name, "/")+1:]] = s.State == serviceEnabled
	}
	for _, api := range apis {
		if enabled[api] {
			a.pass(idAPI, "API "+api+" in project "+project, "It is enabled.")
		} else {
			a.once(disabledAPI(project, api))
		}
	}
}

const (
	serviceEnabled  = "ENABLED"
	serviceUsageAPI = "serviceusage.googleapis.com"
)

// localAPI reports whether an emulator stands for an API.
func (a *area) localAPI(api string) bool {
	local := a.cfg.Local
	switch strings.TrimSuffix(api, ".googleapis.com") {
	case "pubsub":
		return local.PubSub
	case "storage":
		return local.Storage
	case "bigquery", "bigquerystorage":
		return local.BigQuery
	case "aiplatform":
		return local.Vertex
	default:
		return false
	}
}

// noteEmulators says what will not be checked.
func (a *area) noteEmulators() {
	for _, one := range []struct {
		local        bool
		name, blanks string
	}{
		{a.cfg.Local.PubSub, areaPubSub, "permissions, schemas, dead letters and the settings of subscriptions other than their filters are not checked."},
		{a.cfg.Local.Storage, areaStorage, "permissions, lifecycle rules, public access, soft delete and locations are not checked."},
		{a.cfg.Local.BigQuery, areaBigQuery, "permissions, partitions, clusters and locations are not checked."},
		{a.cfg.Local.Vertex, areaVertex, "permissions, quotas and service agents are not checked."},
	} {
		if one.local {
			a.fail(idEmulator, Info, one.name, "It is an emulator, which can't tell everything: "+one.blanks, Fix{})
		}
	}
}

// laneProjects returns the projects whose quota the lanes use, each once.
func (x *exam) laneProjects() []string {
	var all []string
	if x.cfg.Lanes != nil {
		for _, l := range x.cfg.Lanes.Lanes {
			all = append(all, l.Project)
		}
		for _, l := range x.cfg.Lanes.Batch {
			all = append(all, l.Project)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
