package ingest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"time"
)

const (
	maxKeysFile = 1 << 20
	maxKeys     = 1024
	minRSABits  = 2048 // RFC 7518, 3.3
	maxRSABits  = 8192 // more would make one token cost as much as a thousand
)

// keySet is the content of a JWKS file. It is immutable.
type keySet struct{ keys []publicKey }

type publicKey struct {
	algorithm string // the only one it may verify (RFC 8725, 3.1)
	kid       string
	key       any
}

// find returns the key of that algorithm and exactly that name. A token that
// names none is taken to mean the only key of its algorithm; where there are
// several, it means none.
func (s *keySet) find(algorithm, kid string, named bool) any {
	var only any
	for i := range s.keys {
		k := &s.keys[i]
		if k.algorithm != algorithm {
			continue
		}
		if named {
			if k.kid == kid {
				return k.key
			}
			continue
		}
		if only != nil {
			return nil
		}
		only = k.key
	}
	return only
}

// fileVersion tells one content of a file from the next, as far as the file
// system does.
type fileVersion struct {
	modified time.Time
	size     int64
	missing  bool
}

// reload reads the JWKS file again if it changed, at most once every
// reloadEvery. Old keys stay in force where the new file is no good: a slip of
// an operator's hand must not lock out every buyer of a running sale.
func (a *Auth) reload(now time.Time) {
	if !a.reloading.TryLock() {
		return // somebody is at it
	}
	defer a.reloading.Unlock()
	if now.UnixNano() < a.nextCheck.Load() {
		return // somebody was at it
	}
	a.nextCheck.Store(now.Add(reloadEvery).UnixNano())

	version, err := statKeys(a.jwksFile)
	if version == a.seen {
		return // also a fault that was told of before
	}
	var keys *keySet
	if err == nil {
		keys, version, err = readKeys(a.jwksFile)
	}
	a.seen = version
	if err != nil {
		a.onReload(fmt.Errorf("reload keys, the old ones stay in force: %w", err))
		return
	}
	a.keys.Store(keys)
	a.onReload(nil)
}

func statKeys(path string) (fileVersion, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileVersion{missing: true}, err
	}
	return fileVersion{modified: info.ModTime(), size: info.Size()}, nil
}

// readKeys reads a JWKS file. The version is taken before the content, so a
// change in between is seen as a change later.
func readKeys(path string) (*keySet, fileVersion, error) {
	version, err := statKeys(path)
	if err != nil {
		return nil, version, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, version, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return nil, version, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxKeysFile {
		return nil, version, fmt.Errorf("%s is larger than %d bytes", path, maxKeysFile)
	}
	keys, err := parseKeys(data)
	if err != nil {
		return nil, version, fmt.Errorf("%s: %w", path, err)
	}
	return keys, version, nil
}

// jwk is what we read of a key (RFC 7517 and 7518; RFC 8037 for Ed25519).
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	Crv    string   `json:"crv"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	D      string   `json:"d"`
	K      string   `json:"k"`
}

// parseKeys returns the keys that may verify EdDSA, ES256 and RS256 tokens.
// Keys of other kinds are passed over, as RFC 7517, 5 asks; a key of one of
// these kinds that is no good, or that should not be here at all, is a fault of
// the whole file.
func parseKeys(data []byte) (*keySet, error) {
	var file struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(file.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are read", len(file.Keys), maxKeys)
	}
	set := &keySet{}
	var faults []error
	for i, raw := range file.Keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			faults = append(faults, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		key, err := k.public()
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("key %d (kid %q): %w", i, k.Kid, err))
		case key == nil:
		case k.Kid != "" && set.find(key.algorithm, k.Kid, true) != nil:
			faults = append(faults, fmt.Errorf("key %d (kid %q): another %s key has the same kid", i, k.Kid, key.algorithm))
		default:
			set.keys = append(set.keys, *key)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if len(set.keys) == 0 {
		return nil, errors.New("no key for EdDSA, ES256 or RS256 in it")
	}
	return set, nil
}

// public returns the key, or nil where it is of a kind or for a use that is not
// ours.
func (k *jwk) public() (*publicKey, error) {
	if k.D != "" {
		return nil, errors.New("is a private key; only public keys belong in this file")
	}
	if k.Kty == "oct" || k.K != "" {
		return nil, errors.New("is a shared secret; only public keys belong in this file")
	}
	if k.Use != "" && k.Use != "sig" || k.KeyOps != nil && !slices.Contains(k.KeyOps, "verify") {
		return nil, nil
	}
	var key any
	var algorithm string
	var err error
	switch {
	case k.Kty == "OKP" && k.Crv == "Ed25519":
		algorithm = "EdDSA"
		key, err = k.ed25519()
	case k.Kty == "EC" && k.Crv == "P-256":
		algorithm = "ES256"
		key, err = k.p256()
	case k.Kty == "RSA" && (k.Alg == "" || k.Alg == "RS256"):
		algorithm = "RS256"
		key, err = k.rsa()
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if k.Alg != "" && k.Alg != algorithm && !(algorithm == "EdDSA" && k.Alg == "Ed25519") {
		return nil, fmt.Errorf("alg %q does not fit its kty and crv", k.Alg)
	}
	return &publicKey{algorithm: algorithm, kid: k.Kid, key: key}, nil
}

func (k *jwk) ed25519() (ed25519.PublicKey, error) {
	x, err := field("x", k.X)
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("x has %d bytes, not %d", len(x), ed25519.PublicKeySize)
	}
	return x, nil
}

func (k *jwk) p256() (*ecdsa.PublicKey, error) {
	x, err := field("x", k.X)
	if err != nil {
		return nil, err
	}
	y, err := field("y", k.Y)
	if err != nil {
		return nil, err
	}
	if len(x) != 32 || len(y) != 32 {
		return nil, fmt.Errorf("x and y have %d and %d bytes, not 32", len(x), len(y))
	}
	point := bytes.Join([][]byte{{4}, x, y}, nil)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("not a point of P-256: %w", err)
	}
	return key, nil
}

func (k *jwk) rsa() (*rsa.PublicKey, error) {
	n, err := field("n", k.N)
	if err != nil {
		return nil, err
	}
	e, err := field("e", k.E)
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("RSA of %d bits, must be %d to %d", bits, minRSABits, maxRSABits)
	}
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
		return nil, errors.New("e is not an odd number from 3 to 2^31-1")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func field(name, value string) ([]byte, error) {
	if value == "" {
		return nil, fmt.Errorf("has no %s", name)
	}
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("%s is not base64url without padding: %w", name, err)
	}
	return b, nil
}
