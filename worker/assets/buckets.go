package assets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/gcs"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// ErrNoBucket says that there is no bucket in which a job's asset may be stored.
var ErrNoBucket = errors.New("no bucket for the data region")

// Config says where assets are stored.
type Config struct {
	// Bucket takes the assets of jobs that may run anywhere, and of those whose data region is the bucket's own location.
	Bucket string
	// Regions are the buckets of jobs with a data region, by region.
	Regions map[string]string
	// AnyLocation trusts Regions, and lets Bucket stand in for every region that Regions lacks. It is for emulators, whose buckets are nowhere.
	AnyLocation bool
	// Uploader writes the assets. Nil: the client does, at more cost.
	Uploader *gcs.Uploader
}

// Store implements worker.Assets. It is safe for concurrent use.
type Store struct {
	client   *storage.Client
	cfg      Config
	buckets  map[string]*storage.BucketHandle // by name
	location atomic.Pointer[string]           // of Config.Bucket; nil until it is known
}

var _ worker.Assets = (*Store)(nil)

// New returns the store. Until [Store.Check] has learned where Config.Bucket is, it takes no assets of data regions.
//
// The client's own retries are switched off for writes: a repeated create needs to tell an object that it made itself from another's.
func New(client *storage.Client, cfg Config) *Store {
	s := &Store{client: client, cfg: cfg, buckets: map[string]*storage.BucketHandle{}}
	for _, name := range append(slices.Collect(maps.Values(cfg.Regions)), cfg.Bucket) {
		s.buckets[name] = client.Bucket(name).Retryer(storage.WithPolicy(storage.RetryNever))
	}
	return s
}

// Storable reports whether assets of a data region can be stored.
func (s *Store) Storable(region string) bool {
	_, err := s.bucketOf(region)
	return err == nil
}

// bucketOf returns the bucket of a data region. The error wraps [ErrNoBucket].
func (s *Store) bucketOf(region string) (*storage.BucketHandle, error) {
	if region == jobs.GlobalRegion {
		return s.buckets[s.cfg.Bucket], nil
	}
	if name, ok := s.cfg.Regions[region]; ok {
		return s.buckets[name], nil
	}
	location := s.location.Load()
	switch {
	case s.cfg.AnyLocation || location != nil && *location == region:
		return s.buckets[s.cfg.Bucket], nil
	case location == nil:
		return nil, fmt.Errorf("%w %s: none is listed for it, and nobody knows where gs://%s is", ErrNoBucket, region, s.cfg.Bucket)
	default:
		return nil, fmt.Errorf("%w %s: none is listed for it, and gs://%s is in %s", ErrNoBucket, region, s.cfg.Bucket, *location)
	}
}

// grants are what a worker needs on the buckets. It may not delete there, and so not overwrite, but for what models wrote themselves.
const grants = "roles/storage.objectViewer and roles/storage.objectCreator on it, and roles/storage.objectUser on its managed folder " + straightFolder

// Check returns an error that says what to do when a bucket is missing, may not be used, or is not where it is said to be. It learns where
// the default bucket is, if this account may know.
func (s *Store) Check(ctx context.Context) error {
	var all []error
	name := s.cfg.Bucket
	err := gcs.Check(ctx, s.buckets[name], name, "ASSETMILL_BUCKET", grants)
	if err == nil && !s.cfg.AnyLocation {
		err = s.learn(ctx)
	}
	all = append(all, err)
	for _, region := range slices.Sorted(maps.Keys(s.cfg.Regions)) {
		all = append(all, s.checkRegion(ctx, region))
	}
	return errors.Join(all...)
}

// learn finds out where the default bucket is. An account that may write objects need not be allowed to know.
func (s *Store) learn(ctx context.Context) error {
	location, err := s.locate(ctx, s.cfg.Bucket)
	if gcs.Forbidden(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out where bucket gs://%s is: %w", s.cfg.Bucket, err)
	}
	s.location.Store(&location)
	return nil
}

func (s *Store) checkRegion(ctx context.Context, region string) error {
	name := s.cfg.Regions[region]
	if err := gcs.Check(ctx, s.buckets[name], name, "the bucket of region "+region, grants); err != nil || s.cfg.AnyLocation {
		return err
	}
	location, err := s.locate(ctx, name)
	switch {
	case gcs.Forbidden(err):
		return fmt.Errorf("bucket gs://%s is listed for region %s, and this account may not know whether it is there: grant it roles/storage.legacyBucketReader on the bucket: %w", name, region, err)
	case err != nil:
		return fmt.Errorf("find out where bucket gs://%s is: %w", name, err)
	case location != region:
		return fmt.Errorf("bucket gs://%s is listed for region %s but is in %s: list a bucket that is in the region", name, region, location)
	default:
		return nil
	}
}

// locate returns a bucket's location as data regions are written. It needs storage.buckets.get, which the roles that write objects lack.
func (s *Store) locate(ctx context.Context, name string) (string, error) {
	attrs, err := s.client.Bucket(name).Attrs(ctx)
	if err != nil {
		return "", err
	}
	return strings.ToLower(attrs.Location), nil
}
