package doctor_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/bigquery/v2"
)

// startREST starts the APIs that speak REST. Each has a folder of its own in the address.
func (c *cloud) startREST() {
	mux := http.NewServeMux()
	handle := func(pattern, api string, f func(w http.ResponseWriter, r *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			w.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Type", "application/json")
			if !c.apis[api] {
				refuseDisabled(w, api)
				return
			}
			f(w, r)
		})
	}
	c.handleStorage(handle)
	c.handleBigQuery(handle)
	c.handleProjects(handle)
	handle("POST /v1/projects/{project}/locations/{location}/publishers/google/models/{call}", "aiplatform.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		model, ok := strings.CutSuffix(r.PathValue("call"), ":countTokens")
		switch {
		case !ok:
			c.t.Errorf("%s: the doctor may only count tokens", r.URL.Path)
			refuse(w, http.StatusTeapot, "this costs money", "", nil)
		case !c.may("aiplatform.endpoints.predict", "project"):
			refuse(w, http.StatusForbidden, "Permission 'aiplatform.endpoints.predict' denied on resource", "IAM_PERMISSION_DENIED", nil)
		case !c.models[r.PathValue("location")+"/"+model]:
			refuse(w, http.StatusNotFound, "Publisher Model was not found or your project does not have access to it.", "", nil)
		default:
			answer(w, map[string]any{"totalTokens": 1})
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.t.Errorf("the test's cloud has no %s %s", r.Method, r.URL.Path)
		http.NotFound(w, r)
	})
	c.rest = httptest.NewServer(mux)
	c.t.Cleanup(c.rest.Close)
}

type handler func(pattern, api string, f func(w http.ResponseWriter, r *http.Request))

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// refuseDisabled answers as an API that is not enabled: the older ones with a reason and a link only.
func refuseDisabled(w http.ResponseWriter, api string) {
	message := "API has not been used in project 123456789012 before or it is disabled. Enable it by visiting https://console.developers.google.com/apis/api/" + api +
		"/overview?project=123456789012 then retry."
	switch api {
	case "storage.googleapis.com":
		w.WriteHeader(http.StatusForbidden)
		answer(w, map[string]any{"error": map[string]any{"code": 403, "message": message, "errors": []any{map[string]any{"reason": "accessNotConfigured", "domain": "usageLimits", "message": message}}}})
	case "bigquery.googleapis.com":
		w.WriteHeader(http.StatusForbidden)
		answer(w, map[string]any{"error": map[string]any{
			"code": 403, "message": message, "status": "PERMISSION_DENIED", "errors": []any{map[string]any{"reason": "accessNotConfigured", "message": message}},
			"details": []any{map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "metadata": map[string]string{"service": api}}},
		}})
	default:
		refuse(w, http.StatusForbidden, message, "SERVICE_DISABLED", map[string]string{"service": api})
	}
}

// refuse answers as Google's APIs do.
func refuse(w http.ResponseWriter, code int, message, reason string, metadata map[string]string) {
	status := map[int]string{http.StatusForbidden: "PERMISSION_DENIED", http.StatusNotFound: "NOT_FOUND", http.StatusPreconditionFailed: "FAILED_PRECONDITION"}[code]
	e := map[string]any{"code": code, "message": message, "status": status}
	if reason != "" {
		e["details"] = []any{map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}}
	}
	w.WriteHeader(code)
	answer(w, map[string]any{"error": e})
}

func (c *cloud) deny(w http.ResponseWriter, permission, resource string) bool {
	if c.may(permission, resource) {
		return false
	}
	refuse(w, http.StatusForbidden, c.caller+" does not have "+permission+" access to "+resource, "", nil)
	return true
}

func (c *cloud) handleStorage(handle handler) {
	const api = "storage.googleapis.com"
	found := func(w http.ResponseWriter, r *http.Request) (map[string]any, string) {
		name := r.PathValue("bucket")
		if c.buckets[name] == nil {
			refuse(w, http.StatusNotFound, "The specified bucket does not exist.", "", nil)
			return nil, ""
		}
		return c.buckets[name], name
	}
	handle("GET /storage/v1/b/{bucket}", api, func(w http.ResponseWriter, r *http.Request) {
		if b, name := found(w, r); b != nil && !c.deny(w, "storage.buckets.get", "bucket "+name) {
			answer(w, b)
		}
	})
	handle("PATCH /storage/v1/b/{bucket}", api, func(w http.ResponseWriter, r *http.Request) {
		b, _ := found(w, r)
		switch {
		case b == nil:
		case r.URL.Query().Get("ifMetagenerationMatch") != b["metageneration"]:
			refuse(w, http.StatusPreconditionFailed, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet", nil)
		default:
			var patch map[string]any
			if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
				c.t.Error(err)
			}
			for k, v := range patch {
				b[k] = v
			}
			answer(w, b)
		}
	})
	handle("GET /storage/v1/b/{bucket}/iam", api, func(w http.ResponseWriter, r *http.Request) {
		if b, name := found(w, r); b != nil && !c.deny(w, "storage.buckets.getIamPolicy", "bucket "+name) {
			answer(w, map[string]any{"bindings": c.bindings("bucket " + name)})
		}
	})
	handle("GET /storage/v1/b/{bucket}/iam/testPermissions", api, func(w http.ResponseWriter, r *http.Request) {
		if b, name := found(w, r); b != nil {
			answer(w, map[string]any{"permissions": c.permitted(r.URL.Query()["permissions"], "bucket "+name)})
		}
	})
	handle("GET /storage/v1/b/{bucket}/managedFolders/{rest...}", api, func(w http.ResponseWriter, r *http.Request) {
		b, name := found(w, r)
		if b == nil {
			return
		}
		// The folder's name ends in a slash, which is part of one segment of the address.
		rest := strings.TrimPrefix(r.URL.EscapedPath(), "/storage/v1/b/"+name+"/managedFolders/")
		folder, verb, _ := strings.Cut(strings.ReplaceAll(rest, "%2F", "/"), "/")
		folder, verb = name+"/"+folder+"/", strings.Trim(verb, "/")
		switch {
		case !c.folders[folder]:
			refuse(w, http.StatusNotFound, "The specified managed folder does not exist.", "", nil)
		case verb == "iam/testPermissions":
			answer(w, map[string]any{"permissions": c.permitted(r.URL.Query()["permissions"], "folder "+folder)})
		case verb == "iam":
			if !c.deny(w, "storage.managedFolders.getIamPolicy", "folder "+folder) {
				answer(w, map[string]any{"bindings": c.bindings("folder " + folder)})
			}
		case verb == "":
			if !c.deny(w, "storage.managedFolders.get", "folder "+folder) {
				answer(w, map[string]any{"name": folder})
			}
		default:
			c.t.Errorf("managed folder: %s", r.URL)
		}
	})
}

func (c *cloud) handleBigQuery(handle handler) {
	const api, base = "bigquery.googleapis.com", "/bigquery/v2/projects/" + projectID + "/datasets/{dataset}"
	none := func(w http.ResponseWriter, r *http.Request) bool {
		if c.dataset != nil && r.PathValue("dataset") == datasetID {
			return false
		}
		refuse(w, http.StatusNotFound, "Not found: Dataset", "", nil)
		return true
	}
	handle("GET "+base, api, func(w http.ResponseWriter, r *http.Request) {
		if !none(w, r) && !c.deny(w, "bigquery.datasets.get", "dataset "+datasetID) {
			answer(w, c.dataset)
		}
	})
	handle("GET "+base+"/tables/{table}", api, func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("table")
		switch {
		case none(w, r), c.deny(w, "bigquery.tables.get", "table "+name):
		case c.tables[name] == nil:
			refuse(w, http.StatusNotFound, "Not found: Table "+name, "", nil)
		default:
			answer(w, c.tables[name])
		}
	})
	handle("POST "+base+"/tables", api, func(w http.ResponseWriter, r *http.Request) {
		t := &bigquery.Table{}
		text, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(text, t); err != nil || t.View == nil || !strings.Contains(string(text), `"useLegacySql":false`) {
			c.t.Errorf("a view is made by %s: %v", text, err)
		}
		c.tables[t.TableReference.TableId] = t
		answer(w, t)
	})
	handle("POST /bigquery/v2/{resource...}", api, func(w http.ResponseWriter, r *http.Request) {
		table, ok := strings.CutSuffix(r.URL.Path, ":testIamPermissions")
		if !ok {
			c.t.Errorf("BigQuery: %s %s", r.Method, r.URL)
		}
		answer(w, map[string]any{"permissions": c.permitted(c.asked(r), "table "+table[strings.LastIndex(table, "/")+1:])})
	})
}

// asked returns the permissions that a request in JSON asks for.
func (c *cloud) asked(r *http.Request) []string {
	var body struct{ Permissions []string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		c.t.Error(err)
	}
	return body.Permissions
}

func (c *cloud) handleProjects(handle handler) {
	handle("GET /v3/projects/{project}", "cloudresourcemanager.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		if !c.deny(w, "resourcemanager.projects.get", "project") {
			answer(w, map[string]any{"name": "projects/" + projectNumber, "projectId": projectID})
		}
	})
	handle("POST /v3/projects/{call}", "cloudresourcemanager.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("call") {
		case projectID + ":testIamPermissions":
			answer(w, map[string]any{"permissions": c.permitted(c.asked(r), "project")})
		case projectID + ":getIamPolicy":
			if !c.deny(w, "resourcemanager.projects.getIamPolicy", "project") {
				answer(w, map[string]any{"bindings": c.bindings("project")})
			}
		default:
			c.t.Errorf("Resource Manager: %s", r.URL)
		}
	})
	handle("POST /v1/projects/-/serviceAccounts/{call}", "iam.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		account, _ := strings.CutSuffix(r.PathValue("call"), ":testIamPermissions")
		answer(w, map[string]any{"permissions": c.permitted(c.asked(r), "account "+account)})
	})
	handle("GET /v1/projects/{project}/services:batchGet", "serviceusage.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		if c.deny(w, "serviceusage.services.get", "project") {
			return
		}
		var all []any
		for _, name := range r.URL.Query()["names"] {
			state := "DISABLED"
			if c.apis[name[strings.LastIndex(name, "/")+1:]] {
				state = "ENABLED"
			}
			all = append(all, map[string]any{"name": strings.Replace(name, projectID, projectNumber, 1), "state": state})
		}
		answer(w, map[string]any{"services": all})
	})
	handle("GET /v1beta1/projects/{project}/services/aiplatform.googleapis.com/consumerQuotaMetrics", "serviceusage.googleapis.com", func(w http.ResponseWriter, r *http.Request) {
		if c.deny(w, "serviceusage.quotas.get", "project") {
			return
		}
		// Two pages, so that the second is not forgotten.
		if r.URL.Query().Get("pageToken") == "" {
			answer(w, map[string]any{"metrics": []any{}, "nextPageToken": "2"})
			return
		}
		answer(w, map[string]any{"metrics": slices.Clone(c.quota)})
	})
}

// quotaOf is a limit for a model.
func quotaOf(model, region string, limit int) any {
	return map[string]any{
		"metric": "aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model", "displayName": "Generate content requests per minute",
		"consumerQuotaLimits": []any{map[string]any{"quotaBuckets": []any{
			map[string]any{"effectiveLimit": "100", "dimensions": map[string]string{"base_model": "another"}},
			map[string]any{"effectiveLimit": fmt.Sprint(limit), "dimensions": map[string]string{"base_model": model, "region": region}},
		}}},
	}
}
