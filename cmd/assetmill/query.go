package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/worker/lineage"
)

func (a *app) queryCommand() *cobra.Command {
	var asJSON bool
	var maxGiB int64
	cmd := &cobra.Command{
		Use:   "query SQL",
		Short: "Ask the lineage a question in GoogleSQL",
		Long: `Ask the lineage a question in GoogleSQL. Tables are found in the configured dataset without naming it; docs/lineage.md lists
the views and their columns. Only a single SELECT is run.`,
		Example: `  assetmill query "SELECT outcome, reason, COUNT(*) AS jobs, SUM(cost_usd) AS usd FROM generations GROUP BY 1, 2 ORDER BY 3 DESC"
  assetmill query --json "SELECT job_id, prompt, asset_uri FROM generations WHERE campaign = 'spring-sale' LIMIT 10"`,
		Args: exactArgs(1, "one SQL statement, in quotes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.query(cmd.Context(), args[0], maxGiB<<30, asJSON)
		},
	}
	cmd.Flags().Int64Var(&maxGiB, "max-gib", 100, "refuse to read more than this many GiB, which BigQuery charges for; 0: no bound")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a row")
	return cmd
}

func (a *app) query(ctx context.Context, sql string, maxBytes int64, asJSON bool) error {
	return a.withLineage(ctx, func(l *lineage.Lineage) error {
		rows, err := l.Query(ctx, sql, maxBytes)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printObjects(rows)
		}
		return a.printTable(rows)
	})
}

// printObjects prints one JSON object a row.
func (a *app) printObjects(rows *lineage.Rows) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	for {
		values, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object := make(map[string]any, len(values))
		for i, name := range rows.Columns {
			object[name] = values[i]
		}
		if err := enc.Encode(object); err != nil {
			return err
		}
	}
}

// printTable prints the rows as aligned columns.
func (a *app) printTable(rows *lineage.Rows) error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(rows.Columns, "\t"))
	for {
		values, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return table.Flush()
		}
		if err != nil {
			return err
		}
		cells := make([]string, len(values))
		for i, v := range values {
			cells[i] = cell(v)
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
}

// cell is a value as a table shows it, on one line.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return strings.Join(strings.Fields(v), " ")
	default:
		data, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return strings.Trim(string(data), `"`)
	}
}
