// Package selfsigned makes certificates for servers of this machine that stand in for a cloud, so that they speak TLS as the cloud does.
//
// Contract: each certificate has a key of its own, is its own authority, and is valid for localhost, 127.0.0.1 and ::1 alone. Clients have to
// be told to trust it. Nothing is written to a disk.
//
// Non-goals: certificates for other hosts, renewal, and anything that a production server needs.
package selfsigned

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	// skew is how far a client's clock may be behind.
	skew = time.Hour
	// serialBits is the length of serial numbers: enough that no two are ever the same.
	serialBits = 127
)

// New makes a certificate of this name that is valid until lifetime after now, and its key (PKCS #8), both as PEM.
func New(name string, now time.Time, lifetime time.Duration) (cert, key []byte, err error) {
	fail := func(err error) ([]byte, []byte, error) { return nil, nil, fmt.Errorf("make certificate: %w", err) }
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return fail(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return fail(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fail(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
