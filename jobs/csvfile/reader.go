package csvfile

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// Options are what a submission says for rows that don't say it themselves.
type Options struct {
	// Name is the file's name for errors and for Job.SourceFile; folders are cut off.
	Name string
	// Defaults fill empty cells; nil for none. A row's labels and source are added to those given here. The fields id,
	// prompt, turns, seed, variant, source_file and source_row are not used: one value for all rows makes no sense. The mode may be [jobs.Auto].
	Defaults *schemas.Job
	// Variants is the number of variants of a row without a cell for it, 1 to [jobs.MaxVariants]; 0 means 1.
	Variants int
	// Catalogue validates the jobs; nil means [jobs.DefaultCatalogue].
	Catalogue *jobs.Catalogue
}

// Row is one valid row of the file. It shares no memory with the reader.
type Row struct {
	Number int64 // as a spreadsheet shows it, where the first line of the file (but for `sep=`) is row 1
	Line   int64 // of the file, on which the row begins, from 1
	// Jobs has one job for each variant, with Job.SourceRow set. Ids are empty unless HasID: the submitter derives
	// them, since only it can tell identical rows apart.
	Jobs []*jobs.Job
	// Auto says that the row leaves the mode to the submitter. Its jobs are in mode online until then.
	Auto bool
	// HasID says that the row gave an id. Several variants of it have the ids id-1, id-2 and so on.
	HasID  bool
	Record []string // cells as they are in the file, which may be fewer or more than Reader.Header has
}

// Reader reads the rows of one file. It is not safe for concurrent use.
type Reader struct {
	opts       Options
	name       string // for errors
	sourceFile string
	utf16      bool
	scan       scanner
	header     []string
	columns    []column
	index      map[string]int // column id to its index
	number     int64          // records read: the row number of the current one
	rows       int64          // records that were not blank, without the header
	err        error          // what ended the file
}

// NewReader reads the header. A problem of the file is a *FileError; other errors are the underlying reader's.
func NewReader(in io.Reader, opts Options) (*Reader, error) {
	if opts.Catalogue == nil {
		opts.Catalogue = jobs.DefaultCatalogue()
	}
	if opts.Variants == 0 {
		opts.Variants = 1
	}
	if opts.Variants < 0 || opts.Variants > jobs.MaxVariants {
		return nil, fmt.Errorf("csvfile: %d variants; allowed: 1 to %d", opts.Variants, jobs.MaxVariants)
	}
	opts.Defaults = cloneDefaults(opts.Defaults)
	r := &Reader{opts: opts, sourceFile: opts.Name[strings.LastIndexAny(opts.Name, `/\`)+1:]}
	if r.name = r.sourceFile; r.name == "" {
		r.name = "input"
	}
	if err := r.open(in); err != nil {
		return nil, r.wrap(err)
	}
	return r, nil
}

// Header returns the header's cells as they are in the file.
func (r *Reader) Header() []string { return r.header }

// Next returns the next row that is not blank. It returns io.EOF at the end and a *RowError for a row that is not valid,
// after which reading can go on. Any other error ends the file and is returned again by every later call.
func (r *Reader) Next() (*Row, error) {
	if r.err != nil {
		return nil, r.err
	}
	row, err := r.next()
	if rowErr := (*RowError)(nil); err != nil && !errors.As(err, &rowErr) {
		r.err = r.wrap(err)
		return nil, r.err
	}
	return row, err
}

func (r *Reader) next() (*Row, error) {
	for {
		err := r.scan.next()
		if errors.Is(err, io.EOF) && r.rows == 0 {
			return nil, r.fileError(0, CellProblem{Message: "has a header but no rows"})
		}
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		r.number++
		var broken *syntaxError
		switch {
		case errors.As(err, &broken):
			r.rows++
			return nil, r.syntax(broken)
		case err != nil:
			return nil, err
		case !r.scan.rec.blank():
			r.rows++
			return r.parse()
		}
	}
}

// syntax returns the error of a record that can't be cut into cells.
func (r *Reader) syntax(broken *syntaxError) error {
	problem := CellProblem{Message: broken.message}
	switch {
	case broken.column < 0:
	case broken.column < len(r.columns):
		problem.Column = r.columns[broken.column].name
	default:
		problem.Column = columnLetters(broken.column)
	}
	if broken.fatal || r.columns == nil { // nothing can be read without a header
		return r.fileError(r.number, problem)
	}
	return &RowError{File: r.name, Row: r.number, Line: r.scan.rec.line, Problems: []CellProblem{problem}, Broken: true}
}

func (r *Reader) fileError(row int64, problems ...CellProblem) *FileError {
	e := &FileError{File: r.name, Row: row, Problems: problems}
	if row > 0 {
		e.Line = r.scan.rec.line
	}
	return e
}

// wrap names the file in errors that are not ours.
func (r *Reader) wrap(err error) error {
	var file *FileError
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.As(err, &file):
		file.File = r.name
		return file
	default:
		return fmt.Errorf("read %s: %w", r.name, err)
	}
}

// open settles encoding and delimiter and reads the header.
func (r *Reader) open(in io.Reader) error {
	var err error
	if r.scan.in, r.utf16, err = openText(in); err != nil {
		return err
	}
	sample, err := peekHeader(r.scan.in)
	if err != nil {
		return err
	}
	delim, ok, err := sepLine(sample)
	if err != nil {
		return r.fileError(0, CellProblem{Message: err.Error()})
	}
	if ok {
		if _, err := r.scan.readLine(); err != nil {
			return err
		}
		r.scan.delim = delim
	} else {
		r.scan.delim = detectDelimiter(sample)
	}
	return r.readHeader()
}

func (r *Reader) readHeader() error {
	for read := 0; ; {
		err := r.scan.next()
		if errors.Is(err, io.EOF) {
			return r.fileError(0, CellProblem{Message: "is empty; the first row must name the columns, one of them prompt"})
		}
		r.number++
		if read += r.scan.size; read > MaxHeaderBytes {
			return r.fileError(r.number, CellProblem{Message: fmt.Sprintf("is longer than the %d bytes of a header; does the file have line breaks?", MaxHeaderBytes)})
		}
		var broken *syntaxError
		if errors.As(err, &broken) {
			return r.syntax(broken)
		}
		if err != nil {
			return err
		}
		if !r.scan.rec.blank() {
			break
		}
	}
	return r.setColumns()
}

func (r *Reader) setColumns() error {
	for i := range r.scan.rec.cells {
		cell := r.scan.rec.cell(i)
		if message, shown := cellEncoding(cell, r.utf16); message != "" {
			return r.fileError(r.number, CellProblem{columnLetters(i), jobs.Shorten(shown), message})
		}
		if strings.ContainsRune(string(cell), '\r') {
			return r.fileError(r.number, CellProblem{Message: "ends with CR only, as old Macintosh files do" + saveAs})
		}
	}
	r.header = r.strings()
	var problems []CellProblem
	if r.columns, problems = parseHeader(r.header, r.opts.Catalogue, r.sourceFile); len(problems) > 0 {
		return r.fileError(r.number, problems...)
	}
	r.index = make(map[string]int, len(r.columns))
	for i, c := range r.columns {
		if c.field != "" {
			r.index[c.id()] = i
		}
	}
	return nil
}
