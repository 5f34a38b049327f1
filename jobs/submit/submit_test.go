package submit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
)

// cloud stands for everything that a submission talks to.
type cloud struct {
	mu        sync.Mutex
	published []*jobs.Job
	keep      bool // whether to remember the jobs, not only to count them
	count     int
	failAfter int // publishing fails after so many jobs; 0: never
	done      []string
	receipts  []*schemas.SubmissionRow
	rows      []*schemas.SubmissionRow
	absent    map[string]bool
	lookups   int
}

func (c *cloud) PublishJob(_ context.Context, j *jobs.Job) (func(context.Context) error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	n := c.count
	if c.keep {
		c.published = append(c.published, j)
	}
	return func(context.Context) error {
		if c.failAfter > 0 && n > c.failAfter {
			return errors.New("the topic is gone")
		}
		return nil
	}, nil
}

func (c *cloud) DoneIDs(context.Context, string, time.Time) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range c.done {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (c *cloud) Ended(context.Context, string, time.Time) (int64, error) {
	return int64(len(c.done)), nil
}

func (c *cloud) AppendSubmission(_ context.Context, r *schemas.SubmissionRow) error {
	c.rows = append(c.rows, proto.CloneOf(r))
	return nil
}

func (c *cloud) PutReceipt(_ context.Context, r *schemas.SubmissionRow) error {
	c.receipts = append(c.receipts, proto.CloneOf(r))
	return nil
}

func (c *cloud) Receipt(_ context.Context, id string) (*schemas.SubmissionRow, error) {
	for i := len(c.receipts) - 1; i >= 0; i-- {
		if c.receipts[i].GetSubmission() == id {
			return proto.CloneOf(c.receipts[i]), nil
		}
	}
	return nil, nil
}

func (c *cloud) Exists(_ context.Context, uri string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	if strings.Contains(uri, "forbidden") {
		return false, errors.New("403")
	}
	return !c.absent[uri], nil
}

func (c *cloud) ports() submit.Ports {
	return submit.Ports{Publisher: c, Lineage: c, Receipts: c, References: c}
}

func (c *cloud) ids() []string {
	var ids []string
	for _, j := range c.published {
		ids = append(ids, j.ID)
	}
	return ids
}

func file(name, content string) submit.File {
	return submit.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// run submits one file and returns the receipt and what was rejected.
func run(t *testing.T, c *cloud, content string, change func(*submit.Options)) (*schemas.SubmissionRow, []string, error) {
	t.Helper()
	var rejected []string
	opts := submit.Options{
		Catalogue: jobs.DefaultCatalogue(), Defaults: &schemas.Job{},
		Reject: func(bad *csvfile.RowError) error {
			rejected = append(rejected, bad.Error())
			return nil
		},
	}
	if change != nil {
		change(&opts)
	}
	r, err := submit.Run(t.Context(), []submit.File{file("p.csv", content)}, opts, c.ports())
	return r, rejected, err
}

// counts are a receipt's numbers.
func counts(r *schemas.SubmissionRow) map[string]int64 {
	return map[string]int64{
		"read": r.GetRowsRead(), "rejected": r.GetRowsRejected(), "jobs": r.GetJobs(), "published": r.GetPublished(), "done": r.GetAlreadyDone(),
	}
}

func TestReceiptIsExact(t *testing.T) {
	c := &cloud{keep: true}
	r, _, err := run(t, c, "prompt,variants,SKU\na fox,,1\na hen,3,2\n", func(o *submit.Options) { o.Defaults.Campaign = "spring" })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"read": 2, "rejected": 0, "jobs": 4, "published": 4, "done": 0}
	if diff := cmp.Diff(want, counts(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, j := range c.published {
		if j.Submission != r.GetSubmission() || j.Campaign != "spring" || j.SourceFile != "p.csv" || j.SourceRow < 2 || j.Source["SKU"] == "" {
			t.Errorf("job %+v", j)
		}
	}
	if r.GetCompletedAt() == 0 || r.GetEstimatedCostUsd() < "0.53" || len(c.rows) != 1 || !proto.Equal(c.rows[0], r) {
		t.Errorf("receipt %v, rows %v", r, c.rows)
	}
	// The receipt exists before the first job is published, so that a submission that is killed can be found.
	if len(c.receipts) != 2 || c.receipts[0].GetPublished() != 0 || c.receipts[0].GetJobs() != 4 || !proto.Equal(c.receipts[1], r) {
		t.Errorf("receipts %v", c.receipts)
	}
}

func TestAgainPublishesOnlyWhatIsMissing(t *testing.T) {
	const content = "prompt\na\nb\nb\nc\n"
	first := &cloud{keep: true}
	r1, _, err := run(t, first, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := &cloud{keep: true, done: first.ids()[:3], receipts: first.receipts}
	r2, _, err := run(t, second, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r2.GetSubmission() != r1.GetSubmission() {
		t.Error("the same file is another submission")
	}
	if diff := cmp.Diff(first.ids()[3:], second.ids()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if got := counts(r2); got["published"] != 1 || got["done"] != 3 || got["jobs"] != 4 {
		t.Errorf("counts %v", got)
	}
	if r2.GetFirstSubmittedAt() != r1.GetSubmittedAt() {
		t.Error("the second receipt does not know when the submission first began")
	}
}

func TestEqualRowsAreJobsOfTheirOwn(t *testing.T) {
	c := &cloud{keep: true}
	if _, _, err := run(t, c, "prompt\nsame\nsame\nsame\n", nil); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, id := range c.ids() {
		seen[id] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 equal rows made %d ids", len(seen))
	}
}

// A corrected file under the same submission id pays only for what is new, wherever the rows have moved to.
func TestIDsFollowContentNotPosition(t *testing.T) {
	named := func(o *submit.Options) { o.Submission = "spring" }
	before, after := &cloud{keep: true}, &cloud{keep: true}
	if _, _, err := run(t, before, "prompt\na\nb\n", named); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, after, "prompt\nnew\nb\na\n", named); err != nil {
		t.Fatal(err)
	}
	if a, b := before.ids(), after.ids(); b[2] != a[0] || b[1] != a[1] || b[0] == a[0] {
		t.Errorf("before %v, after %v", a, b)
	}
}

// A corrected file may take the place of one whose jobs have all ended, not of one that is still at work: nobody could tell any more
// when the submission is complete.
func TestACorrectedFileWaitsForTheFirst(t *testing.T) {
	named := func(o *submit.Options) { o.Submission = "spring" }
	c := &cloud{keep: true}
	if _, _, err := run(t, c, "prompt\na\nb\n", named); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, c, "prompt\na\nc\n", named); err == nil || !strings.Contains(err.Error(), "2 jobs of other files that have not ended") {
		t.Errorf("while both jobs are pending: %v", err)
	}
	if _, _, err := run(t, c, "prompt\na\nb\n", named); err != nil {
		t.Errorf("the same file again: %v", err)
	}
	c.done = c.ids()[:2]
	r, _, err := run(t, c, "prompt\na\nc\n", named)
	if err != nil || r.GetJobs() != 2 || r.GetPublished() != 1 || r.GetAlreadyDone() != 1 || r.GetEndedBefore() != 1 {
		t.Errorf("when both have ended: %v, %v", r, err)
	}
}

func TestOneBadRowHoldsBackAll(t *testing.T) {
	const content = "prompt,size\na,1K\nb,3K\n,1K\n"
	c := &cloud{keep: true}
	r, rejected, err := run(t, c, content, nil)
	if !errors.Is(err, submit.ErrInvalidRows) || c.count != 0 || len(c.receipts) != 0 {
		t.Fatalf("err %v, %d published, %d receipts", err, c.count, len(c.receipts))
	}
	if len(rejected) != 2 || !strings.Contains(rejected[0], "p.csv row 3") || !strings.Contains(rejected[1], "row 4") {
		t.Errorf("rejected %q", rejected)
	}
	if got := counts(r); got["read"] != 3 || got["rejected"] != 2 || got["jobs"] != 1 {
		t.Errorf("counts %v", got)
	}
	r, _, err = run(t, c, content, func(o *submit.Options) { o.SkipInvalid = true })
	if err != nil || counts(r)["published"] != 1 || c.published[0].Prompt != "a" {
		t.Errorf("with SkipInvalid: %v, %v", counts(r), err)
	}
}

func TestRepeatedIDsAreRejectedWithBothRows(t *testing.T) {
	const content = "id,prompt,variants\nx,a,\ny,b,\nx,c,\nz,d,2\nz-2,e,\n"
	c := &cloud{keep: true}
	_, rejected, err := run(t, c, content, nil)
	if !errors.Is(err, submit.ErrInvalidRows) || len(rejected) != 2 {
		t.Fatalf("err %v, rejected %q", err, rejected)
	}
	all := strings.Join(rejected, "\n")
	for _, part := range []string{"row 4, column id is already the id of row 2", "row 6, column id is already the id of row 5"} {
		if !strings.Contains(all, part) {
			t.Errorf("%q does not say %q", all, part)
		}
	}
	r, _, err := run(t, c, content, func(o *submit.Options) { o.SkipInvalid = true })
	if err != nil || counts(r)["published"] != 4 {
		t.Errorf("with SkipInvalid: %v, %v", counts(r), err)
	}
}

func TestMissingReferencesAreRejected(t *testing.T) {
	c := &cloud{keep: true, absent: map[string]bool{"gs://bucket/none.png": true}}
	content := "prompt,references\na,gs://bucket/some.png\nb,gs://bucket/none.png\nc,gs://bucket/none.png gs://bucket/some.png\nd,gs://forbidden/x.png\n"
	_, rejected, err := run(t, c, content, nil)
	if !errors.Is(err, submit.ErrInvalidRows) || len(rejected) != 2 {
		t.Fatalf("err %v, rejected %q", err, rejected)
	}
	if !strings.Contains(rejected[0], "gs://bucket/none.png") || !strings.Contains(rejected[0], "does not exist") {
		t.Errorf("rejected %q", rejected[0])
	}
}

func TestMissingImagesOfTurnsAreRejected(t *testing.T) {
	c := &cloud{absent: map[string]bool{"gs://bucket/none.png": true}}
	content := "prompt,turn_1_prompt,turn_1_image,turn_2_prompt,turn_2_image\na,b,gs://bucket/some.png,c,gs://bucket/none.png\nd,,,,\n"
	_, rejected, err := run(t, c, content, nil)
	if !errors.Is(err, submit.ErrInvalidRows) || len(rejected) != 1 || !strings.Contains(rejected[0], `row 2, column turn_2_image: "gs://bucket/none.png" does not exist`) {
		t.Errorf("err %v, rejected %q", err, rejected)
	}
}

func TestWholeFileProblems(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "header only": "prompt,size\n", "no prompt column": "text,size\na,1K\n", "near miss": "promt\na\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := &cloud{}
			_, _, err := run(t, c, content, nil)
			var whole *csvfile.FileError
			if !errors.As(err, &whole) || !strings.Contains(err.Error(), "p.csv") || c.count != 0 {
				t.Errorf("err %v, published %d", err, c.count)
			}
		})
	}
}

func TestBrokenQuotingPublishesNothingEvenWhenSkipping(t *testing.T) {
	c := &cloud{}
	_, _, err := run(t, c, "prompt,size\na,1K\n\"b\" c,1K\nd,1K\n", func(o *submit.Options) { o.SkipInvalid = true })
	if err == nil || c.count != 0 {
		t.Errorf("err %v, published %d", err, c.count)
	}
}

func TestDryRunPublishesNothing(t *testing.T) {
	c := &cloud{}
	r, _, err := run(t, c, "prompt\na\nb\n", func(o *submit.Options) { o.DryRun = true })
	if err != nil || c.count != 0 || len(c.receipts) != 0 || counts(r)["jobs"] != 2 || r.GetEstimatedCostUsd() == "" {
		t.Errorf("err %v, published %d, receipt %v", err, c.count, r)
	}
}

func TestAFailureOfTheTopicIsInTheReceipt(t *testing.T) {
	c := &cloud{failAfter: 3}
	r, _, err := run(t, c, "prompt\n"+strings.Repeat("a\n", 10), nil)
	if err == nil || !strings.Contains(err.Error(), "the topic is gone") {
		t.Fatalf("err %v", err)
	}
	if r.GetPublished() != 3 || r.GetCompletedAt() != 0 || len(c.rows) != 1 || c.rows[0].GetPublished() != 3 {
		t.Errorf("receipt %v, rows %v", r, c.rows)
	}
}

func TestAFileThatChangesIsNoticed(t *testing.T) {
	c := &cloud{}
	reads := 0
	f := submit.File{Name: "p.csv", Open: func() (io.ReadCloser, error) {
		reads++
		return io.NopCloser(strings.NewReader(fmt.Sprintf("prompt\nreading %d\n", reads))), nil
	}}
	_, err := submit.Run(t.Context(), []submit.File{f}, submit.Options{Catalogue: jobs.DefaultCatalogue(), Defaults: &schemas.Job{}}, c.ports())
	if err == nil || !strings.Contains(err.Error(), "p.csv changed while") {
		t.Errorf("err %v", err)
	}
}

// rows makes a large file without holding it.
type rows struct {
	n, total int
	rest     []byte
}

func (r *rows) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.n > r.total {
			return 0, io.EOF
		}
		if r.n == 0 {
			r.rest = []byte("prompt,campaign\n")
		} else {
			r.rest = fmt.Appendf(r.rest[:0], "a photo of fox number %d in the snow at dawn,spring\n", r.n)
		}
		r.n++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 150,000 rows twice")
	}
	const total = 150_000
	c := &cloud{}
	var most uint64
	f := submit.File{Name: "big.csv", Open: func() (io.ReadCloser, error) { return io.NopCloser(&rows{total: total}), nil }}
	opts := submit.Options{Catalogue: jobs.DefaultCatalogue(), Defaults: &schemas.Job{}, Progress: func(p submit.Progress) {
		if p.Rows%25_000 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}}
	r, err := submit.Run(t.Context(), []submit.File{f}, opts, c.ports())
	if err != nil || r.GetPublished() != total {
		t.Fatalf("published %d, %v", r.GetPublished(), err)
	}
	// Measured: 1.7 MiB, most of it buffers of temporary files. Remembering 100 bytes of each row would make 15 MB.
	const bound = 8 << 20
	t.Logf("most heap: %d KiB", most>>10)
	if most > bound {
		t.Errorf("heap reached %d MiB", most>>20)
	}
}
