// Package csvfile reads jobs from CSV files as Excel, Google Sheets and scripts write them.
//
// A [Reader] turns bytes into a stream of rows with valid jobs. Its contract:
//
//   - Memory does not grow with the file: a record is bounded by [MaxRecordBytes], a header by [MaxHeaderBytes].
//   - Every record of the file is one [Row], one [RowError] or blank (all of its cells empty), in the order of the file,
//     until the end or until an error that ends the file. Nothing is guessed where a guess could move text from one row
//     or cell into another.
//   - A [RowError] holds everything that is wrong with its row, each with the column's header as written. When it leaves
//     open where the row ends, it says so (RowError.Broken): the rows after it are for finding more errors, not for use.
//   - An error that ends the file is a [FileError] or an error of the underlying reader.
//
// # Files
//
// UTF-8 with or without a byte order mark, UTF-16 with one, or without one when the header has the word `prompt`. The
// delimiter is comma, semicolon or tab, detected from the header; a first line `sep=;` decides it as in Excel. A header of
// one column has no delimiter: each line is one cell. Rows end with LF or CRLF; a line break inside a quoted cell is always
// read as LF, so that a file saved on another system keeps the same prompts and the same derived ids.
//
// # Quotes
//
// A cell that begins with a quote is quoted as in RFC 4180. Quotes inside a cell that does not begin with one are
// literal (`a poster that says "Hello"`). Text after a closing quote, a space before an opening one, and quotes that seem to
// open in one cell and close in another are errors.
//
// Tab-separated files and files of one column come in two kinds, with quoted cells (Excel) and without any (most
// others). There a cell such as `"Hello" on a poster` shows that its quotes are text, and it is read as it stands. A cell that
// is quoted as a whole is always read as quoted.
//
// encoding/csv can't read these files safely, hence the small scanner here: strict, it refuses literal quotes; with
// LazyQuotes it accepts text after a closing quote and silently reads the following rows into one cell; in both modes an
// unclosed quote reads the rest of the file into memory.
//
// # Columns
//
// `prompt` is required. Known are also id, campaign, client, model, size, aspect_ratio, seed, variants, references, system,
// safety, mode, deadline, region, retention, label.NAME, and turn_1_prompt with turn_1_image, turn_2_prompt and so on, in pairs
// without gaps; case, spaces, hyphens and underscores of a header don't matter. Any other
// column travels along as a key of [jobs.Job.Source] in the header's own spelling, `source.NAME` as NAME; a near miss of a
// known name is an error, since a misspelt column would change what is paid for. A column without a header must be empty.
//
// The mode may be `auto` besides what jobs may have: the row then leaves it to the submitter (Row.Auto).
//
// A row may have fewer cells than the header: Excel leaves out trailing empty cells in blocks of 16 rows. More cells
// are fine only when the extra ones are empty.
//
// Cells are stripped of surrounding space, except prompts, system and source columns, which are taken as they are. An aspect
// ratio that a spreadsheet turned into a time of day (`16:09:00`) is read as the ratio.
//
// The package does not check what needs more than one row or a network: duplicate ids, references that don't exist.
package csvfile
