package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/metadata"
	"google.golang.org/api/googleapi"
)

// TokenInfo is where Google tells whose a token is.
const TokenInfo = "https://oauth2.googleapis.com/tokeninfo"

// Identity is the account that Application Default Credentials stand for.
type Identity struct {
	Email        string // empty: it could not be told
	Person       bool   // a person's own credentials, not a service account's
	QuotaProject string
}

// Member returns the identity as IAM writes it, or nothing when it is unknown.
func (i Identity) Member() string {
	switch {
	case i.Email == "":
		return ""
	case i.Person:
		return "user:" + i.Email
	default:
		return "serviceAccount:" + i.Email
	}
}

// impersonated finds the account in an impersonation URL.
var impersonated = regexp.MustCompile(`/serviceAccounts/([^/:]+):generateAccessToken$`)

// Identify finds out whose the credentials are. The error says that they give no token; that an account's name can't be told is none.
// tokenInfo is [TokenInfo], or what stands for it.
func Identify(ctx context.Context, creds *auth.Credentials, tokenInfo string) (Identity, error) {
	ctx, cancel := look(ctx)
	defer cancel()
	token, err := creds.Token(ctx)
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	id.QuotaProject, _ = creds.QuotaProjectID(ctx) // an error means that it has none
	var file struct {
		Type          string `json:"type"`
		ClientEmail   string `json:"client_email"`
		Impersonation string `json:"service_account_impersonation_url"`
	}
	if text := creds.JSON(); len(text) == 0 {
		// Not from a file: the metadata server of a virtual machine, a pod or a service.
		// A pod that no service account was given to has the name of its pool instead of an address.
		if email, _ := metadata.EmailWithContext(ctx, "default"); strings.Contains(email, "@") {
			id.Email = email
		}
		return id, nil
	} else if err := json.Unmarshal(text, &file); err != nil {
		return id, nil // it gave a token all the same
	}
	switch file.Type {
	case "service_account":
		id.Email = file.ClientEmail
	case "authorized_user":
		id.Person = true
		id.Email, _ = tokenEmail(ctx, tokenInfo, token.Value)
	default:
		if m := impersonated.FindStringSubmatch(file.Impersonation); m != nil {
			id.Email = m[1]
		}
	}
	return id, nil
}

// tokenEmail asks Google whose a token is. The token goes into the body, since addresses end up in logs.
func tokenEmail(ctx context.Context, endpoint, token string) (string, error) {
	form := strings.NewReader(url.Values{"access_token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, form)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := googleapi.CheckResponse(resp); err != nil {
		return "", err
	}
	var info struct {
		Email string `json:"email"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		return "", fmt.Errorf("decode: %w", err)
	}
	return info.Email, nil
}

// checkCredentials looks at whose eyes the doctor has, and at the clock.
func (a *area) checkCredentials() {
	if a.cfg.Local.all() {
		return
	}
	id := a.cfg.Identity
	account := "assetmill-" + string(a.cfg.Role) + "@" + a.cfg.Project + ".iam.gserviceaccount.com"
	impersonate := Fix{
		Command:   "gcloud auth application-default login --impersonate-service-account=" + account,
		Terraform: "output service_accounts",
	}
	switch {
	case id.Email == "":
		a.fail(idIdentity, Info, "Application Default Credentials", "Whose they are could not be told; fixes name "+account+" instead.", impersonate)
	case id.Person:
		a.fail(idIdentity, Info, id.Member(), "Permissions are checked for this person, not for the "+string(a.cfg.Role)+"'s own account.", impersonate)
	default:
		a.pass(idIdentity, id.Member(), "Permissions are checked for this account.")
	}
	if id.Person && id.QuotaProject == "" {
		a.add(a.badQuotaProject("They name none, so some APIs refuse them or charge a project of Google's."))
	}
	a.checkClock()
}

func (x *exam) badQuotaProject(problem string) Finding {
	return Finding{
		ID: idQuotaProject, Area: areaCredentials, Severity: Warning, Resource: "quota project", Problem: sentence("%s", problem),
		Fix: Fix{
			Command: line("gcloud", "auth", "application-default", "set-quota-project", x.cfg.Project),
			Note:    "The person needs roles/serviceusage.serviceUsageConsumer on it.",
		},
	}
}
