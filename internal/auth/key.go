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

// RFC 7518 §3.3 asks for 2048 bits of a key for RS256. A key far beyond what anybody uses would only cost time.
const (
	minRSABits = 2048
	maxRSABits = 16384
)

// publicKeyAlgorithms are those of [methodOf].
var publicKeyAlgorithms = []string{
	jwt.SigningMethodRS256.Alg(), jwt.SigningMethodES256.Alg(), jwt.SigningMethodEdDSA.Alg(),
}

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
	method, err := methodOf(key)
	return method, key, err
}

// methodOf gives the one algorithm that a public key is used with.
func methodOf(key any) (jwt.SigningMethod, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < minRSABits:
			return nil, fmt.Errorf("an RSA key of %d bits is too short: use %d or more", bits, minRSABits)
		case bits > maxRSABits:
			return nil, fmt.Errorf("an RSA key of %d bits is too long: use %d or fewer", bits, maxRSABits)
		}
		return jwt.SigningMethodRS256, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256, nil
		}
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA, nil
	}
	return nil, errors.New("not a key for RS256, ES256 (P-256) or EdDSA (Ed25519)")
}
