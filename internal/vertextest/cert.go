package vertextest

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/assetmill/assetmill/internal/selfsigned"
)

// certLifetime is longer than any test or demo runs.
const certLifetime = 30 * 24 * time.Hour

// newCertificate makes a self-signed certificate for the loopback names and
// returns it also in PEM, for clients to trust. The key never leaves memory.
func newCertificate(now time.Time) (tls.Certificate, []byte, error) {
	cert, key, err := selfsigned.New("vertextest", now, certLifetime)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("read certificate: %w", err)
	}
	return pair, cert, nil
}
