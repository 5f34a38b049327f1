package lanes

import (
	"errors"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Config is the lanes of a worker. It is made by [Parse] or [Default], and must not be changed afterwards.
type Config struct {
	Lanes []LaneConfig // that take online calls; at least one
	Batch []LaneConfig // of tier batch; not used by this package
	// Buckets are the buckets for assets of jobs with a data region, by region. It may be empty.
	Buckets map[string]string
	// Prefer is the location that jobs prefer that may run anywhere.
	Prefer string
	// SpillAfter is how long a job waits for its cheapest lane before it may use a dearer one.
	SpillAfter time.Duration
	Catalogue  *jobs.Catalogue
}

// LaneConfig is one lane and its bounds.
type LaneConfig struct {
	worker.Lane
	// HostRegion is where Host is, for hosts whose name does not tell. Empty: nobody has said.
	HostRegion   string
	Sizes        []string       // that the lane serves; empty: all of the model
	MaxInFlight  int            // 0: as many as the process
	MaxPerMinute float64        // calls; 0: what the lane learns
	SpillAfter   *time.Duration // instead of Config.SpillAfter
}

// Parse reads a file of lanes.
func Parse(name string, data []byte, c *jobs.Catalogue) (*Config, error) {
	return nil, errors.New("not yet")
}

// ParseFor is Parse for lanes whose project is the worker's unless they name one.
func Default(project, location string, c *jobs.Catalogue) *Config {
	cfg := &Config{Prefer: location, Catalogue: c, Buckets: map[string]string{}}
	for _, id := range c.ModelIDs() {
		for _, at := range c.Model(id).Locations {
			cfg.Lanes = append(cfg.Lanes, LaneConfig{Lane: worker.Lane{
				Name: id + "/" + at + "/standard", Project: project, Location: at, Model: id, Tier: "standard",
			}})
		}
	}
	return cfg
}
