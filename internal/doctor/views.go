package doctor

import (
	"context"
	"strings"

	"google.golang.org/api/bigquery/v2"

	"github.com/assetmill/assetmill/schemas"
)

func (a *area) checkViews(ctx context.Context) {
	views := schemas.Views(a.cfg.Project, a.cfg.Dataset)
	found, errs := a.lookAtTables(ctx, len(views), func(i int) string { return views[i].Name })
	for i, v := range views {
		a.checkView(ctx, v, found[i], errs[i])
	}
}

// tfView is what makes a view: those that read tables only are made first.
func (x *exam) tfView(v schemas.View) string {
	name := "base_view"
	for _, part := range strings.Split(v.SQL, "`"+x.cfg.Project+"."+x.cfg.Dataset+".")[1:] {
		if table, _, _ := strings.Cut(part, "`"); !strings.HasSuffix(table, "_raw") {
			name = "view"
		}
	}
	return "google_bigquery_table." + name + `["` + x.cfg.Dataset + "." + v.Name + `"]`
}

func (a *area) checkView(ctx context.Context, v schemas.View, have *bigquery.Table, err error) {
	at := "view " + v.Name
	command := func(verb string) string {
		return line("bq", verb, "--use_legacy_sql=false", "--description="+v.Description, "--view="+v.SQL, a.id(v.Name))
	}
	switch f, _ := classify(err); {
	case f == missing:
		a.add(Finding{
			ID: idViewMissing, Severity: Warning, Resource: at, Problem: sentence("It does not exist in dataset %s, so nobody can ask it", a.cfg.Dataset),
			Fix: Fix{Command: command("mk"), Terraform: a.tfView(v)}, Mendable: "create the view " + v.Name + " (where Terraform made the others, let it make this one)",
			mend: a.createView(v),
		})
		return
	case f == denied:
		a.limited(at, "its SQL is not checked.", Fix{Command: a.grant(place{kind: onDataset, name: a.cfg.Dataset}, metadataViewer, a.member()), Terraform: tfDatasetGrants})
		return
	case err != nil:
		a.trouble(ctx, bigqueryAPI, at, err)
		return
	}
	a.pass(idViewMissing, at, "It exists.")
	switch {
	case have.View == nil:
		a.fail(idViewSQL, Warning, at, sentence("It is no view but of type %s", have.Type), Fix{
			Command:   line("bq", "query", "--project_id="+a.cfg.Project, "--use_legacy_sql=false", "ALTER TABLE `"+a.cfg.Project+"."+a.cfg.Dataset+"."+v.Name+"` RENAME TO `"+v.Name+"_before`") + " && " + command("mk"),
			Terraform: a.tfView(v),
		})
	case have.View.UseLegacySql || plainSQL(have.View.Query) != plainSQL(v.SQL):
		a.fail(idViewSQL, Warning, at, "Its SQL is not this version's: it may answer otherwise than its description says.", Fix{Command: command("update"), Terraform: a.tfView(v)})
	default:
		a.pass(idViewSQL, at, "Its SQL is this version's.")
	}
}

// plainSQL returns SQL without what does not change its meaning: lines that are comments, white space, a semicolon at the end.
func plainSQL(sql string) string {
	var words []string
	for line := range strings.Lines(sql) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			words = append(words, strings.Fields(line)...)
		}
	}
	return strings.TrimRight(strings.Join(words, " "), "; ")
}
