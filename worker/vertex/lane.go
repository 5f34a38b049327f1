package vertex

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Tiers of online calls, as the catalogue names them.
const (
	tierProvisioned = "provisioned"
	tierStandard    = "standard"
	tierFlex        = "flex"
	tierDedicated   = "dedicated" // an endpoint of the project's own
)

// site is what a client of the SDK is made for.
type site struct{ project, location, host string }

func siteOf(l worker.Lane) site {
	s := site{l.Project, l.Location, l.Host}
	if s.host == "" {
		s.host = hostOf(l.Location)
	}
	return s
}

// hostOf returns Vertex's host of a location.
func hostOf(location string) string {
	switch location {
	case jobs.GlobalRegion:
		return "aiplatform.googleapis.com"
	case "us", "eu":
		return "aiplatform." + location + ".rep.googleapis.com"
	default:
		return location + "-aiplatform.googleapis.com"
	}
}

// checkLane returns an error that says what a lane lacks.
func checkLane(l worker.Lane) error {
	switch {
	case (l.Tier == tierDedicated) != (l.Endpoint != ""):
		return fmt.Errorf("lane %s: the tier dedicated and an endpoint's id go together", l.Name)
	case !slices.Contains([]string{tierProvisioned, tierStandard, tierFlex, tierDedicated}, l.Tier):
		return fmt.Errorf("lane %s: tier %q is unknown; allowed: provisioned, standard, flex, dedicated", l.Name, l.Tier)
	}
	if l.Project == "" || l.Location == "" {
		return fmt.Errorf("lane %s: no project or no location is given", l.Name)
	}
	return nil
}

// place is what provisioned throughput is bought for.
type place struct{ project, location, model string }

func placeOf(l worker.Lane) place { return place{l.Project, l.Location, l.Model} }

// sharedPlaces returns where provisioned throughput has a lane of its own.
func sharedPlaces(lanes []worker.Lane) map[place]bool {
	places := map[place]bool{}
	for _, l := range lanes {
		if l.Tier == tierProvisioned {
			places[placeOf(l)] = true
		}
	}
	return places
}

// headers are those of one call: its tier, and how long the service may take. The SDK would send the context's deadline as
// X-Server-Timeout, but the call's clock is not a deadline.
func (o *Online) headers(l worker.Lane, timeout time.Duration) http.Header {
	const requestType = "X-Vertex-AI-LLM-Request-Type"
	server := max(timeout-serverTimeoutMargin, timeout/2)
	h := http.Header{"X-Server-Timeout": {strconv.Itoa(max(int(server.Seconds()), 1))}}
	switch {
	case l.Tier == tierProvisioned:
		h.Set(requestType, "dedicated")
	case l.Tier == tierFlex:
		h.Set(requestType, "shared")
		h.Set("X-Vertex-AI-LLM-Shared-Request-Type", "flex")
	case o.shared[placeOf(l)]:
		h.Set(requestType, "shared")
	}
	return h
}
