package assets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iamcredentials/v1"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
)

const (
	// MaxLinkTime is how long a link may be valid at most. Cloud Storage would allow seven days, but the key that signBlob signs with is
	// promised for twelve hours only.
	MaxLinkTime = 12 * time.Hour
	// MinLinkTime is the shortest that makes sense: the time is written in whole seconds.
	MinLinkTime = time.Second
	// signTimeout bounds one signature, with its retries. One takes some tens of milliseconds.
	signTimeout = time.Minute
	// maxSigning bounds the signatures that are asked for at a time. Google's quota for them is by the minute, and what exceeds it is tried
	// again; more at a time would only wait there.
	maxSigning = 48
	// signPage bounds the rows in memory while links are made for many.
	signPage = 1000
)

// ErrMayNotSign says that links can't be signed with the account. Trying again is useless; the error says what to do.
var ErrMayNotSign = errors.New("links can't be signed")

// Link is a link that anybody who has it can read one object with.
type Link struct {
	URL     string
	Expires time.Time
}

// SignerConfig says with which account links are signed. The zero value signs with the account that the client's credentials stand for.
type SignerConfig struct {
	// Account is the e-mail address of the service account that signs. It needs storage.objects.get on the objects, and whoever signs needs
	// iam.serviceAccounts.signBlob on it. Empty: that of the client's credentials, where these are a service account's.
	Account string
	// Options are for the API that signs. None: Google's, with Application Default Credentials.
	Options []option.ClientOption
}

// Signer signs links in the scheme V4 with no key of its own: Google signs with a key of the service account. It is safe for concurrent use.
type Signer struct {
	client  *storage.Client
	service *iamcredentials.Service

	mu      sync.Mutex
	account string // empty: not known yet
}

// NewSigner returns a signer of links to the client's objects. It makes no request.
func NewSigner(ctx context.Context, client *storage.Client, cfg SignerConfig) (*Signer, error) {
	service, err := iamcredentials.NewService(ctx, cfg.Options...)
	if err != nil {
		return nil, fmt.Errorf("sign links: %w", err)
	}
	return &Signer{client: client, service: service, account: cfg.Account}, nil
}

// Sign returns a link to the object at a gs:// URI, valid for a time from [MinLinkTime] to [MaxLinkTime]. It does not look whether there is
// such an object, nor whether the account may read it. The error wraps [ErrMayNotSign] when no link can be signed.
func (s *Signer) Sign(ctx context.Context, uri string, ttl time.Duration) (Link, error) {
	bucket, object, err := jobs.SplitURI(uri)
	if err != nil {
		return Link{}, fmt.Errorf("sign %s: it %w", uri, err)
	}
	if ttl < MinLinkTime || ttl > MaxLinkTime {
		return Link{}, fmt.Errorf("sign %s: a link is valid for %s to %s, not for %s", uri, MinLinkTime, MaxLinkTime, ttl)
	}
	account, err := s.signingAccount(bucket)
	if err != nil {
		return Link{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, signTimeout, fmt.Errorf("no signature within %s", signTimeout))
	defer cancel()
	link, err := s.client.Bucket(bucket).SignedURL(object, &storage.SignedURLOptions{
		Scheme: storage.SigningSchemeV4, Method: http.MethodGet, Expires: time.Now().Add(ttl), GoogleAccessID: account,
		SignBytes: func(text []byte) ([]byte, error) { return s.signBlob(ctx, account, text) },
	})
	if err != nil {
		return Link{}, fmt.Errorf("sign %s: %w", uri, err)
	}
	expires, err := expiry(link)
	if err != nil {
		return Link{}, fmt.Errorf("sign %s: %w", uri, err)
	}
	return Link{link, expires}, nil
}

// signingAccount returns the account that signs, which the storage client finds out from its credentials.
func (s *Signer) signingAccount(bucket string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account != "" {
		return s.account, nil
	}
	// The client tells the account to nobody but writes it into links. This one is good for nothing else.
	trial, err := s.client.Bucket(bucket).SignedURL("trial", &storage.SignedURLOptions{
		Scheme: storage.SigningSchemeV4, Method: http.MethodGet, Expires: time.Now().Add(time.Minute),
		SignBytes: func([]byte) ([]byte, error) { return []byte("none"), nil },
	})
	if err != nil {
		return "", fmt.Errorf("%w: the credentials are no service account's. Name the account that signs, or take its place: "+
			"gcloud auth application-default login --impersonate-service-account=ACCOUNT: %w", ErrMayNotSign, err)
	}
	u, err := url.Parse(trial)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMayNotSign, err)
	}
	s.account, _, _ = strings.Cut(u.Query().Get("X-Goog-Credential"), "/")
	return s.account, nil
}

// signBlob has Google sign with a key of the account.
func (s *Signer) signBlob(ctx context.Context, account string, text []byte) ([]byte, error) {
	request := &iamcredentials.SignBlobRequest{Payload: base64.StdEncoding.EncodeToString(text)}
	var signed *iamcredentials.SignBlobResponse
	err := retry.Do(ctx, storage.ShouldRetry, func(ctx context.Context) (err error) {
		signed, err = s.service.Projects.ServiceAccounts.SignBlob("projects/-/serviceAccounts/"+account, request).Context(ctx).Do()
		return err
	})
	if err != nil {
		return nil, explainSigning(err, account)
	}
	return base64.StdEncoding.DecodeString(signed.SignedBlob)
}

// explainSigning adds to an error what to do about it.
func explainSigning(err error, account string) error {
	var api *googleapi.Error
	if !errors.As(err, &api) {
		return err
	}
	_, domain, _ := strings.Cut(account, "@")
	project, _, _ := strings.Cut(domain, ".")
	switch {
	case strings.Contains(api.Body, "SERVICE_DISABLED"):
		return fmt.Errorf("%w: the API that signs is not enabled: gcloud services enable iamcredentials.googleapis.com --project=%s: %w", ErrMayNotSign, project, err)
	case api.Code == http.StatusForbidden:
		return fmt.Errorf("%w: the permission iam.serviceAccounts.signBlob on %s is missing, for the account itself too: "+
			"gcloud iam service-accounts add-iam-policy-binding %s --member=serviceAccount:%s --role=roles/iam.serviceAccountTokenCreator --project=%s "+
			"(another member where somebody else signs in its name): %w", ErrMayNotSign, account, account, account, project, err)
	case api.Code == http.StatusNotFound:
		return fmt.Errorf("%w: there is no service account %s: %w", ErrMayNotSign, account, err)
	case api.Code == http.StatusUnauthorized:
		return fmt.Errorf("%w: the credentials are not accepted: gcloud auth application-default login: %w", ErrMayNotSign, err)
	default:
		return err
	}
}

// expiry reads out of a link until when it is valid.
func expiry(link string) (time.Time, error) {
	u, err := url.Parse(link)
	if err != nil {
		return time.Time{}, err
	}
	from, err := time.Parse("20060102T150405Z", u.Query().Get("X-Goog-Date"))
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.Atoi(u.Query().Get("X-Goog-Expires"))
	return from.Add(time.Duration(seconds) * time.Second), err
}

// SignEach signs links for many rows, some at a time, and hands each row with its link to use, in the order of the rows. A row without a
// URI gets the zero Link. It holds a bounded number of rows in memory, and stops at the first error, which it returns.
func SignEach[T any](ctx context.Context, s *Signer, ttl time.Duration, rows iter.Seq2[T, error], uri func(T) string, use func(T, Link) error) error {
	page := make([]T, 0, signPage)
	flush := func() error {
		links := make([]Link, len(page))
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(maxSigning)
		for i, row := range page {
			if uri(row) == "" {
				continue
			}
			group.Go(func() (err error) {
				links[i], err = s.Sign(gctx, uri(row), ttl)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i, row := range page {
			if err := use(row, links[i]); err != nil {
				return err
			}
		}
		page = page[:0]
		return nil
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		if page = append(page, row); len(page) == signPage {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
