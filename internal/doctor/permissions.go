package doctor

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/iam/apiv1/iampb"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/api/cloudresourcemanager/v3"
	"google.golang.org/api/iam/v1"

	"github.com/assetmill/assetmill/schemas"
)

// checkNeeds tests what the role needs on resources of some kinds. Resources that were found missing are left out: all permissions would be.
func (a *area) checkNeeds(ctx context.Context, kinds ...kind) {
	all := slices.DeleteFunc(a.needs(), func(n need) bool {
		return !slices.Contains(kinds, n.on.kind) || a.gone[n.on.String()]
	})
	type result struct {
		lacking []string
		err     error
	}
	results := make([]result, len(all))
	each(len(all), func(i int) {
		lookCtx, done := look(ctx)
		defer done()
		results[i].lacking, results[i].err = a.test(lookCtx, all[i].on, all[i].permissions)
	})
	for i, n := range all {
		switch r := results[i]; {
		case r.err != nil:
			if !a.trouble(ctx, a.apiOf(n.on.kind), n.on.String(), r.err) {
				a.limited(n.on.String(), "whether it has "+strings.Join(n.permissions, ", ")+" on it is not known.", Fix{})
			}
		case len(r.lacking) > 0:
			a.fail(idPermission, n.severity, n.on.String(), sentence("%s is missing: %s", strings.Join(r.lacking, ", "), n.without),
				Fix{Command: a.grantAt(n.on, n.role), Terraform: n.terraform})
		default:
			a.pass(idPermission, n.on.String(), sentence("%s: granted", strings.Join(n.permissions, ", ")))
		}
	}
}

// grantAt is the command that grants a role to the account of the role, with a folder made first where there is none.
func (a *area) grantAt(p place, role string) string {
	command := a.grant(p, role, a.member())
	if p.kind == onFolder && a.facts.unmade[p.String()] {
		command = a.gcloud("storage", "managed-folders", "create", "gs://"+p.name+"/"+p.folder) + " && " + command
	}
	return command
}

func (a *area) apiOf(k kind) string {
	switch k {
	case onTopic, onSubscription:
		return "pubsub.googleapis.com"
	case onBucket, onFolder:
		return "storage.googleapis.com"
	case onDataset, onTable:
		return "bigquery.googleapis.com"
	case onAccount:
		return "iam.googleapis.com"
	default:
		return "cloudresourcemanager.googleapis.com"
	}
}

// test returns which permissions the caller lacks on a resource.
func (a *area) test(ctx context.Context, on place, permissions []string) (lacking []string, err error) {
	switch on.kind {
	case onTopic:
		return a.testTopic(ctx, on, permissions)
	case onSubscription:
		return a.testSubscription(ctx, on, permissions)
	case onBucket:
		return a.testBucket(ctx, on.name, permissions)
	case onFolder:
		lacking, err = a.testBucket(ctx, on.name, permissions)
		if err != nil || len(lacking) == 0 {
			return lacking, err
		}
		return a.testFolder(ctx, on, lacking)
	case onDataset:
		return a.testDataset(ctx, permissions)
	case onTable:
		return a.testTable(ctx, on.name, permissions)
	case onAccount:
		answer, err := a.accounts.Projects.ServiceAccounts.TestIamPermissions("projects/-/serviceAccounts/"+on.name,
			&iam.TestIamPermissionsRequest{Permissions: permissions}).Context(ctx).Do()
		if err != nil {
			return nil, err
		}
		return without(permissions, answer.Permissions), nil
	default:
		answer, err := a.projects.Projects.TestIamPermissions("projects/"+on.project,
			&cloudresourcemanager.TestIamPermissionsRequest{Permissions: permissions}).Context(ctx).Do()
		if err != nil {
			return nil, err
		}
		return without(permissions, answer.Permissions), nil
	}
}

// without returns what of all is not in have.
func without(all, have []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(p string) bool { return slices.Contains(have, p) })
}

func (a *area) testTopic(ctx context.Context, on place, permissions []string) ([]string, error) {
	answer, err := a.cfg.Clients.Topics.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: a.topicName(on.name), Permissions: permissions})
	if err != nil {
		return nil, err
	}
	return without(permissions, answer.GetPermissions()), nil
}

func (a *area) testSubscription(ctx context.Context, on place, permissions []string) ([]string, error) {
	answer, err := a.cfg.Clients.Subscriptions.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{Resource: a.subscriptionName(on.name), Permissions: permissions})
	if err != nil {
		return nil, err
	}
	return without(permissions, answer.GetPermissions()), nil
}

func (a *area) testBucket(ctx context.Context, bucket string, permissions []string) ([]string, error) {
	answer, err := a.storage.Buckets.TestIamPermissions(bucket, permissions).Context(ctx).Do()
	if err != nil {
		return nil, err
	}
	return without(permissions, answer.Permissions), nil
}

// testFolder tests what is granted on a managed folder. A folder that was not made one grants nothing.
func (a *area) testFolder(ctx context.Context, on place, permissions []string) ([]string, error) {
	answer, err := a.storage.ManagedFolders.TestIamPermissions(on.name, on.folder, permissions).Context(ctx).Do()
	if f, _ := classify(err); f == missing {
		return permissions, nil
	}
	if err != nil {
		return nil, err
	}
	return without(permissions, answer.Permissions), nil
}

// testDataset tests permissions that are granted on the dataset, by its tables: datasets themselves can't be asked.
func (a *area) testDataset(ctx context.Context, permissions []string) ([]string, error) {
	var lacking []string
	for _, t := range schemas.Tables() {
		if a.gone[place{kind: onTable, name: t.Name}.String()] {
			continue
		}
		some, err := a.testTable(ctx, t.Name, permissions)
		if err != nil {
			return nil, err
		}
		lacking = append(lacking, some...)
	}
	slices.Sort(lacking)
	return slices.Compact(lacking), nil
}

func (a *area) testTable(ctx context.Context, table string, permissions []string) ([]string, error) {
	resource := "projects/" + a.cfg.Project + "/datasets/" + a.cfg.Dataset + "/tables/" + table
	answer, err := a.bigquery.Tables.TestIamPermissions(resource, &bigquery.TestIamPermissionsRequest{Permissions: permissions}).Context(ctx).Do()
	if err != nil {
		return nil, err
	}
	return without(permissions, answer.Permissions), nil
}
