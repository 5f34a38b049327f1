package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"cloud.google.com/go/auth"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fault is what an error of a service says about the deployment.
type fault int

const (
	none     fault = iota
	missing        // it does not exist, or this account may not know that it does
	denied         // this account may not
	disabled       // the API is not enabled
	nameless       // the credentials are not accepted, or give no token
	unbilled       // the quota project of the credentials may not be used
	unclear        // anything else: it says nothing about the deployment
)

// classify judges an error. api is the service that is not enabled, if that is known.
func classify(err error) (f fault, api string) {
	var token *auth.Error
	switch {
	case err == nil:
		return none, ""
	case errors.As(err, &token):
		return nameless, ""
	}
	reason, metadata := reasonOf(err)
	switch reason {
	case "SERVICE_DISABLED", "accessNotConfigured":
		return disabled, metadata["service"]
	case "USER_PROJECT_DENIED":
		return unbilled, ""
	case "SECURITY_POLICY_VIOLATED":
		return unclear, "" // a perimeter of VPC Service Controls: no grant would help
	}
	switch codeOf(err) {
	case http.StatusNotFound:
		return missing, ""
	case http.StatusForbidden:
		return denied, ""
	case http.StatusUnauthorized:
		return nameless, ""
	default:
		return unclear, ""
	}
}

// consoleAPI finds the API's name in the message of the older APIs, which has a link to enable it.
var consoleAPI = regexp.MustCompile(`apis/(?:api|library)/([a-z0-9.-]+\.googleapis\.com)`)

// reasonOf returns the machine-readable reason of an error and what belongs to it.
func reasonOf(err error) (string, map[string]string) {
	if e, ok := apierror.FromError(err); ok && e.Reason() != "" {
		return e.Reason(), e.Metadata()
	}
	var rest *googleapi.Error
	if !errors.As(err, &rest) {
		return "", nil
	}
	// Older APIs mix their own form with the newer one, which the parser of the newer one refuses.
	for _, item := range rest.Details {
		if d, ok := item.(map[string]any); ok && d["reason"] != nil {
			metadata := map[string]string{}
			if m, ok := d["metadata"].(map[string]any); ok {
				metadata["service"], _ = m["service"].(string)
			}
			return fmt.Sprint(d["reason"]), metadata
		}
	}
	for _, item := range rest.Errors {
		if item.Reason != "accessNotConfigured" {
			continue
		}
		metadata := map[string]string{}
		if m := consoleAPI.FindStringSubmatch(rest.Message); m != nil {
			metadata["service"] = m[1]
		}
		return item.Reason, metadata
	}
	return "", nil
}

// codeOf returns an error's HTTP status, or what would be one, or 0.
func codeOf(err error) int {
	var rest *googleapi.Error
	if errors.As(err, &rest) {
		return rest.Code
	}
	switch status.Code(err) {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	default:
		return 0
	}
}

// brief shortens a service's error to its first line.
func brief(err error) string {
	var rest *googleapi.Error
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	} else if errors.As(err, &rest) && rest.Message != "" {
		text = rest.Message
	}
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	const most = 300 // bytes: what says what is wrong stands in front
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}

// trouble reports an error that is about the service and not about the resource that was looked at. It returns whether it was one: then
// there is nothing more to say of the resource.
func (a *area) trouble(ctx context.Context, service, resource string, err error) bool {
	f, api := classify(err)
	switch f {
	case disabled:
		if api == "" {
			api = service
		}
		a.disabled(api)
	case nameless:
		found := BadCredentials(errors.New(brief(err)))
		found.Area = areaCredentials
		a.once(found)
	case unbilled:
		a.once(a.badQuotaProject(brief(err)))
	case unclear:
		problem := brief(err)
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			problem = "no answer within " + callTimeout.String()
		}
		severity := Error
		if !needsAPI(a.cfg.Role, service) {
			severity = Info // only the doctor needs it
		}
		a.once(Finding{
			ID: idUnreachable, Area: a.name, Severity: severity, Resource: service, Problem: sentence("It could not be asked about %s: %s", resource, problem),
			Fix: Fix{Note: "Look at the network, proxies, VPC Service Controls and https://status.cloud.google.com, then run the doctor again."},
		})
	default:
		return false
	}
	return true
}

// once adds a finding to whatever area it names, unless it is there already.
func (a *area) once(f Finding) {
	for _, other := range a.found {
		if other.ID == f.ID && other.Resource == f.Resource {
			return
		}
	}
	a.found = append(a.found, f)
}

// disabled reports that an API is not enabled, however that came to light.
func (a *area) disabled(api string) {
	f := disabledAPI(a.cfg.Project, api)
	if !needsAPI(a.cfg.Role, api) {
		f.Severity = Info
		f.Problem = "It is not enabled, so the doctor could not look at everything."
	}
	a.once(f)
}
