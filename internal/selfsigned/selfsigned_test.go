package selfsigned

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestTheCertificateIsItsOwnAuthority(t *testing.T) {
	t.Parallel()
	cert, key, err := New("test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestWhereAndWhenTheCertificateIsValid(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cert, key, err := New("test", now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for _, tt := range []struct {
		host  string
		after time.Duration
		want  bool
	}{
		{"localhost", 0, true},
		{"127.0.0.1", 0, true},
		{"::1", 0, true},
		{"example.com", 0, false},
		{"127.0.0.2", 0, false},
		{"localhost", 23 * time.Hour, true},
		{"localhost", -30 * time.Minute, true},
		{"localhost", 25 * time.Hour, false},
	} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: tt.host, Roots: roots, CurrentTime: now.Add(tt.after)})
		if (err == nil) != tt.want {
			t.Errorf("%s, after %s: %v, want valid: %v", tt.host, tt.after, err, tt.want)
		}
	}
}
