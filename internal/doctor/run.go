package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/api/cloudresourcemanager/v3"
	"google.golang.org/api/iam/v1"
	"google.golang.org/api/option"
	"google.golang.org/api/serviceusage/v1"
	quotas "google.golang.org/api/serviceusage/v1beta1"
	"google.golang.org/api/storage/v1"
)

const (
	// callTimeout bounds one look. Google's APIs answer in well under a second; clients repeat what fails for a passing reason.
	callTimeout = 15 * time.Second
	// maxLooks bounds the looks of one area at a time. Reading settings has quotas of a few hundred a minute.
	maxLooks = 8
)

// exam is one run. Its fields are not changed once the areas begin.
type exam struct {
	cfg   *Config
	clock *clock

	storage     *storage.Service
	storageHTTP *http.Client
	storageBase string
	bigquery    *bigquery.Service
	projects    *cloudresourcemanager.Service // nil when all services are local, as the next three
	services    *serviceusage.Service
	quotas      *quotas.APIService
	accounts    *iam.Service

	facts facts
}

// Run examines the deployment and returns what it found. It returns an error only when ctx ends or the configuration is incomplete.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &Report{Project: cfg.Project, Role: cfg.Role, Identity: cfg.Identity.Member(), Findings: slices.Clone(cfg.Before)}
	x := &exam{cfg: &cfg, clock: &clock{}}
	if err := x.connect(ctx); err != nil {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	x.gather(ctx)
	areas := []struct {
		name  string
		check func(*area, context.Context)
	}{
		{areaAPIs, (*area).checkAPIs}, {areaPubSub, (*area).checkPubSub}, {areaStorage, (*area).checkStorage},
		{areaBigQuery, (*area).checkBigQuery}, {areaVertex, (*area).checkVertex},
	}
	found := make([][]Finding, len(areas))
	var group errgroup.Group
	for i, one := range areas {
		group.Go(func() error {
			a := &area{exam: x, name: one.name, gone: map[string]bool{}}
			one.check(a, ctx)
			found[i] = a.found
			return nil
		})
	}
	_ = group.Wait() // what went wrong is found
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("doctor: %w", context.Cause(ctx))
	}
	credentials := &area{exam: x, name: areaCredentials}
	credentials.checkCredentials() // last: by then the clock has been compared
	r.Findings = distinct(slices.Concat(append([][]Finding{r.Findings, credentials.found}, found...)...))
	r.sort()
	return r, nil
}

// distinct leaves out what several areas have come upon: an API that is not enabled, credentials that are not accepted.
func distinct(all []Finding) []Finding {
	type key struct{ id, resource, problem string }
	seen := map[key]bool{}
	return slices.DeleteFunc(all, func(f Finding) bool {
		k := key{f.ID, f.Resource, f.Problem}
		if shared := []string{idADC, idAPI, idQuotaProject, idUnreachable}; slices.Contains(shared, f.ID) && f.Severity > OK {
			k.problem = ""
		}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// sort puts findings in the order of areas, in each the worst first, then as they were found.
func (r *Report) sort() {
	order := map[string]int{}
	for i, name := range areaNames() {
		order[name] = i
	}
	slices.SortStableFunc(r.Findings, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(order[x.Area], order[y.Area]), cmp.Compare(y.Severity, x.Severity))
	})
}

func areaNames() []string {
	return []string{areaSettings, areaCredentials, areaAPIs, areaPubSub, areaStorage, areaBigQuery, areaVertex}
}

// connect makes the clients of REST APIs.
func (x *exam) connect(ctx context.Context) (err error) {
	c := x.cfg.Clients
	remote := c.HTTP
	if remote != nil {
		dated := *remote
		dated.Transport = transport{cmp.Or(remote.Transport, http.DefaultTransport), x.clock}
		remote = &dated
	}
	options := func(local bool, endpoint string) (*http.Client, []option.ClientOption) {
		hc := remote
		if local || hc == nil {
			hc = &http.Client{}
		}
		all := []option.ClientOption{option.WithHTTPClient(hc)}
		if endpoint != "" {
			all = append(all, option.WithEndpoint(endpoint))
		}
		return hc, all
	}
	local := x.cfg.Local
	hc, opts := options(local.Storage, c.Endpoints.Storage)
	if x.storage, err = storage.NewService(ctx, opts...); err != nil {
		return err
	}
	x.storageHTTP, x.storageBase = hc, x.storage.BasePath
	_, opts = options(local.BigQuery, c.Endpoints.BigQuery)
	if x.bigquery, err = bigquery.NewService(ctx, opts...); err != nil {
		return err
	}
	if remote == nil {
		return nil
	}
	_, opts = options(false, c.Endpoints.ResourceManager)
	if x.projects, err = cloudresourcemanager.NewService(ctx, opts...); err != nil {
		return err
	}
	_, opts = options(false, c.Endpoints.IAM)
	if x.accounts, err = iam.NewService(ctx, opts...); err != nil {
		return err
	}
	_, opts = options(false, c.Endpoints.ServiceUsage)
	if x.services, err = serviceusage.NewService(ctx, opts...); err != nil {
		return err
	}
	x.quotas, err = quotas.NewService(ctx, opts...)
	return err
}

// look bounds one look.
func look(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %s", callTimeout))
}

// each calls f for the numbers below n, some at a time, and waits. f must touch only what is its own.
func each(n int, f func(i int)) {
	var group errgroup.Group
	group.SetLimit(maxLooks)
	for i := range n {
		group.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = group.Wait() // f has no error
}

// member is whom grants are for.
func (x *exam) member() string {
	return cmp.Or(x.cfg.Identity.Member(), "serviceAccount:assetmill-"+string(x.cfg.Role)+"@"+x.cfg.Project+".iam.gserviceaccount.com")
}

// sentence makes one of a text that may not end as one.
func sentence(format string, args ...any) string {
	text := strings.TrimSpace(strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	if text != "" && !strings.ContainsAny(text[len(text)-1:], ".!?") {
		text += "."
	}
	return text
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
