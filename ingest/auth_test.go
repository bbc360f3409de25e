package ingest_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"floodgate/ingest"
)

var (
	authNow    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	authSecret = []byte("k3V9-2f7q-Lw0x-81mz-Qe5t-Bn6r-Yp4c")
)

// key is a signing key and what a JWKS file says of it.
type key struct {
	method jwt.SigningMethod
	sign   any
	public map[string]any
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newEd25519(t testing.TB, kid string) key {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{jwt.SigningMethodEdDSA, private, map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(public)}}
}

func newP256(t testing.TB, kid string) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return key{jwt.SigningMethodES256, private, map[string]any{
		"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:]),
	}}
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSA(t testing.TB, kid string) key {
	t.Helper()
	private, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	return key{jwt.SigningMethodRS256, private, map[string]any{
		"kty": "RSA", "kid": kid, "n": b64(private.N.Bytes()), "e": b64(big.NewInt(int64(private.E)).Bytes()),
	}}
}

func keysFile(t testing.TB, keys ...key) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeKeys(t, path, authNow, keys...)
	return path
}

func writeKeys(t testing.TB, path string, modified time.Time, keys ...key) {
	t.Helper()
	public := []any{}
	for _, k := range keys {
		public = append(public, k.public)
	}
	data, err := json.Marshal(map[string]any{"keys": public})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, modified, data)
}

func writeFile(t testing.TB, path string, modified time.Time, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, modified, modified); err != nil {
		t.Fatal(err)
	}
}

func newAuth(t testing.TB, o ingest.AuthOptions) *ingest.Auth {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return authNow }
	}
	a, err := ingest.NewAuth(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// claims returns good claims with some changed; nil takes one away.
func claims(changed map[string]any) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "u-1", "exp": authNow.Add(time.Minute).Unix()}
	for name, value := range changed {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

func mint(t testing.TB, method jwt.SigningMethod, signWith any, header, changed map[string]any) []byte {
	t.Helper()
	token := jwt.NewWithClaims(method, claims(changed))
	for name, value := range header {
		if value == nil {
			delete(token.Header, name)
		} else {
			token.Header[name] = value
		}
	}
	signed, err := token.SignedString(signWith)
	if err != nil {
		t.Fatal(err)
	}
	return []byte("Bearer " + signed)
}

// wantRefusal holds that nobody is let in, that the answer is 401, and that the
// reason quotes nothing of the token.
func wantRefusal(t *testing.T, a *ingest.Auth, authorization []byte, reason string) {
	t.Helper()
	identity, err := a.Buyer(authorization)
	if !errors.Is(err, ingest.ErrUnauthorized) {
		t.Fatalf("Buyer: got %+v, %v; want unauthorized", identity, err)
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("Buyer: got reason %q, want one with %q", err, reason)
	}
	if actor, err := a.Admin(authorization); !errors.Is(err, ingest.ErrUnauthorized) {
		t.Errorf("Admin: got %q, %v; want unauthorized", actor, err)
	}
	for _, part := range strings.FieldsFunc(string(authorization), func(r rune) bool { return r == ' ' || r == '.' }) {
		if len(part) >= 16 && strings.Contains(err.Error(), part) {
			t.Errorf("the reason %q quotes the token", err)
		}
	}
}

// Ensure a good token of each algorithm names its buyer.
func TestAuth_Buyer(t *testing.T) {
	ed, p256, rs := newEd25519(t, "ed"), newP256(t, "p256"), newRSA(t, "rs")
	a := newAuth(t, ingest.AuthOptions{Secret: authSecret, JWKSFile: keysFile(t, ed, p256, rs)})
	hs := key{jwt.SigningMethodHS256, authSecret, map[string]any{"kid": nil}}

	for _, k := range []key{hs, ed, p256, rs} {
		t.Run(k.method.Alg(), func(t *testing.T) {
			for _, header := range []map[string]any{{"kid": k.public["kid"]}, {}, {"typ": nil}, {"typ": "at+jwt"}} {
				got, err := a.Buyer(mint(t, k.method, k.sign, header, nil))
				if err != nil || got != (ingest.Identity{Buyer: "u-1"}) {
					t.Errorf("header %v: got %+v, %v", header, got, err)
				}
			}
		})
	}

	t.Run("AnyCaseOfBearer", func(t *testing.T) {
		good := mint(t, jwt.SigningMethodHS256, authSecret, nil, nil)
		for _, scheme := range []string{"bearer ", "BEARER ", "Bearer   "} {
			if _, err := a.Buyer(append([]byte(scheme), good[len("Bearer "):]...)); err != nil {
				t.Errorf("%q: %v", scheme, err)
			}
		}
	})
	t.Run("Open", func(t *testing.T) {
		open := newAuth(t, ingest.AuthOptions{})
		if got, err := open.Buyer([]byte("Bearer whatever")); !open.Open() || err != nil || got != (ingest.Identity{}) {
			t.Errorf("got %v, %+v, %v", open.Open(), got, err)
		}
		if a.Open() {
			t.Error("an Auth with keys says it is open")
		}
	})
}

// Fault list, S1 to S3 and S5: each of these tokens is refused.
func TestAuth_Refuses(t *testing.T) {
	ed, other, p256, rs := newEd25519(t, "ed"), newEd25519(t, "ed"), newP256(t, "p256"), newRSA(t, "rs")
	options := ingest.AuthOptions{
		Secret: authSecret, JWKSFile: keysFile(t, ed, p256, rs),
		Audience: "floodgate", Issuer: "https://id.example", AdminToken: "the-admin-token-of-this-test",
	}
	a := newAuth(t, options)
	rsPublic, err := json.Marshal(rs.public)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]any{"aud": "floodgate", "iss": "https://id.example"}
	with := func(name string, value any) map[string]any {
		c := map[string]any{name: value}
		for n, v := range ours {
			if _, ok := c[n]; !ok {
				c[n] = v
			}
		}
		return c
	}
	hs := func(header, changed map[string]any) []byte {
		return mint(t, jwt.SigningMethodHS256, authSecret, header, changed)
	}
	raw := func(header, payload, signature string) []byte {
		return []byte("Bearer " + b64([]byte(header)) + "." + b64([]byte(payload)) + "." + signature)
	}
	payload := fmt.Sprintf(`{"sub":"u-1","aud":"floodgate","iss":"https://id.example","exp":%d}`, authNow.Add(time.Minute).Unix())
	good := hs(nil, ours)
	if _, err := a.Buyer(good); err != nil {
		t.Fatalf("the token all others differ from: %v", err)
	}
	parts := strings.Split(string(good), ".")

	for _, row := range []struct {
		name          string
		authorization []byte
		reason        string
	}{
		{"S1 alg none", raw(`{"alg":"none","typ":"JWT"}`, payload, ""), "algorithm"},
		{"S1 alg None", raw(`{"alg":"None"}`, payload, ""), "algorithm"},
		{"S1 alg NONE, our signature", raw(`{"alg":"NONE"}`, payload, parts[2]), "algorithm"},
		{"S1 alg absent", raw(`{"typ":"JWT"}`, payload, parts[2]), "algorithm"},
		{"S1 alg not a string", raw(`{"alg":["HS256"]}`, payload, parts[2]), "algorithm"},
		{"S1 empty signature", []byte(parts[0] + "." + parts[1] + "."), "signature"},
		{"S1 signature of another token", []byte(parts[0] + "." + b64([]byte(strings.Replace(payload, "u-1", "u-2", 1))) + "." + parts[2]), "signature"},
		{"S2 HS256 with the RSA key as secret", mint(t, jwt.SigningMethodHS256, rsPublic, map[string]any{"kid": "rs"}, ours), "signature"},
		{"S2 HS384 with our secret", mint(t, jwt.SigningMethodHS384, authSecret, nil, ours), "algorithm"},
		{"S2 PS256 with our RSA key", mint(t, jwt.SigningMethodPS256, rs.sign, map[string]any{"kid": "rs"}, ours), "algorithm"},
		{"S2 RS256 that names an Ed25519 key", mint(t, jwt.SigningMethodRS256, rs.sign, map[string]any{"kid": "ed"}, ours), "key that is not known"},
		{"S2 another key under our kid", mint(t, jwt.SigningMethodEdDSA, other.sign, map[string]any{"kid": "ed"}, ours), "signature"},
		{"S2 kid of another case", mint(t, jwt.SigningMethodEdDSA, ed.sign, map[string]any{"kid": "ED"}, ours), "key that is not known"},
		{"S2 kid empty", mint(t, jwt.SigningMethodEdDSA, ed.sign, map[string]any{"kid": ""}, ours), "key that is not known"},
		{"S2 kid a number", mint(t, jwt.SigningMethodEdDSA, ed.sign, map[string]any{"kid": 1}, ours), "header"},
		{"S2 kid a path", hs(map[string]any{"kid": "../../../../dev/null"}, ours), "header"},
		{"S2 kid a query", hs(map[string]any{"kid": "x' UNION SELECT 'secret"}, ours), "header"},
		{"S2 jku", hs(map[string]any{"jku": "http://127.0.0.1:1/keys"}, ours), "header"},
		{"S2 x5u", hs(map[string]any{"x5u": "http://127.0.0.1:1/cert"}, ours), "header"},
		{"S2 jwk", mint(t, jwt.SigningMethodEdDSA, other.sign, map[string]any{"jwk": other.public}, ours), "header"},
		{"S2 crit", hs(map[string]any{"crit": []string{"exp"}}, ours), "header"},
		{"S3 expired", hs(nil, with("exp", authNow.Add(-31*time.Second).Unix())), "expired"},
		{"S3 expired by the leeway", hs(nil, with("exp", authNow.Add(-ingest.DefaultLeeway).Unix())), "expired"},
		{"S3 nbf in the future", hs(nil, with("nbf", authNow.Add(31*time.Second).Unix())), "not valid yet"},
		{"S3 no exp", hs(nil, with("exp", nil)), "expiry"},
		{"S3 exp a string", hs(nil, with("exp", "tomorrow")), "claims"},
		{"S3 exp 0", hs(nil, with("exp", 0)), "expiry"},
		{"S3 wrong iss", hs(nil, with("iss", "https://evil.example")), "issuer"},
		{"S3 no iss", hs(nil, map[string]any{"aud": "floodgate"}), ""},
		{"S3 wrong aud", hs(nil, with("aud", "another")), "audience"},
		{"S3 no aud", hs(nil, map[string]any{"iss": "https://id.example"}), ""},
		{"S3 typ of another kind", hs(map[string]any{"typ": "logout+jwt"}, ours), "header"},
		{"S3 typ not a string", hs(map[string]any{"typ": 1}, ours), "header"},
		{"S3 sub absent", hs(nil, with("sub", nil)), "subject"},
		{"S3 sub empty", hs(nil, with("sub", "")), "subject"},
		{"S3 sub a number", hs(nil, with("sub", 7)), "subject"},
		{"S3 sub of 65 bytes", hs(nil, with("sub", strings.Repeat("u", 65))), "subject"},
		{"S3 sub of 10 KB", hs(nil, with("sub", strings.Repeat("u", 10<<10))), "longer"},
		{"S3 sub with a line break", hs(nil, with("sub", "u\r\nx: y")), "subject"},
		{"S3 role a list", hs(nil, with("role", []string{"admin"})), "role"},
		{"S5 no header", nil, "needed"},
		{"S5 no token", []byte("Bearer "), "needed"},
		{"S5 only the scheme", []byte("Bearer"), "form"},
		{"S5 another scheme", []byte("Basic YWRtaW46YWRtaW4="), "form"},
		{"S5 two tokens in one header", append(append([]byte{}, good...), ", "+string(good)...), "not a JWT"},
		{"S5 9 KB", []byte("Bearer " + strings.Repeat("a", 9<<10)), "longer"},
		{"S5 100 k dots", []byte("Bearer " + strings.Repeat(".", 100_000)), "longer"},
		{"S5 4096 dots", []byte("Bearer " + strings.Repeat(".", 4096)), "not a JWT"},
		{"S5 two dots", []byte("Bearer .."), "not a JWT"},
		{"S5 header no JSON", []byte("Bearer YQ.YQ.YQ"), "not a JWT"},
		{"S5 padding", []byte(parts[0] + "=." + parts[1] + "." + parts[2]), "not a JWT"},
		{"S5 NUL", append(append([]byte{}, good...), 0), "not a JWT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			wantRefusal(t, a, row.authorization, row.reason)
			wantRefusal(t, a, row.authorization, row.reason) // and nothing of it was remembered
		})
	}

	t.Run("S2 RS256 where only a secret is configured", func(t *testing.T) {
		a := newAuth(t, ingest.AuthOptions{Secret: authSecret})
		wantRefusal(t, a, mint(t, jwt.SigningMethodRS256, rs.sign, nil, nil), "algorithm")
	})
	t.Run("S2 HS256 where only keys are configured", func(t *testing.T) {
		a := newAuth(t, ingest.AuthOptions{JWKSFile: keysFile(t, ed)})
		wantRefusal(t, a, mint(t, jwt.SigningMethodHS256, []byte(ed.sign.(ed25519.PrivateKey).Public().(ed25519.PublicKey)), nil, nil), "algorithm")
		wantRefusal(t, a, mint(t, jwt.SigningMethodHS256, []byte{}, nil, nil), "algorithm")
	})
	t.Run("S2 no kid where several keys fit", func(t *testing.T) {
		second := newEd25519(t, "ed2")
		a := newAuth(t, ingest.AuthOptions{JWKSFile: keysFile(t, ed, second)})
		wantRefusal(t, a, mint(t, jwt.SigningMethodEdDSA, ed.sign, nil, nil), "key that is not known")
	})
	t.Run("S3 a fresh token is accepted until the leeway is over", func(t *testing.T) {
		if _, err := a.Buyer(hs(nil, with("exp", authNow.Add(-ingest.DefaultLeeway+time.Second).Unix()))); err != nil {
			t.Error(err)
		}
	})
}

// Fault list, S4 and S7: a bad configuration is refused, and every fault of it
// named at once, none of them quoting a secret.
func TestNewAuth_Faults(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.json")
	private := newEd25519(t, "x")
	private.public["d"] = b64(private.sign.(ed25519.PrivateKey).Seed())
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		options ingest.AuthOptions
		fields  []string
	}{
		{"secret of 31 bytes", ingest.AuthOptions{Secret: authSecret[:31]}, []string{"Secret"}},
		{"secret of jwt.io", ingest.AuthOptions{Secret: []byte("a-string-secret-at-least-256-bits-long")}, []string{"Secret"}},
		{"changeme, until it was long enough", ingest.AuthOptions{Secret: []byte("changeme-changeme-changeme-changeme")}, []string{"Secret"}},
		{"leeway of a minute", ingest.AuthOptions{Leeway: time.Minute}, []string{"Leeway"}},
		{"admin token with a space", ingest.AuthOptions{AdminToken: "a b"}, []string{"AdminToken"}},
		{"no keys file", ingest.AuthOptions{JWKSFile: missing}, []string{"JWKSFile"}},
		{"a private key in the file", ingest.AuthOptions{JWKSFile: keysFile(t, private)}, []string{"JWKSFile"}},
		{"a shared secret in the file", ingest.AuthOptions{JWKSFile: keysFile(t, key{public: map[string]any{"kty": "oct", "k": b64(authSecret)}})}, []string{"JWKSFile"}},
		{"RSA of 1024 bits", ingest.AuthOptions{JWKSFile: keysFile(t, key{public: map[string]any{"kty": "RSA", "n": b64(small.N.Bytes()), "e": "AQAB"}})}, []string{"JWKSFile"}},
		{"a point not on the curve", ingest.AuthOptions{JWKSFile: keysFile(t, key{public: map[string]any{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}})}, []string{"JWKSFile"}},
		{"no usable key", ingest.AuthOptions{JWKSFile: keysFile(t, key{public: map[string]any{"kty": "RSA", "alg": "RS512"}})}, []string{"JWKSFile"}},
		{"two keys of one name", ingest.AuthOptions{JWKSFile: keysFile(t, newEd25519(t, "a"), newEd25519(t, "a"))}, []string{"JWKSFile"}},
		{"all at once", ingest.AuthOptions{Secret: []byte("short-but-private"), Leeway: -1, CacheSize: -1, AdminToken: "\n", JWKSFile: missing},
			[]string{"Secret", "Leeway", "CacheSize", "AdminToken", "JWKSFile"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := ingest.NewAuth(row.options)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, field := range row.fields {
				if !strings.Contains(err.Error(), field+": ") {
					t.Errorf("%q does not name %s", err, field)
				}
			}
			for _, secret := range []string{string(row.options.Secret), b64(authSecret)} {
				if secret != "" && strings.Contains(err.Error(), secret) {
					t.Errorf("%q quotes a secret", err)
				}
			}
		})
	}
}

// Fault list, S6: the admin API opens to the admin token and to a JWT with the
// role, and to nothing that is nearly one of them.
func TestAuth_Admin(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	a := newAuth(t, ingest.AuthOptions{Secret: authSecret, AdminToken: token})
	admin := mint(t, jwt.SigningMethodHS256, authSecret, nil, map[string]any{"sub": "root-1", "role": "admin"})
	buyer := mint(t, jwt.SigningMethodHS256, authSecret, nil, nil)
	expired := mint(t, jwt.SigningMethodHS256, authSecret, nil, map[string]any{"role": "admin", "exp": authNow.Add(-time.Hour).Unix()})

	for _, row := range []struct {
		name, authorization, actor string
		err                        error
	}{
		{"admin token", "Bearer " + token, "admin-token", nil},
		{"JWT with the role", string(admin), "root-1", nil},
		{"JWT of a buyer", string(buyer), "", ingest.ErrForbidden},
		{"JWT with the role, expired", string(expired), "", ingest.ErrUnauthorized},
		{"absent", "", "", ingest.ErrUnauthorized},
		{"empty", "Bearer ", "", ingest.ErrUnauthorized},
		{"prefix", "Bearer " + token[:31], "", ingest.ErrUnauthorized},
		{"one more", "Bearer " + token + "0", "", ingest.ErrUnauthorized},
		{"another case", "Bearer " + strings.ToUpper(token), "", ingest.ErrUnauthorized},
		{"without scheme", token, "", ingest.ErrUnauthorized},
	} {
		t.Run(row.name, func(t *testing.T) {
			actor, err := a.Admin([]byte(row.authorization))
			if actor != row.actor || !errors.Is(err, row.err) {
				t.Errorf("got %q, %v; want %q, %v", actor, err, row.actor, row.err)
			}
		})
	}

	t.Run("RoleOfOtherSpelling", func(t *testing.T) {
		for _, changed := range []map[string]any{{"role": "Admin"}, {"Role": "admin"}, {"ROLE": "admin"}, {"role": ""}} {
			if actor, err := a.Admin(mint(t, jwt.SigningMethodHS256, authSecret, nil, changed)); !errors.Is(err, ingest.ErrForbidden) {
				t.Errorf("%v: got %q, %v", changed, actor, err)
			}
		}
	})
	t.Run("NoTokenConfigured", func(t *testing.T) {
		// The hash of nothing is a hash too: it must open nothing.
		open := newAuth(t, ingest.AuthOptions{})
		for _, guess := range []string{"", "Bearer ", "Bearer  ", "Bearer x"} {
			if actor, err := open.Admin([]byte(guess)); !errors.Is(err, ingest.ErrUnauthorized) {
				t.Errorf("%q: got %q, %v", guess, actor, err)
			}
		}
	})
}

// Ensure a remembered token is refused once it expired, and that forgetting it
// changes nothing.
func TestAuth_Cache(t *testing.T) {
	var offset atomic.Int64
	now := func() time.Time { return authNow.Add(time.Duration(offset.Load())) }

	t.Run("HonoursExpiry", func(t *testing.T) {
		a := newAuth(t, ingest.AuthOptions{Secret: authSecret, AdminToken: "t", Now: now})
		token := mint(t, jwt.SigningMethodHS256, authSecret, nil, map[string]any{"role": "admin"})
		for _, row := range []struct {
			after time.Duration
			valid bool
		}{
			{0, true}, {time.Minute, true}, {time.Minute + ingest.DefaultLeeway - 1, true},
			{time.Minute + ingest.DefaultLeeway, false}, {time.Hour, false},
		} {
			offset.Store(int64(row.after))
			if _, err := a.Buyer(token); (err == nil) != row.valid {
				t.Errorf("buyer after %v: %v", row.after, err)
			}
			if _, err := a.Admin(token); (err == nil) != row.valid {
				t.Errorf("admin after %v: %v", row.after, err)
			}
		}
	})
	t.Run("ManyTokensInFewSlots", func(t *testing.T) {
		a := newAuth(t, ingest.AuthOptions{Secret: authSecret, CacheSize: 4})
		var tokens [][]byte
		for i := range 64 {
			tokens = append(tokens, mint(t, jwt.SigningMethodHS256, authSecret, nil, map[string]any{"sub": fmt.Sprintf("u-%d", i)}))
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 5 {
					for i, token := range tokens {
						if got, err := a.Buyer(token); err != nil || got.Buyer != fmt.Sprintf("u-%d", i) {
							t.Errorf("token of u-%d: got %+v, %v", i, got, err)
						}
					}
				}
			})
		}
		group.Wait()
	})
	t.Run("DoesNotKeepTheCallersBytes", func(t *testing.T) {
		a := newAuth(t, ingest.AuthOptions{Secret: authSecret})
		token := mint(t, jwt.SigningMethodHS256, authSecret, nil, nil)
		buffer := append([]byte{}, token...)
		got, err := a.Buyer(buffer)
		if err != nil {
			t.Fatal(err)
		}
		for i := range buffer {
			buffer[i] = 'x'
		}
		if again, err := a.Buyer(token); err != nil || again != got || got.Buyer != "u-1" {
			t.Errorf("got %+v and %+v, %v", got, again, err)
		}
	})
}

// Ensure the keys follow the file, and that a broken file locks nobody out.
func TestAuth_Reload(t *testing.T) {
	var offset atomic.Int64
	var told []error
	first, second := newEd25519(t, "first"), newEd25519(t, "second")
	path := keysFile(t, first)
	a := newAuth(t, ingest.AuthOptions{
		JWKSFile: path,
		Now:      func() time.Time { return authNow.Add(time.Duration(offset.Load())) },
		OnReload: func(err error) { told = append(told, err) },
	})
	long := map[string]any{"exp": authNow.Add(time.Hour).Unix()}
	byFirst := mint(t, jwt.SigningMethodEdDSA, first.sign, map[string]any{"kid": "first"}, long)
	bySecond := mint(t, jwt.SigningMethodEdDSA, second.sign, map[string]any{"kid": "second"}, long)
	want := func(step string, firstValid, secondValid bool, reloads int) {
		t.Helper()
		_, err1 := a.Buyer(byFirst)
		_, err2 := a.Buyer(bySecond)
		if (err1 == nil) != firstValid || (err2 == nil) != secondValid || len(told) != reloads {
			t.Fatalf("%s: first %v, second %v, told %v", step, err1, err2, told)
		}
	}
	later := func(d time.Duration) { offset.Add(int64(d)) }

	want("at the start", true, false, 0)
	writeKeys(t, path, authNow.Add(1*time.Second), second)
	want("within the second", true, false, 0)
	later(time.Second)
	want("after it: the old key is revoked, remembered tokens included", false, true, 1)
	later(time.Second)
	want("nothing changed", false, true, 1)

	writeFile(t, path, authNow.Add(2*time.Second), []byte(`{"keys":[`))
	later(time.Second)
	want("a broken file", false, true, 2)
	if told[1] == nil {
		t.Error("a broken file was reported as fine")
	}
	later(time.Second)
	want("told once", false, true, 2)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	later(time.Second)
	want("no file", false, true, 3)
	if told[2] == nil {
		t.Error("a missing file was reported as fine")
	}
	later(time.Second)
	want("told once", false, true, 3)

	writeKeys(t, path, authNow.Add(3*time.Second), first, second)
	later(time.Second)
	want("repaired", true, true, 4)
	if told[3] != nil {
		t.Errorf("a good file was reported: %v", told[3])
	}
}

// Ensure keys verify nothing but signatures of their own algorithm, whatever
// the file says of them.
func TestAuth_KeysForOtherUses(t *testing.T) {
	good := newEd25519(t, "good")
	encryption := newEd25519(t, "enc")
	encryption.public["use"] = "enc"
	p384 := key{public: map[string]any{"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}}
	a := newAuth(t, ingest.AuthOptions{JWKSFile: keysFile(t, good, encryption, p384)})
	if _, err := a.Buyer(mint(t, jwt.SigningMethodEdDSA, good.sign, map[string]any{"kid": "good"}, nil)); err != nil {
		t.Error(err)
	}
	wantRefusal(t, a, mint(t, jwt.SigningMethodEdDSA, encryption.sign, map[string]any{"kid": "enc"}, nil), "key that is not known")
}

func BenchmarkAuth_Buyer(b *testing.B) {
	for _, k := range []key{{jwt.SigningMethodHS256, authSecret, nil}, newEd25519(b, "k"), newP256(b, "k"), newRSA(b, "k")} {
		for _, hit := range []bool{true, false} {
			b.Run(fmt.Sprintf("alg=%s/hit=%v", k.method.Alg(), hit), func(b *testing.B) {
				var o ingest.AuthOptions
				if o.Secret = authSecret; k.public != nil {
					o.JWKSFile = keysFile(b, k)
				}
				o.Now = time.Now
				exp := map[string]any{"exp": time.Now().Add(time.Hour).Unix()}
				a := newAuth(b, o)
				one, other := mint(b, k.method, k.sign, nil, exp), []byte(nil)
				if !hit {
					// One pair of slots, and more tokens than fit into it.
					o.CacheSize = 1
					a = newAuth(b, o)
					exp["sub"] = "u-2"
					other = mint(b, k.method, k.sign, nil, exp)
					exp["sub"] = "u-3"
				}
				third := mint(b, k.method, k.sign, nil, exp)
				tokens := [][]byte{one, other, third}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					token := one
					if !hit {
						token = tokens[i%3]
					}
					if _, err := a.Buyer(token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// The hit path of a verified token allocates nothing.
func TestAuth_HitDoesNotAllocate(t *testing.T) {
	a := newAuth(t, ingest.AuthOptions{Secret: authSecret, AdminToken: "the-admin-token"})
	token := mint(t, jwt.SigningMethodHS256, authSecret, nil, nil)
	wrong := []byte("Bearer not-a-token")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.Buyer(token); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Admin([]byte("Bearer the-admin-token")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Buyer(wrong); err == nil {
			t.Fatal("accepted")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
