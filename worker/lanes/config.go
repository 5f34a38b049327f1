package lanes

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Tiers, as the catalogue names them. A dedicated endpoint is no offer of the catalogue's: it is the project's own.
const (
	tierProvisioned = "provisioned"
	tierStandard    = "standard"
	tierFlex        = "flex"
	tierDedicated   = "dedicated"
	tierBatch       = "batch"
)

// Bounds of what may be configured. They are far above what one worker can use, and are there to catch slips.
const (
	maxLanes     = 256       // each is looked at whenever a call begins or ends
	maxInFlight  = 10_000    // calls of one lane: three times what one worker is built for
	maxPerMinute = 100_000   // calls of one lane: Vertex takes 30,000 a minute of a project in a region
	maxSpill     = time.Hour // a job waits ten minutes at most in a worker, so that a longer one means never
)

// flexPerMinute is what Vertex takes at most of one project in the flex tier, for each model.
const flexPerMinute = 3000

// DefaultSpillAfter is how long a job waits for its cheapest lane before it may use a dearer one. It is several times what a pacer takes
// to find a lane's rate again after a dip, so that a dip alone does not double the price, and a fifth of the ten minutes that a job waits
// in a worker.
const DefaultSpillAfter = 2 * time.Minute

// maxImagePrice catches prices that were meant in cents: the dearest image of the catalogue costs a quarter of a dollar.
const maxImagePrice = jobs.USD(100_000_000_000)

// Config is the lanes of a worker. [Parse] and [Default] make it; it must not be changed once [New] has it.
type Config struct {
	Lanes []LaneConfig // those that take online calls; at least one
	Batch []LaneConfig // those of tier batch, which this package does not use
	// Buckets are the buckets for the assets of jobs with a data region, by region. It may be empty.
	Buckets map[string]string
	// Prefer is the location that jobs prefer that may run anywhere, where their model is served there.
	Prefer string
	// SpillAfter is how long a job waits for a lane that is not provisioned before it may use a dearer one.
	SpillAfter time.Duration
	Catalogue  *jobs.Catalogue // models and prices
}

// LaneConfig is one lane and its bounds.
type LaneConfig struct {
	worker.Lane
	// HostRegion says where Host is when its name does not. Empty: nobody has said.
	HostRegion   string
	Sizes        []string       // that the lane serves; empty: all that the model has in the tier
	MaxInFlight  int            // calls; 0: as many as the process
	MaxPerMinute float64        // calls; 0: as many as the lane learns to take
	SpillAfter   *time.Duration // instead of Config.SpillAfter
}

// Default returns the lanes of a worker without a file: one standard lane for each location of each model of the catalogue that has that
// tier. Jobs that may run anywhere prefer the given location; empty stands for global.
func Default(project, location string, c *jobs.Catalogue) *Config {
	cfg := &Config{Buckets: map[string]string{}, Prefer: cmp.Or(location, jobs.GlobalRegion), SpillAfter: DefaultSpillAfter, Catalogue: c}
	for _, id := range c.ModelIDs() {
		if !c.Model(id).HasTier(tierStandard) {
			continue
		}
		for _, at := range c.Model(id).Locations {
			l := LaneConfig{Lane: worker.Lane{Project: project, Location: at, Model: id, Tier: tierStandard}}
			l.Name = l.defaultName(project)
			cfg.Lanes = append(cfg.Lanes, l)
		}
	}
	return cfg
}

// SetProject names the project of the lanes that name none: the worker's own. It fails when two lanes become the same by that.
func (cfg *Config) SetProject(project string) error {
	seen := map[worker.Lane]string{}
	var twice []error
	for _, list := range [][]LaneConfig{cfg.Lanes, cfg.Batch} {
		for i := range list {
			l := &list[i]
			l.Project = cmp.Or(l.Project, project)
			if other, ok := seen[l.quota()]; ok {
				twice = append(twice, fmt.Errorf("lanes %s and %s are the same way to be served: keep one of them", other, l.Name))
			}
			seen[l.quota()] = l.Name
		}
	}
	return errors.Join(twice...)
}

// quota is what makes a lane a lane: two lanes with the same would learn the rate of the same quota, each without knowing of the other.
func (l *LaneConfig) quota() worker.Lane {
	return worker.Lane{Project: l.Project, Location: l.Location, Model: l.Model, Tier: l.Tier, Host: l.Host, Endpoint: l.Endpoint}
}

// defaultName is the name of a lane that was given none. The worker's own project goes without saying.
func (l *LaneConfig) defaultName(project string) string {
	parts := []string{l.Model, l.Location, l.Tier}
	if l.Project != project {
		parts = append([]string{l.Project}, parts...)
	}
	if l.Endpoint != "" {
		parts = append(parts, l.Endpoint)
	}
	return strings.Join(parts, "/")
}

// ceiling returns how many calls a minute the lane may begin; 0 stands for what it learns.
func (l *LaneConfig) ceiling() float64 {
	if l.Tier == tierFlex && (l.MaxPerMinute == 0 || l.MaxPerMinute > flexPerMinute) {
		return flexPerMinute
	}
	return l.MaxPerMinute
}

// bound returns how many calls the lane may have in flight in a process that may have so many.
func (l *LaneConfig) bound(most int) int {
	if l.MaxInFlight > 0 {
		return min(most, l.MaxInFlight)
	}
	return most
}

// region returns the data region in which a call by this lane is sure to stay. Empty: none.
func (l *LaneConfig) region() string {
	switch {
	case l.Location == jobs.GlobalRegion:
		return ""
	case l.Host == "" || cmp.Or(hostRegion(l.Host), l.HostRegion) == l.Location:
		return l.Location
	default:
		return ""
	}
}

// fault is what is wrong with one field of a lane.
type fault struct{ field, text string }

var (
	nameForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9._/-]{0,99}$`)
	projectForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,61}[a-z0-9]$`)
	regionForm   = regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]{1,2}$`)
	endpointForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
)

// faults returns everything that is wrong with a lane by itself.
func (l *LaneConfig) faults(c *jobs.Catalogue) []fault {
	var all []fault
	wrong := func(field, format string, args ...any) { all = append(all, fault{field, fmt.Sprintf(format, args...)}) }

	if l.Name != "" && !nameForm.MatchString(l.Name) {
		wrong("name", "%q may hold only a-z, 0-9, '.', '_', '/' and '-', at most 100 of them, and begins with a letter or digit", l.Name)
	}
	if l.Project != "" && !projectForm.MatchString(l.Project) {
		wrong("project", "%q is no project id", l.Project)
	}
	m := c.Model(l.Model)
	switch {
	case l.Model == "":
		wrong("model", "is missing; the catalogue has: %s", strings.Join(c.ModelIDs(), ", "))
	case m == nil:
		wrong("model", "%q is not in the catalogue, which has: %s", l.Model, strings.Join(c.ModelIDs(), ", "))
	}
	l.checkTier(m, wrong)
	l.checkPlace(m, wrong)
	l.checkHost(wrong)
	if m != nil {
		l.checkSizes(m, wrong)
	}
	l.checkBounds(wrong)
	return all
}

func (l *LaneConfig) checkTier(m *jobs.Model, wrong func(field, format string, args ...any)) {
	known := []string{tierProvisioned, tierStandard, tierFlex, tierDedicated, tierBatch}
	switch {
	case l.Tier == "":
		wrong("tier", "is missing; allowed: %s", strings.Join(known, ", "))
	case !slices.Contains(known, l.Tier):
		wrong("tier", "%q is unknown; allowed: %s", l.Tier, strings.Join(known, ", "))
	case l.Tier == tierDedicated:
		if l.Endpoint == "" {
			wrong("endpoint", "is missing: a dedicated lane needs the id of its endpoint")
		} else if !endpointForm.MatchString(l.Endpoint) {
			wrong("endpoint", "%q is no endpoint id: give the last part of its resource name", l.Endpoint)
		}
		if l.Host == "" {
			wrong("host", "is missing: a dedicated lane needs its endpoint's own DNS name")
		}
	case l.Endpoint != "":
		wrong("endpoint", "is only for lanes of tier dedicated, not %s", l.Tier)
	case m != nil && !slices.Contains(m.Tiers, l.Tier):
		wrong("tier", "%s is not offered for %s, which has: %s", l.Tier, m.ID, strings.Join(m.Tiers, ", "))
	}
}

func (l *LaneConfig) checkPlace(m *jobs.Model, wrong func(field, format string, args ...any)) {
	switch {
	case l.Location == "":
		wrong("location", "is missing")
	case l.Tier == tierDedicated:
		if !regionForm.MatchString(l.Location) {
			wrong("location", "%q is no region such as us-central1, where the endpoint must be", l.Location)
		}
	case m != nil && !slices.Contains(m.Locations, l.Location):
		wrong("location", "%q does not serve %s; allowed: %s", l.Location, m.ID, strings.Join(m.Locations, ", "))
	case l.Tier == tierFlex && l.Location != jobs.GlobalRegion:
		wrong("location", "%q does not serve flex, which is offered at global only", l.Location)
	}
}

func (l *LaneConfig) checkHost(wrong func(field, format string, args ...any)) {
	if l.Host == "" {
		if l.HostRegion != "" {
			wrong("host_region", "says where the host is, but there is no host")
		}
		return
	}
	if !validHost(l.Host) {
		wrong("host", "%q is no host or host:port (no scheme, no path)", l.Host)
		return
	}
	told := hostRegion(l.Host)
	switch {
	case told != "" && told != l.Location:
		wrong("host", "%q is in %s, and the lane's location is %q", l.Host, told, l.Location)
	case l.HostRegion != "" && l.HostRegion != l.Location:
		wrong("host_region", "%q must be the lane's location, which is %q", l.HostRegion, l.Location)
	case told == "" && l.HostRegion == "" && l.Location != "" && l.Location != jobs.GlobalRegion:
		wrong("host", "%q does not tell where it is; if it is in %s, say so: host_region: %s", l.Host, l.Location, l.Location)
	}
}

func (l *LaneConfig) checkSizes(m *jobs.Model, wrong func(field, format string, args ...any)) {
	allowed := m.SizeNames()
	if l.Tier == tierBatch {
		allowed = m.BatchSizes
	}
	for i, size := range l.Sizes {
		switch {
		case !slices.Contains(allowed, size):
			wrong("sizes", "%q is not served by %s in tier %s; allowed: %s", size, m.ID, l.Tier, strings.Join(allowed, ", "))
		case slices.Contains(l.Sizes[:i], size):
			wrong("sizes", "%q is there twice", size)
		}
	}
}

func (l *LaneConfig) checkBounds(wrong func(field, format string, args ...any)) {
	if l.MaxInFlight < 0 || l.MaxInFlight > maxInFlight {
		wrong("max_in_flight", "%d is not from 1 to %d", l.MaxInFlight, maxInFlight)
	}
	if !(l.MaxPerMinute >= 0 && l.MaxPerMinute <= maxPerMinute) { // NaN is neither
		wrong("max_per_minute", "%v is not above 0 and at most %d", l.MaxPerMinute, maxPerMinute)
	}
	if l.SpillAfter != nil && (*l.SpillAfter < 0 || *l.SpillAfter > maxSpill) {
		wrong("spill_after", "%s is not from 0s to %s", *l.SpillAfter, maxSpill)
	}
	if l.ImagePrice != nil && (*l.ImagePrice < 0 || *l.ImagePrice > maxImagePrice) {
		wrong("image_price_usd", "%s is not from 0 to %s US dollars", l.ImagePrice.Cents(), maxImagePrice.Cents())
	}
}
