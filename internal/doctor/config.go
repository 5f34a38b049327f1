package doctor

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"

	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
)

// Role says for whom permissions are checked.
type Role string

// Roles, as the accounts of deploy/terraform.
const (
	Worker    Role = "worker"    // calls models, stores images, records lineage
	Submitter Role = "submitter" // checks CSV files and publishes their jobs
	Console   Role = "console"   // shows progress and images, signs links, controls submissions, puts dead letters back
)

// Roles returns all roles.
func Roles() []Role { return []Role{Worker, Submitter, Console} }

// ParseRole returns the role of a name.
func ParseRole(name string) (Role, error) {
	if !slices.Contains(Roles(), Role(name)) {
		return "", fmt.Errorf("role %q is unknown; allowed: worker, submitter, console", name)
	}
	return Role(name), nil
}

// Config is what is examined, and by whose eyes. Lanes may be nil when the file of lanes can't be read; everything else of a deployment is
// required.
type Config struct {
	Project    string
	Bucket     string // of the assets
	WorkBucket string
	Dataset    string
	Role       Role
	Identity   Identity // zero: unknown

	Lanes    *lanes.Config
	OwnLanes bool          // Lanes are those of a file, so each is meant
	First    []worker.Lane // the lanes that a worker asks about before it starts
	// References are buckets with reference images, which Vertex reads.
	References []string

	Local   Local
	Clients Clients
	// Before is what the caller has found out already; see [BadLanes] and its like.
	Before []Finding
}

// Local says which services are emulators.
type Local struct{ PubSub, Storage, BigQuery, Vertex bool }

func (l Local) all() bool { return l.PubSub && l.Storage && l.BigQuery && l.Vertex }

// Clients are the connections to Google Cloud. They stay the caller's to close.
type Clients struct {
	// HTTP sends authenticated requests. It is not used for services that are local, and may be nil when all are.
	HTTP          *http.Client
	Topics        *pubsub.TopicAdminClient
	Subscriptions *pubsub.SubscriptionAdminClient
	Schemas       *pubsub.SchemaClient // may be nil when Pub/Sub is local
	// AskLane asks, at no cost, whether calls may be made by a lane. Its errors are those of [vertex.Online.Check].
	AskLane   func(context.Context, worker.Lane) error
	Endpoints Endpoints
}

// Endpoints are base URLs that end in a slash; empty stands for Google's own.
type Endpoints struct{ Storage, BigQuery, ServiceUsage, ResourceManager, IAM string }

// BadLanes is the finding of a file of lanes that can't be used.
func BadLanes(file string, err error) Finding {
	return Finding{
		ID: idLanesFile, Area: areaSettings, Severity: Error, Resource: file, Problem: sentence("The file of lanes can't be used: %v", err),
		Fix: Fix{Command: "terraform -chdir=deploy/terraform output -raw lanes_file > " + quote(file), Terraform: "output lanes_file", Note: "Or mend it: docs/lanes.md."},
	}
}

// BadCatalogue is the finding of a catalogue that can't be used.
func BadCatalogue(err error) Finding {
	return Finding{
		ID: idCatalogue, Area: areaSettings, Severity: Error, Resource: "ASSETMILL_CATALOGUE", Problem: sentence("The catalogue can't be used: %v", err),
		Fix: Fix{Command: "unset ASSETMILL_CATALOGUE", Note: "Or mend the file: docs/csv.md, models and prices of your own."},
	}
}

// BadSettings is the finding of settings that are missing or wrong. Nothing else can be checked then.
func BadSettings(err error) Finding {
	return Finding{
		ID: idEnvironment, Area: areaSettings, Severity: Error, Resource: "environment", Problem: sentence("Settings are missing or wrong: %v", err),
		Fix: Fix{
			Command:   `export $(terraform -chdir=deploy/terraform output -raw environment_file)`,
			Terraform: "output environment_file",
		},
	}
}

// BadCredentials is the finding of credentials that can't be found or used. Nothing else can be checked then, unless all services are
// local.
func BadCredentials(err error) Finding {
	return Finding{
		ID: idADC, Area: areaCredentials, Severity: Error, Resource: "Application Default Credentials", Problem: sentence("They can't be used: %v", err),
		Fix: Fix{
			Command:   "gcloud auth application-default login",
			Terraform: "google_service_account_iam_member.workload",
			Note:      "In a pod: annotate its Kubernetes service account with iam.gke.io/gcp-service-account.",
		},
	}
}
