package submit

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

// submission is one Run: its receipt as it fills, and what must be remembered between the two readings.
type submission struct {
	files   []File
	opts    Options
	ports   Ports
	receipt *schemas.SubmissionRow

	ids      *keys               // that rows give, on disk
	contents *keys               // of rows that give no id, on disk
	repeated map[key]int         // content that several rows share: occurrences so far
	rejected map[place]bool      // rows found wrong only when compared with others or looked up
	sums     [][sha256.Size]byte // of the files, as first read
	plan     plan
	broken   bool // whether a row's end could not be found
	progress Progress
}

// place is a row of a file.
type place struct {
	file int
	row  int64
}

func newSubmission(files []File, opts Options, ports Ports) (*submission, error) {
	if opts.Submission != "" && !jobs.ValidID(opts.Submission) {
		return nil, jobs.Problems{{Field: "submission", Value: jobs.Shorten(opts.Submission), Message: jobs.IDRule}}
	}
	ids, err := newKeys()
	if err != nil {
		return nil, err
	}
	contents, err := newKeys()
	if err != nil {
		ids.close()
		return nil, err
	}
	s := &submission{
		files: files, opts: opts, ports: ports, ids: ids, contents: contents,
		repeated: map[key]int{}, rejected: map[place]bool{},
		receipt: &schemas.SubmissionRow{
			Receipt:     rand.Text(),
			SubmittedAt: time.Now().UnixMicro(),
			Submitter:   opts.Submitter, PriceVersion: opts.Catalogue.Version(),
			Campaign: opts.Defaults.GetCampaign(), Client: opts.Defaults.GetClient(),
			Options:  optionRows(opts),
			RowsRead: new(int64), RowsRejected: new(int64), Jobs: new(int64), Published: new(int64), AlreadyDone: new(int64),
		},
	}
	s.plan = plan{catalogue: opts.Catalogue, rate: cmp.Or(opts.OnlineRate, DefaultOnlineRate), now: time.UnixMicro(s.receipt.SubmittedAt)}
	for _, f := range files {
		s.progress.Total += f.Size
	}
	return s, nil
}

func (s *submission) close() {
	s.ids.close()
	s.contents.close()
}

// optionRows lists the options that change jobs, by the fields' names.
func optionRows(opts Options) []*schemas.KeyValue {
	values := map[string]string{}
	if opts.Variants > 1 {
		values["variants"] = strconv.Itoa(opts.Variants)
	}
	m := opts.Defaults
	for field, value := range map[string]string{
		"campaign": m.GetCampaign(), "client": m.GetClient(), "model": m.GetModel(), "size": m.GetSize(),
		"aspect_ratio": m.GetAspectRatio(), "mode": m.GetMode(), "region": m.GetRegion(), "retention": m.GetRetention(),
	} {
		if value != "" {
			values[field] = value
		}
	}
	for k, v := range m.GetLabels() {
		values["label."+k] = v
	}
	return jobs.KeyValues(values)
}

// resolveID settles the submission's id once the files' content is known.
func (s *submission) resolveID() {
	s.receipt.Submission = s.opts.Submission
	if s.receipt.Submission != "" {
		return
	}
	var flat []string
	for _, kv := range s.receipt.Options {
		// The mode changes neither an image nor its place. Who submits a file again in another mode, say because it has to be faster,
		// wants the same jobs.
		if kv.GetKey() != "mode" {
			flat = append(flat, kv.GetKey(), kv.GetValue())
		}
	}
	s.receipt.Submission = jobs.SubmissionID(s.sums, flat)
}

// sumReader hashes and counts what is read through it.
type sumReader struct {
	r io.Reader
	h hash.Hash
	n int64
}

func (r *sumReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	r.n += int64(n)
	return n, err
}

// visitor is called for each row of a file: with the row, or with what is wrong with it.
type visitor func(row *csvfile.Row, bad *csvfile.RowError) error

// read streams one file to the visitor and returns its hash and size.
func (s *submission) read(ctx context.Context, f File, defaults *schemas.Job, visit visitor) (sum [sha256.Size]byte, size int64, err error) {
	in, err := f.Open()
	if err != nil {
		return sum, 0, err
	}
	defer in.Close()
	counted := &sumReader{r: in, h: sha256.New()}
	r, err := csvfile.NewReader(counted, csvfile.Options{Name: f.Name, Defaults: defaults, Variants: s.opts.Variants, Catalogue: s.opts.Catalogue})
	if err != nil {
		return sum, 0, err
	}
	before := s.progress.Bytes
	for {
		if err := ctx.Err(); err != nil {
			return sum, 0, context.Cause(ctx)
		}
		row, err := r.Next()
		var bad *csvfile.RowError
		switch {
		case errors.Is(err, io.EOF):
			_, err := io.Copy(io.Discard, counted) // the reader may have stopped at the last row's end
			counted.h.Sum(sum[:0])
			return sum, counted.n, err
		case errors.As(err, &bad):
		case err != nil:
			return sum, 0, err
		}
		s.progress.Bytes = before + counted.n
		if err := visit(row, bad); err != nil {
			return sum, 0, err
		}
	}
}

// defaults are the options as fields of a job, with the submission's id where it is known.
func (s *submission) defaults() *schemas.Job {
	m := &schemas.Job{}
	if s.opts.Defaults != nil {
		m = proto.Clone(s.opts.Defaults).(*schemas.Job)
	}
	m.Submission = s.receipt.Submission
	return m
}

// reject counts and reports a row that is wrong.
func (s *submission) reject(bad *csvfile.RowError) error {
	*s.receipt.RowsRejected++
	s.progress.Rejected++
	s.broken = s.broken || bad.Broken
	if s.opts.Reject == nil {
		return nil
	}
	return s.opts.Reject(bad)
}

// report tells the caller of the progress, every so many rows.
func (s *submission) report(force bool) {
	const every = 500 // rows; a call for each would cost more than reading one
	if s.opts.Progress != nil && (force || s.progress.Rows%every == 0) {
		s.opts.Progress(s.progress)
	}
}

func hexSum(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }

// errChanged says that a file is not the one that was checked.
func errChanged(name string) error {
	return fmt.Errorf("%s changed while it was being submitted: submit it again when nobody writes to it", name)
}
