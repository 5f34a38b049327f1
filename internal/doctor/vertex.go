package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	quotas "google.golang.org/api/serviceusage/v1beta1"

	"github.com/assetmill/assetmill/worker"
)

const vertexAPI = "aiplatform.googleapis.com"

// maxQuotaPages bounds how much of the list of quotas is read; Vertex AI has some hundreds.
const maxQuotaPages = 20

// checkVertex asks, at no cost, whether calls may be made by the lanes. It is the workers' business only.
func (a *area) checkVertex(ctx context.Context) {
	if a.cfg.Role != Worker || a.cfg.Clients.AskLane == nil {
		return
	}
	lanes := a.lanesToAsk()
	errs := make([]error, len(lanes))
	each(len(lanes), func(i int) {
		ctx, done := look(ctx)
		defer done()
		errs[i] = a.cfg.Clients.AskLane(ctx, lanes[i])
	})
	for i, l := range lanes {
		a.checkLane(l, errs[i])
	}
	if !a.cfg.Local.Vertex && a.quotas != nil {
		a.checkQuotas(ctx, lanes)
	}
}

// lanesToAsk returns the lanes that a worker asks about, and those of tier batch where they go elsewhere.
func (x *exam) lanesToAsk() []worker.Lane {
	all := slices.Clone(x.cfg.First)
	if x.cfg.Lanes == nil {
		return all
	}
	for _, b := range x.cfg.Lanes.Batch {
		same := func(l worker.Lane) bool {
			return l.Project == b.Project && l.Location == b.Location && l.Model == b.Model && l.Host == b.Host
		}
		if !slices.ContainsFunc(all, same) {
			all = append(all, b.Lane)
		}
	}
	return all
}

func (a *area) checkLane(l worker.Lane, err error) {
	at := "lane " + l.Name
	where := fmt.Sprintf("model %s at %s in project %s", l.Model, l.Location, l.Project)
	var call *worker.CallError
	switch {
	case err == nil && l.Endpoint != "":
		a.fail(idLaneUnchecked, Info, at, "A dedicated endpoint can't be asked for free: only the credentials are checked.", Fix{})
	case err == nil:
		a.pass(idLaneModel, at, sentence("Calls to %s may be made", where))
	case !errors.As(err, &call) || call.Kind != worker.Denied:
		a.fail(idLaneUnchecked, Warning, at, sentence("Vertex AI gave no clear answer for %s: %s", where, brief(err)), Fix{Note: "Run the doctor again."})
	case call.Status == http.StatusNotFound:
		a.fail(idLaneModel, Error, at, sentence("There is no %s: its lane would be shut at the first call", where), a.otherLane(l))
	case call.Status == http.StatusForbidden && disabledWords.MatchString(call.Detail):
		a.once(disabledAPI(l.Project, vertexAPI))
	case call.Status == http.StatusForbidden:
		a.fail(idLaneDenied, Error, at, sentence("Calls to %s are denied: %s", where, call.Detail),
			Fix{Command: a.grant(place{kind: onProject, project: l.Project}, modelCaller, a.member()), Terraform: tfProjectGrants})
	default:
		f := BadCredentials(errors.New(brief(err)))
		a.once(f)
	}
}

// disabledWords recognise an API that is not enabled in what Vertex AI says of it.
var disabledWords = regexp.MustCompile(`(?i)has not been used in project|it is disabled|SERVICE_DISABLED`)

// otherLane is the fix of a lane whose model is not where it is called.
func (a *area) otherLane(l worker.Lane) Fix {
	fix := Fix{Terraform: "variable models", Note: "Take the lane out of the file of lanes, or give it another location: docs/lanes.md."}
	if a.cfg.Lanes == nil || a.cfg.Lanes.Catalogue == nil {
		return fix
	}
	if m := a.cfg.Lanes.Catalogue.Model(l.Model); m != nil {
		fix.Note = "Take the lane out of the file of lanes, or give it another location. The catalogue has " + m.ID + " at " + strings.Join(m.Locations, ", ") + "."
	}
	if !a.cfg.OwnLanes {
		fix.Note += " Without a file of lanes every location of the catalogue is used."
	}
	return fix
}

// checkQuotas says what limits there are for the lanes' models. What is left of them no free interface tells.
func (a *area) checkQuotas(ctx context.Context, lanes []worker.Lane) {
	for _, p := range a.laneProjects() {
		resource := "quotas of project " + p
		metrics, err := a.quotaMetrics(ctx, p)
		switch f, _ := classify(err); {
		case f == denied:
			a.limited(resource, "what the limits are is not known.", Fix{Command: a.grant(place{kind: onProject, project: p}, "roles/serviceusage.serviceUsageViewer", a.member())})
			continue
		case err != nil:
			a.trouble(ctx, serviceUsageAPI, resource, err)
			continue
		}
		limits := 0
		for _, l := range lanes {
			if l.Project == p && l.Endpoint == "" {
				limits += a.checkQuota(l, metrics)
			}
		}
		if limits == 0 {
			a.fail(idQuota, Info, resource, "No fixed quota is set for the lanes' models: their capacity is shared, and workers learn how much they get.", Fix{})
		}
	}
}

func (a *area) quotaMetrics(ctx context.Context, project string) (all []*quotas.ConsumerQuotaMetric, err error) {
	ctx, done := look(ctx)
	defer done()
	list := a.quotas.Services.ConsumerQuotaMetrics.List("projects/" + project + "/services/" + vertexAPI).View("BASIC").Context(ctx)
	for range maxQuotaPages {
		page, err := list.Do()
		if err != nil {
			return nil, err
		}
		all = append(all, page.Metrics...)
		if page.NextPageToken == "" {
			break
		}
		list.PageToken(page.NextPageToken)
	}
	return all, nil
}

// checkQuota reports the limits that are set for a lane's model at its location, and returns how many there are.
func (a *area) checkQuota(l worker.Lane, metrics []*quotas.ConsumerQuotaMetric) (limits int) {
	for _, m := range metrics {
		for _, limit := range m.ConsumerQuotaLimits {
			for _, b := range limit.QuotaBuckets {
				if b.Dimensions["base_model"] != l.Model || b.Dimensions["region"] != "" && b.Dimensions["region"] != l.Location {
					continue
				}
				limits++
				a.reportQuota(l, m, b.EffectiveLimit)
			}
		}
	}
	return limits
}

func (a *area) reportQuota(l worker.Lane, m *quotas.ConsumerQuotaMetric, limit int64) {
	at := "quota " + m.Metric + " of " + l.Model + " at " + l.Location
	switch {
	case limit == 0:
		a.fail(idQuota, Warning, at, sentence("It is 0, so lane %s serves nothing", l.Name),
			Fix{Note: "Ask for more: https://console.cloud.google.com/iam-admin/quotas?project=" + l.Project})
	case limit < 0:
		a.pass(idQuota, at, "It is unlimited.")
	default:
		a.fail(idQuota, Info, at, sentence("The limit is %d (%s)", limit, m.DisplayName), Fix{})
	}
}
