package localcloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/internal/vertextest"
)

const (
	// maxWrong bounds the words of a check: what is wrong with a few pictures is wrong with all.
	maxWrong = 20
	// checkReads is how many pictures are read at a time: enough to keep a machine's cores busy.
	checkReads = 8
)

// Checked is what Check found.
type Checked struct {
	// Jobs are those that lineage says have a picture. Right of them have it, and it shows their prompt.
	Jobs, Right int
	// Wrong says what is wrong with others, a sentence each, up to 20 of them.
	Wrong []string
	// Unknown are pictures in the bucket that no row of lineage names. A worker that was stopped may leave some: it stores a picture
	// before it records it.
	Unknown int
}

// Check reads back what was made: each picture that lineage names, over the wire. It holds the picture's size and checksum against its row, and the
// prompt that the simulated model has put into the picture against the prompt in the row, whose job it is. The error says that it could
// not look; what is wrong with the pictures is in the result.
func (c *Cloud) Check(ctx context.Context) (Checked, error) {
	k := &checking{names: map[string]bool{}}
	client, err := storage.NewClient(ctx, option.WithEndpoint(c.storage.url()+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		return Checked{}, err
	}
	defer client.Close() // nothing is written
	k.bucket = client.Bucket(Bucket)
	rows, err := c.pictures(ctx)
	if err != nil {
		return Checked{}, fmt.Errorf("read lineage: %w", err)
	}
	k.found.Jobs = len(rows)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(checkReads)
	for _, row := range rows {
		k.names[row.name()] = true
		group.Go(func() error { return k.look(gctx, row) })
	}
	if err := group.Wait(); err != nil {
		return Checked{}, fmt.Errorf("read the pictures back: %w", err)
	}
	if err := k.countUnknown(ctx); err != nil {
		return Checked{}, fmt.Errorf("list the pictures: %w", err)
	}
	return k.found, nil
}

// picture is what lineage says of one.
type picture struct {
	Job    string `bigquery:"job_id"`
	Prompt string `bigquery:"prompt"`
	URI    string `bigquery:"asset_uri"`
	Bytes  int64  `bigquery:"asset_bytes"`
	CRC32C string `bigquery:"asset_crc32c"`
}

const assetsURI = "gs://" + Bucket + "/"

func (p picture) name() string { return strings.TrimPrefix(p.URI, assetsURI) }

// pictures returns the rows of lineage that have a picture.
func (c *Cloud) pictures(ctx context.Context) (rows []picture, err error) {
	client, err := bigquery.NewClient(ctx, Project, c.bigquery.RESTOptions()...)
	if err != nil {
		return nil, err
	}
	defer client.Close() // reads only
	it, err := client.Query("SELECT job_id, IFNULL(prompt, '') AS prompt, IFNULL(asset_uri, '') AS asset_uri, IFNULL(asset_bytes, 0) AS asset_bytes, " +
		"IFNULL(asset_crc32c, '') AS asset_crc32c FROM " + Dataset + ".generations WHERE outcome = 'succeeded'").Read(ctx)
	if err != nil {
		return nil, err
	}
	for {
		var row picture
		switch err := it.Next(&row); {
		case errors.Is(err, iterator.Done):
			return rows, nil
		case err != nil:
			return nil, err
		}
		rows = append(rows, row)
	}
}

// checking is one Check.
type checking struct {
	bucket *storage.BucketHandle
	names  map[string]bool // of the objects that lineage names

	mu    sync.Mutex
	found Checked
}

// look reads one picture back.
func (k *checking) look(ctx context.Context, row picture) error {
	wrong, err := k.compare(ctx, row)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case wrong == "":
		k.found.Right++
	case len(k.found.Wrong) < maxWrong:
		k.found.Wrong = append(k.found.Wrong, fmt.Sprintf("job %s: %s", row.Job, wrong))
	}
	return nil
}

// compare says what is wrong with a picture, or nothing.
func (k *checking) compare(ctx context.Context, row picture) (wrong string, err error) {
	if row.name() == row.URI {
		return fmt.Sprintf("its row names %q, which is not in %s", row.URI, assetsURI), nil
	}
	data, err := k.read(ctx, row.name())
	if gcs.NotFound(err) {
		return row.URI + " is not there", nil
	}
	if err != nil {
		return "", err
	}
	sum := gcs.EncodeCRC32C(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	prompt := sha256.Sum256([]byte(row.Prompt))
	shown, carries := vertextest.PromptHash(data)
	switch {
	case carries && shown != hex.EncodeToString(prompt[:]):
		return row.URI + " shows another prompt", nil
	case int64(len(data)) != row.Bytes || sum != row.CRC32C:
		return fmt.Sprintf("%s has %d bytes with checksum %s, and its row says %d and %s", row.URI, len(data), sum, row.Bytes, row.CRC32C), nil
	case !carries:
		return row.URI + " is no picture of the simulated model", nil
	}
	return "", nil
}

func (k *checking) read(ctx context.Context, name string) ([]byte, error) {
	r, err := k.bucket.Object(name).NewReader(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (k *checking) countUnknown(ctx context.Context) error {
	query := &storage.Query{Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name"}); err != nil {
		return err
	}
	for it := k.bucket.Objects(ctx, query); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return err
		}
		if !k.names[attrs.Name] {
			k.found.Unknown++
		}
	}
}
