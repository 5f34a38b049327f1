package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"cloud.google.com/go/auth/credentials"
	pubsubapi "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/spf13/cobra"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/doctor"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker/vertex"
)

// exitWarnings says that doctor found warnings, and nothing worse.
const exitWarnings = 4

// doctorBudget bounds the images in memory: the doctor makes none.
const doctorBudget = 1 << 20

const cloudScope = "https://www.googleapis.com/auth/cloud-platform"

// doctorFlags are the command line of doctor.
type doctorFlags struct {
	as         string
	references []string
	all        bool
	json       bool
	fix        bool
	yes        bool
}

func (a *app) doctorCommand() *cobra.Command {
	f := &doctorFlags{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check, before money is spent, everything that the deployment needs",
		Long: `Check, before money is spent, everything that the deployment needs: credentials, APIs, permissions, topics, subscriptions, buckets,
tables, views, lanes and the clock. Each finding says what is wrong and how exactly to put it right. Nothing is published, written or paid for.

Permissions are checked for the account that runs the command: run it in the worker's pod, or in the worker's place by
gcloud auth application-default login --impersonate-service-account=ACCOUNT. What that account may not look at is noted and left unchecked.

With --fix it lists what can safely be put right (settings of subscriptions, the lifecycle rule for signs of life, missing views), asks, does it,
and checks again. It never grants permissions and never deletes.

Exit codes: 0 nothing but notes, 4 warnings, 1 errors, 2 wrong usage or settings. docs/doctor.md lists all checks.`,
		Example: `  assetmill doctor
  assetmill doctor --as submitter --json
  assetmill doctor --references brand-assets
  assetmill doctor --fix`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.as, "as", string(doctor.Worker), "whose permissions matter: worker, submitter or console")
	cmd.Flags().StringSliceVar(&f.references, "references", nil, "buckets with reference images, which Vertex AI has to read")
	cmd.Flags().BoolVar(&f.all, "all", false, "also print what is as it should be")
	cmd.Flags().BoolVar(&f.json, "json", false, "print the report as JSON")
	cmd.Flags().BoolVar(&f.fix, "fix", false, "put right what is safe to put right, after asking")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "with --fix: don't ask")
	return cmd
}

func (a *app) doctor(ctx context.Context, f *doctorFlags) error {
	role, err := doctor.ParseRole(f.as)
	switch {
	case err != nil:
		return usageError("--as: %w", err)
	case f.yes && !f.fix:
		return usageError("--yes goes with --fix")
	case f.fix && !f.yes && (f.json || !a.somebodyAnswers()):
		return usageError("--fix asks before it changes anything, and nobody is there to answer: add --yes")
	}
	c := &closer{}
	defer c.close()
	cfg, err := a.doctorConfig(ctx, role, f, c)
	var sick sickError
	if errors.As(err, &sick) {
		return a.conclusion(f, &doctor.Report{Project: a.env("ASSETMILL_PROJECT"), Role: role, Findings: sick.findings}, nil, sick.code)
	}
	if err != nil {
		return err
	}
	report, err := doctor.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if !f.fix || len(report.Mendable()) == 0 {
		return a.conclusion(f, report, nil, exitFailure)
	}
	return a.mend(ctx, f, cfg, report)
}

// sickError says that nothing else can be checked.
type sickError struct {
	findings []doctor.Finding
	code     int
}

func (e sickError) Error() string { return e.findings[0].Problem }

// doctorConfig opens what the doctor looks through. Its error is a [sickError] when there is nothing to look through.
func (a *app) doctorConfig(ctx context.Context, role doctor.Role, f *doctorFlags, c *closer) (doctor.Config, error) {
	s, err := a.settings()
	if err != nil {
		return doctor.Config{}, sickError{[]doctor.Finding{doctor.BadSettings(err)}, exitUsage}
	}
	cfg := doctor.Config{
		Project: s.project, Bucket: s.bucket, WorkBucket: s.workBucket, Dataset: s.dataset, Role: role, OwnLanes: s.lanesFile != "",
		Local: doctor.Local{PubSub: s.pubsubLocal, Storage: s.storageLocal, BigQuery: s.bigqueryREST != "", Vertex: s.vertexREST != ""},
	}
	for _, bucket := range f.references {
		cfg.References = append(cfg.References, strings.Trim(strings.TrimPrefix(bucket, "gs://"), "/"))
	}
	e := &engine{}
	if e.catalogue, err = a.catalogue(); err != nil {
		cfg.Before = append(cfg.Before, doctor.BadCatalogue(err))
		e.catalogue = jobs.DefaultCatalogue()
	}
	if err := e.readLanes(s); err != nil {
		cfg.Before = append(cfg.Before, doctor.BadLanes(s.lanesFile, err))
	} else {
		cfg.Lanes, cfg.First = e.config, e.first
	}
	local := cfg.Local
	if !local.PubSub || !local.Storage || !local.BigQuery || !local.Vertex {
		if cfg.Identity, cfg.Clients.HTTP, err = identify(ctx); err != nil {
			return doctor.Config{}, sickError{append(cfg.Before, doctor.BadCredentials(err)), exitFailure}
		}
	}
	if cfg.Clients.Endpoints, err = a.doctorEndpoints(s); err != nil {
		return doctor.Config{}, err
	}
	return cfg, s.doctorClients(ctx, &cfg, c)
}

// identify finds the credentials and whose they are.
func identify(ctx context.Context) (doctor.Identity, *http.Client, error) {
	creds, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{cloudScope}})
	if err != nil {
		return doctor.Identity{}, nil, err
	}
	id, err := doctor.Identify(ctx, creds, doctor.TokenInfo)
	if err != nil {
		return doctor.Identity{}, nil, err
	}
	hc, _, err := htransport.NewClient(ctx, option.WithScopes(cloudScope))
	return id, hc, err
}

// doctorEndpoints are the emulators' addresses.
func (a *app) doctorEndpoints(s *settings) (doctor.Endpoints, error) {
	var e doctor.Endpoints
	storage, err := baseURL("STORAGE_EMULATOR_HOST", a.env("STORAGE_EMULATOR_HOST"))
	if err != nil {
		return e, err
	}
	if storage != "" {
		e.Storage = strings.TrimSuffix(storage, "/storage/v1") + "/storage/v1/"
	}
	if s.bigqueryREST != "" {
		e.BigQuery = s.bigqueryREST + "/bigquery/v2/"
	}
	return e, nil
}

// doctorClients opens the connections that are no REST APIs.
func (s *settings) doctorClients(ctx context.Context, cfg *doctor.Config, c *closer) error {
	client, err := s.pubsubClient(ctx)
	if err != nil {
		return err
	}
	c.add(client.Close)
	cfg.Clients.Topics, cfg.Clients.Subscriptions = client.TopicAdminClient, client.SubscriptionAdminClient
	if !s.pubsubLocal {
		if cfg.Clients.Schemas, err = pubsubapi.NewSchemaClient(ctx); err != nil {
			return fmt.Errorf("open Pub/Sub: %w", err)
		}
		c.add(cfg.Clients.Schemas.Close)
	}
	model, err := vertex.New(ctx, vertex.Config{
		BaseURL: s.vertexREST, EndpointAddr: s.vertexGRPC, NoAuth: s.vertexREST != "", UserAgent: "assetmill/" + version, Budget: blob.NewBudget(doctorBudget),
	})
	if err != nil {
		return err
	}
	c.add(func() error { model.Close(); return nil })
	cfg.Clients.AskLane = model.Check
	return nil
}

// mend puts right what can be, after asking, and looks again.
func (a *app) mend(ctx context.Context, f *doctorFlags, cfg doctor.Config, report *doctor.Report) error {
	if !f.json {
		if err := a.printReport(f, report); err != nil {
			return err
		}
		fmt.Fprintln(a.out, "\nThese changes will be made:")
		for _, finding := range report.Mendable() {
			fmt.Fprintf(a.out, "  %s: %s\n", finding.Resource, finding.Mendable)
		}
	}
	if !f.yes && !a.confirm("Make them? [y/N] ") {
		fmt.Fprintln(a.out, "Nothing was changed.")
		return a.verdict(report, exitFailure)
	}
	done, mending := doctor.Mend(ctx, report.Mendable())
	if !f.json {
		fmt.Fprintf(a.out, "%d of %d made. Looking again.\n\n", len(done), len(report.Mendable()))
	}
	after, err := doctor.Run(ctx, cfg)
	if err != nil {
		return errors.Join(mending, err)
	}
	if err := a.conclusion(f, after, done, exitFailure); mending == nil {
		return err
	}
	return mending
}

// confirm asks a question whose answer is no unless it is yes.
func (a *app) confirm(question string) bool {
	fmt.Fprint(a.out, question)
	answer, _ := bufio.NewReader(a.in).ReadString('\n') // without an answer it is no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// DoctorJSON is what doctor --json prints; scripts rely on the names.
type DoctorJSON struct {
	*doctor.Report
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Mended   []doctor.Finding `json:"mended,omitempty"` // by --fix, before the findings were made
}

// conclusion prints a report and turns it into an exit code; failure is that of errors.
func (a *app) conclusion(f *doctorFlags, r *doctor.Report, mended []doctor.Finding, failure int) error {
	var err error
	if f.json {
		err = a.printJSON(DoctorJSON{r, r.Count(doctor.Error), r.Count(doctor.Warning), mended})
	} else {
		err = a.printReport(f, r)
	}
	if err != nil {
		return err
	}
	return a.verdict(r, failure)
}

func (a *app) printReport(f *doctorFlags, r *doctor.Report) error {
	return r.Print(a.out, doctor.PrintOptions{Color: isTerminal(a.out) && a.env("NO_COLOR") == "", All: f.all})
}

func (a *app) verdict(r *doctor.Report, failure int) error {
	switch r.Worst() {
	case doctor.Error:
		return codeError{errors.New("the deployment can't work as it is: see the errors above"), failure}
	case doctor.Warning:
		return codeError{errors.New("there are warnings"), exitWarnings}
	default:
		return nil
	}
}

// somebodyAnswers reports whether questions can be asked.
func (a *app) somebodyAnswers() bool {
	f, ok := a.in.(*os.File)
	return ok && isTerminal(f)
}
