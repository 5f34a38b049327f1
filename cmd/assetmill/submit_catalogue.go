package main

import (
	"os"

	"github.com/assetmill/assetmill/jobs"
)

// catalogueSetting names a file with models and prices that extend or replace the built-in ones. All commands that look at the same
// jobs must be given the same.
const catalogueSetting = "ASSETMILL_CATALOGUE"

// catalogue returns the models and prices: the built-in ones, or what the file of the setting makes of them.
func (a *app) catalogue() (*jobs.Catalogue, error) {
	name := a.env(catalogueSetting)
	if name == "" {
		return jobs.DefaultCatalogue(), nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("%s: %w", catalogueSetting, err)
	}
	c, err := jobs.ParseCatalogue(data)
	if err != nil {
		return nil, usageError("%s, %s: %w", catalogueSetting, name, err)
	}
	return c, nil
}
