package plan

import (
	"errors"
	"io"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
)

// CountCSV counts the jobs of a CSV file. It reads the file once, as a stream. Rows that are not valid are passed to reject and not counted; an
// error of reject ends the reading. With auto as the default mode in opts, the plan may choose the mode of rows that name none.
func (c *Counter) CountCSV(in io.Reader, opts csvfile.Options, reject func(*csvfile.RowError) error) (rows int64, err error) {
	r, err := csvfile.NewReader(in, opts)
	if err != nil {
		return 0, err
	}
	for {
		row, err := r.Next()
		var bad *csvfile.RowError
		switch {
		case errors.Is(err, io.EOF):
			return rows, nil
		case errors.As(err, &bad):
			if err := reject(bad); err != nil {
				return rows, err
			}
			continue
		case err != nil:
			return rows, err
		}
		rows++
		mode := row.Jobs[0].Mode
		if row.Auto {
			mode = jobs.Auto
		}
		c.Add(row.Jobs[0], mode, int64(len(row.Jobs))) // variants don't differ in what counts here
	}
}
