package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// minRSABits is what RFC 7518 §3.3 asks of a key for RS256.
const minRSABits = 2048

// readPublicKey reads a PEM file with one public key, as PKIX ("PUBLIC KEY") or PKCS #1 ("RSA PUBLIC KEY"), and gives
// the algorithm that goes with it.
func readPublicKey(path string) (jwt.SigningMethod, any, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(b)
	switch {
	case block == nil:
		return nil, nil, errors.New("not a PEM file")
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, nil, errors.New("holds a private key: give the public key only")
	}
	var key any
	if block.Type == "RSA PUBLIC KEY" {
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	} else {
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("no public key: %w", err)
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return nil, nil, fmt.Errorf("an RSA key of %d bits is too short: use %d or more", k.N.BitLen(), minRSABits)
		}
		return jwt.SigningMethodRS256, k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256, k, nil
		}
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA, k, nil
	}
	return nil, nil, errors.New("not a key for RS256, ES256 (P-256) or EdDSA (Ed25519)")
}
