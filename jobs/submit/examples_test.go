package submit_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
)

const examples = "../../examples"

func TestExampleFilesAreValid(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.csv"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, name := range files {
		f := submit.File{Name: filepath.Base(name), Open: func() (io.ReadCloser, error) { return os.Open(name) }}
		r, err := submit.Run(t.Context(), []submit.File{f}, submit.Options{Catalogue: jobs.DefaultCatalogue(), Defaults: &schemas.Job{}, DryRun: true}, submit.Ports{})
		if err != nil || r.GetRowsRejected() != 0 {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestTheExampleCatalogueIsValid(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "catalogue.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := jobs.ParseCatalogue(data)
	if err != nil || !c.HasTier("example-diffusion-xl", jobs.TierDedicated) {
		t.Errorf("%v", err)
	}
}
