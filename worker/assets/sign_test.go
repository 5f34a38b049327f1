package assets_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"github.com/assetmill/assetmill/worker/assets"
)

const signingAccount = "assetmill-console@mill-test.iam.gserviceaccount.com"

// iamCredentials signs as Google does, with a key of its own, but first gives the answers that it is told to.
type iamCredentials struct {
	*httptest.Server
	key      *rsa.PrivateKey
	asked    atomic.Int64
	together atomic.Int64 // requests at a time
	most     atomic.Int64
	refuse   func(n int64, w http.ResponseWriter) bool
}

// signingKey is as small as a key may be: these are many signatures, and no secret.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return key
})

func newIAMCredentials(t *testing.T) *iamCredentials {
	t.Helper()
	key := signingKey()
	s := &iamCredentials{key: key, refuse: func(int64, http.ResponseWriter) bool { return false }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := s.together.Add(1)
		defer s.together.Add(-1)
		for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
		}
		n := s.asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/v1/projects/-/serviceAccounts/"+signingAccount+":signBlob" {
			http.Error(w, `{"error":{"code":404,"message":"`+r.URL.Path+`"}}`, http.StatusNotFound)
			return
		}
		if s.refuse(n, w) {
			return
		}
		var request struct{ Payload []byte }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		sum := sha256.Sum256(request.Payload)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"keyId":"1","signedBlob":%q}`, base64.StdEncoding.EncodeToString(signature))
	}))
	t.Cleanup(s.Close)
	return s
}

// verify checks a link as Cloud Storage does, from the link alone and the account's public key.
func (s *iamCredentials) verify(t *testing.T, link, object string) {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme != "https" || u.Host != "storage.googleapis.com" || u.Path != "/"+object {
		t.Errorf("the link is to %s%s", u.Host, u.Path)
	}
	query := u.Query()
	signature, err := hex.DecodeString(query.Get("X-Goog-Signature"))
	if err != nil {
		t.Fatal(err)
	}
	query.Del("X-Goog-Signature")
	canonical := strings.Join([]string{
		http.MethodGet, u.EscapedPath(), strings.ReplaceAll(query.Encode(), "+", "%20"), "host:storage.googleapis.com\n", "host", "UNSIGNED-PAYLOAD",
	}, "\n")
	account, scope, _ := strings.Cut(query.Get("X-Goog-Credential"), "/")
	if account != signingAccount || query.Get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" {
		t.Errorf("signed by %s with %s", account, query.Get("X-Goog-Algorithm"))
	}
	hash := sha256.Sum256([]byte(canonical))
	text := sha256.Sum256([]byte(strings.Join([]string{"GOOG4-RSA-SHA256", query.Get("X-Goog-Date"), scope, hex.EncodeToString(hash[:])}, "\n")))
	if err := rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, text[:], signature); err != nil {
		t.Errorf("the signature of %s is wrong: %v", link, err)
	}
}

func (s *iamCredentials) signer(t *testing.T, account string, options ...option.ClientOption) *assets.Signer {
	t.Helper()
	if len(options) == 0 {
		options = []option.ClientOption{option.WithHTTPClient(&http.Client{})}
	}
	client, err := storage.NewClient(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	signer, err := assets.NewSigner(t.Context(), client, assets.SignerConfig{
		Account: account, Options: []option.ClientOption{option.WithEndpoint(s.URL), option.WithHTTPClient(&http.Client{Transport: transport})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestSign(t *testing.T) {
	t.Parallel()
	iam := newIAMCredentials(t)
	signer := iam.signer(t, signingAccount)
	for _, object := range []string{"mill-test-assets/keep/spring/sku-1.png", "mill-test-assets/keep/ümlaut & more/a+b c%.png"} {
		before := time.Now()
		link, err := signer.Sign(t.Context(), "gs://"+object, 12*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		iam.verify(t, link.URL, object)
		if d := link.Expires.Sub(before); d > 12*time.Hour || d < 12*time.Hour-5*time.Second {
			t.Errorf("it expires in %s", d)
		}
	}
}

// The account is found out from the client's credentials.
func TestSignAsOneself(t *testing.T) {
	t.Parallel()
	iam := newIAMCredentials(t)
	file := `{"type":"impersonated_service_account","service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/` +
		signingAccount + `:generateAccessToken","source_credentials":{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}}`
	signer := iam.signer(t, "", option.WithAuthCredentialsJSON(option.ImpersonatedServiceAccount, []byte(file)))
	link, err := signer.Sign(t.Context(), "gs://mill-test-assets/a.png", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	iam.verify(t, link.URL, "mill-test-assets/a.png")
}

func TestSignErrors(t *testing.T) {
	t.Parallel()
	person := `{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}`
	tests := map[string]struct {
		uri      string
		ttl      time.Duration
		person   bool
		status   int
		body     string
		want     string
		hopeless bool
	}{
		"no URI":         {uri: "https://example.com/a.png", want: "write gs://bucket/object"},
		"too long":       {ttl: 13 * time.Hour, want: "valid for 1s to 12h0m0s, not for 13h0m0s"},
		"no time at all": {ttl: -time.Second, want: "not for -1s"},
		"a person":       {person: true, hopeless: true, want: "--impersonate-service-account=ACCOUNT"},
		"no permission": {status: 403, body: `{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.signBlob' denied"}}`, hopeless: true,
			want: "gcloud iam service-accounts add-iam-policy-binding " + signingAccount + " --member=serviceAccount:" + signingAccount +
				" --role=roles/iam.serviceAccountTokenCreator --project=mill-test"},
		"no API": {status: 403, body: `{"error":{"code":403,"message":"disabled","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"SERVICE_DISABLED"}]}}`, hopeless: true,
			want: "gcloud services enable iamcredentials.googleapis.com --project=mill-test"},
		"no account": {status: 404, body: `{"error":{"code":404,"message":"gone"}}`, hopeless: true, want: "there is no service account " + signingAccount},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			iam := newIAMCredentials(t)
			if test.status != 0 {
				iam.refuse = func(_ int64, w http.ResponseWriter) bool {
					w.WriteHeader(test.status)
					fmt.Fprint(w, test.body)
					return true
				}
			}
			signer := iam.signer(t, signingAccount)
			if test.person {
				signer = iam.signer(t, "", option.WithAuthCredentialsJSON(option.AuthorizedUser, []byte(person)))
			}
			if test.uri == "" {
				test.uri = "gs://mill-test-assets/a.png"
			}
			if test.ttl == 0 {
				test.ttl = time.Hour
			}
			_, err := signer.Sign(t.Context(), test.uri, test.ttl)
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, assets.ErrMayNotSign) != test.hopeless {
				t.Errorf("error %v", err)
			}
		})
	}
}

// rowsOf yields n rows, and then an error, if there is one.
func rowsOf(n int, end error) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
		if end != nil {
			yield(0, end)
		}
	}
}

func TestSignEach(t *testing.T) {
	t.Parallel()
	iam := newIAMCredentials(t)
	iam.refuse = func(n int64, w http.ResponseWriter) bool {
		if n%100 != 7 {
			return false
		}
		http.Error(w, `{"error":{"code":503,"message":"busy"}}`, http.StatusServiceUnavailable)
		return true
	}
	signer := iam.signer(t, signingAccount)
	const n = 1003 // more than a page
	uri := func(i int) string {
		if i == 5 {
			return ""
		}
		return fmt.Sprintf("gs://mill-test-assets/%d.png", i)
	}
	next := 0
	err := assets.SignEach(t.Context(), signer, time.Hour, rowsOf(n, nil), uri, func(i int, link assets.Link) error {
		if i != next {
			return fmt.Errorf("row %d comes after row %d", i, next-1)
		}
		next++
		if i == 5 {
			if link != (assets.Link{}) {
				t.Errorf("a row without an image has the link %v", link)
			}
		} else if i%250 == 0 {
			iam.verify(t, link.URL, fmt.Sprintf("mill-test-assets/%d.png", i))
		} else if !strings.Contains(link.URL, fmt.Sprintf("/mill-test-assets/%d.png?", i)) {
			t.Errorf("row %d has the link of another: %s", i, link.URL)
		}
		return nil
	})
	if err != nil || next != n {
		t.Errorf("%d rows, %v", next, err)
	}
	if most := iam.most.Load(); most < 2 || most > 48 {
		t.Errorf("%d signatures at a time", most)
	}
}

func TestSignEachStops(t *testing.T) {
	t.Parallel()
	iam := newIAMCredentials(t)
	signer := iam.signer(t, signingAccount)
	uri := func(i int) string { return fmt.Sprintf("gs://mill-test-assets/%d.png", i) }
	broken := errors.New("broken")
	if err := assets.SignEach(t.Context(), signer, time.Hour, rowsOf(3, broken), uri, func(int, assets.Link) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("rows that can't be read: %v", err)
	}
	full := errors.New("full")
	if err := assets.SignEach(t.Context(), signer, time.Hour, rowsOf(3, nil), uri, func(int, assets.Link) error { return full }); !errors.Is(err, full) {
		t.Errorf("links that can't be written: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	iam.refuse = func(int64, http.ResponseWriter) bool { cancel(); return false }
	if err := assets.SignEach(ctx, signer, time.Hour, rowsOf(3000, nil), uri, func(int, assets.Link) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a command that is stopped: %v", err)
	}
	if n := iam.asked.Load(); n > 200 {
		t.Errorf("%d signatures were asked for", n)
	}
}
