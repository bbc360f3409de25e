package ingest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Who asks. Errors of Buyer and Admin are one of these two underneath; their
// text is a sentence fit for the problem's detail and never holds any part of
// a token.
var (
	// ErrUnauthorized: we do not know who asks. 401.
	ErrUnauthorized = errors.New("ingest: unauthorized")
	// ErrForbidden: we know who asks, and it is not theirs to do. 403.
	ErrForbidden = errors.New("ingest: forbidden")
)

// RoleAdmin is the value of a token's "role" that opens the admin API.
const RoleAdmin = "admin"

const (
	// DefaultLeeway is how far an issuer's clock may be off.
	DefaultLeeway = 5 * time.Second
	// MaxLeeway bounds how long an expired token stays useful.
	MaxLeeway = 30 * time.Second
	// MinSecret is the fewest bytes of an HS256 secret: as many as its hash has
	// (RFC 7518, 3.2).
	MinSecret = 32

	defaultCacheSize = 1 << 16
	maxCacheSize     = 1 << 24
	maxToken         = 4 << 10 // longer is refused unread
	maxCachedToken   = 1 << 10 // longer is verified each time, so the cache stays small
	reloadEvery      = time.Second
)

// AuthOptions say who may buy and who may administrate.
type AuthOptions struct {
	// Secret verifies HS256 tokens. Empty: none are accepted.
	Secret []byte

	// JWKSFile is a JSON Web Key Set (RFC 7517) with the public keys of EdDSA,
	// ES256 and RS256 tokens. It is read again when its modification time
	// changes. Empty: no such tokens are accepted.
	JWKSFile string

	// Audience and Issuer must be a token's "aud" and "iss". Empty: not checked.
	Audience string
	Issuer   string

	// AdminToken opens the admin API to whoever bears it. Empty: only a JWT
	// with the role does.
	AdminToken string

	// Leeway is how far an issuer's clock may be off. Zero: DefaultLeeway.
	Leeway time.Duration

	// Now is the clock. Nil: time.Now.
	Now func() time.Time

	// CacheSize is how many verified tokens are remembered. Zero: 65,536.
	CacheSize int

	// OnReload is told of each reading of a changed JWKSFile: nil when the new
	// keys are in force, an error when the old ones stay. Nil: nobody is told.
	OnReload func(error)
}

// OptionFault is one thing wrong with AuthOptions. It names the field, and no
// secret.
type OptionFault struct {
	Field  string
	Reason string
}

func (f *OptionFault) Error() string { return f.Field + ": " + f.Reason }

// Validate reports every fault at once, joined.
func (o AuthOptions) Validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &OptionFault{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	switch {
	case len(o.Secret) == 0:
	case len(o.Secret) < MinSecret:
		fault("Secret", "has %d bytes, an HS256 secret needs %d or more", len(o.Secret), MinSecret)
	case publishedSecret(o.Secret):
		fault("Secret", "is a published example; anybody can sign with it")
	}
	if o.Leeway < 0 || o.Leeway > MaxLeeway {
		fault("Leeway", "is %v, must be between 0 and %v", o.Leeway, MaxLeeway)
	}
	if o.CacheSize < 0 || o.CacheSize > maxCacheSize {
		fault("CacheSize", "is %d, must be between 0 and %d", o.CacheSize, maxCacheSize)
	}
	if len(o.AdminToken) > maxToken {
		fault("AdminToken", "has %d bytes, at most %d are read from a request", len(o.AdminToken), maxToken)
	}
	if i := strings.IndexFunc(o.AdminToken, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
		fault("AdminToken", "has a character at position %d that a header cannot carry; use printable ASCII without spaces", i)
	}
	return errors.Join(faults...)
}

// publishedSecret reports whether the secret stands in a tutorial, or is a
// well-known word repeated until it was long enough.
func publishedSecret(secret []byte) bool {
	s := strings.ToLower(string(secret))
	for _, known := range []string{
		"a-string-secret-at-least-256-bits-long", // jwt.io
		"your-256-bit-secret", "your-384-bit-secret", "your-512-bit-secret",
		"your-secret-key", "your_secret_key", "your_jwt_secret", "your-jwt-secret", "my-secret-key",
		"supersecret", "super-secret", "super_secret", "secret", "password", "passw0rd", "admin",
		"changeme", "change-me", "change_me", "changeit", "default", "example", "floodgate", "test",
	} {
		for rest := s; ; {
			cut, ok := strings.CutPrefix(rest, known)
			if !ok {
				break
			}
			if rest = strings.TrimLeft(cut, "-_. "); rest == "" {
				return true
			}
		}
	}
	return false
}

// Identity is who asks.
type Identity struct {
	Buyer string // the token's "sub"; empty in open mode
	Role  string // the token's "role"; empty for a buyer
}

// Auth knows who asks. All of its methods may be called at once.
//
// A token is verified once and then found in a cache by its exact bytes, so a
// buyer who asks again costs a lookup and not a signature. What a hit must
// still prove is that the token has not expired since and that the key which
// signed it has not been taken out of the JWKS file.
type Auth struct {
	open     bool
	secret   []byte
	leeway   time.Duration
	now      func() time.Time
	parser   *jwt.Parser
	admin    bool
	adminSum [sha256.Size]byte
	cache    tokenCache

	jwksFile  string
	onReload  func(error)
	keys      atomic.Pointer[keySet]
	nextCheck atomic.Int64 // Unix nanoseconds
	reloading sync.Mutex
	seen      fileVersion // under reloading
}

// NewAuth returns who knows the buyers that the options describe. All faults
// are named at once.
func NewAuth(o AuthOptions) (*Auth, error) {
	err := o.Validate()
	a := &Auth{
		open:     len(o.Secret) == 0 && o.JWKSFile == "",
		secret:   bytes.Clone(o.Secret),
		leeway:   o.Leeway,
		now:      o.Now,
		admin:    o.AdminToken != "",
		adminSum: sha256.Sum256([]byte(o.AdminToken)),
		jwksFile: o.JWKSFile,
		onReload: o.OnReload,
	}
	if a.leeway == 0 {
		a.leeway = DefaultLeeway
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.onReload == nil {
		a.onReload = func(error) {}
	}
	a.keys.Store(&keySet{})

	var methods []string
	if len(a.secret) > 0 {
		methods = append(methods, jwt.SigningMethodHS256.Alg())
	}
	if a.jwksFile != "" {
		methods = append(methods, jwt.SigningMethodEdDSA.Alg(), jwt.SigningMethodES256.Alg(), jwt.SigningMethodRS256.Alg())
		keys, version, keysErr := readKeys(a.jwksFile)
		if keysErr != nil {
			err = errors.Join(err, &OptionFault{Field: "JWKSFile", Reason: keysErr.Error()})
		} else {
			a.keys.Store(keys)
			a.seen = version
		}
		a.nextCheck.Store(a.now().Add(reloadEvery).UnixNano())
	}
	if err != nil {
		return nil, err
	}

	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(a.leeway),
		jwt.WithTimeFunc(a.now),
		jwt.WithStrictDecoding(),
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	a.parser = jwt.NewParser(options...)

	size := o.CacheSize
	if size == 0 {
		size = defaultCacheSize
	}
	if !a.open {
		a.cache.init(size)
	}
	return a, nil
}

// Open reports whether buyers need no token.
func (a *Auth) Open() bool { return a.open }

// Buyer returns who asks. Authorization is the header's value; a request with
// two of them is the server's to refuse. In open mode nobody is named.
func (a *Auth) Buyer(authorization []byte) (Identity, error) {
	if a.open {
		return Identity{}, nil
	}
	token, err := bearer(authorization)
	if err != nil {
		return Identity{}, err
	}
	return a.verify(token)
}

// Admin returns who administrates: "admin-token" for the bearer of AdminToken,
// else the subject of a JWT with the role.
func (a *Auth) Admin(authorization []byte) (actor string, err error) {
	token, err := bearer(authorization)
	if err != nil {
		return "", err
	}
	// Hashes are compared, not tokens, so that neither the time this takes nor
	// an early length check tells how much of a guess was right.
	sum := sha256.Sum256(token)
	if subtle.ConstantTimeCompare(sum[:], a.adminSum[:]) == 1 && a.admin {
		return "admin-token", nil
	}
	if a.open {
		return "", errWrongAdminToken
	}
	identity, err := a.verify(token)
	if err != nil {
		return "", err
	}
	if identity.Role != RoleAdmin {
		return "", errNotAdmin
	}
	return identity.Buyer, nil
}

// authError is a refusal made once and handed out many times, so that a flood
// of bad tokens costs no allocation here.
type authError struct {
	kind   error
	detail string
}

func (e *authError) Error() string { return e.detail }
func (e *authError) Unwrap() error { return e.kind }

func unauthorized(detail string) error { return &authError{ErrUnauthorized, detail} }

var (
	errNoToken         = unauthorized("A bearer token is needed: Authorization: Bearer TOKEN.")
	errNotBearer       = unauthorized("The Authorization header is not of the form: Bearer TOKEN.")
	errTokenTooLong    = unauthorized("The token is longer than 4096 bytes.")
	errNotJWT          = unauthorized("The token is not a JWT.")
	errWrongAlgorithm  = unauthorized("The token is signed with an algorithm that is not accepted here.")
	errHeader          = unauthorized("The token's header has a field that is not accepted here.")
	errUnknownKey      = unauthorized("The token is signed with a key that is not known here.")
	errSignature       = unauthorized("The token's signature is wrong.")
	errExpired         = unauthorized("The token has expired.")
	errNoExpiry        = unauthorized("The token has no expiry, or one that is not a number.")
	errNotYetValid     = unauthorized("The token is not valid yet.")
	errAudience        = unauthorized("The token is meant for another audience.")
	errIssuer          = unauthorized("The token is of another issuer.")
	errSubject         = unauthorized("The token's subject is not 1 to 64 of A-Z a-z 0-9 . _ -.")
	errRole            = unauthorized("The token's role is not a string.")
	errClaims          = unauthorized("The token's claims cannot be read.")
	errWrongAdminToken = unauthorized("The admin token is wrong.")
	errNotAdmin        = error(&authError{ErrForbidden, "The token does not bear the role admin."})
)

// bearer returns the token of an Authorization header (RFC 6750, 2.1).
func bearer(authorization []byte) ([]byte, error) {
	const scheme = "bearer "
	if len(authorization) == 0 {
		return nil, errNoToken
	}
	if len(authorization) < len(scheme) || !bytes.EqualFold(authorization[:len(scheme)], []byte(scheme)) {
		return nil, errNotBearer
	}
	token := bytes.TrimLeft(authorization[len(scheme):], " ")
	switch {
	case len(token) == 0:
		return nil, errNoToken
	case len(token) > maxToken:
		return nil, errTokenTooLong
	}
	return token, nil
}

// verify returns who the token names, from the cache where it can.
func (a *Auth) verify(token []byte) (Identity, error) {
	now := a.now()
	if a.jwksFile != "" && now.UnixNano() >= a.nextCheck.Load() {
		a.reload(now)
	}
	keys := a.keys.Load()
	hash := maphash.Bytes(a.cache.seed, token)
	if hit := a.cache.find(hash, token, keys); hit != nil {
		if now.Add(-a.leeway).Unix() >= hit.expires {
			return Identity{}, errExpired
		}
		return hit.identity, nil
	}
	// Only base64url and two dots: what else a token may hold is no business of
	// a parser.
	if !compact(token) {
		return Identity{}, errNotJWT
	}

	parsed, err := a.parser.Parse(string(token), func(t *jwt.Token) (any, error) { return a.key(t, keys) })
	if err != nil {
		return Identity{}, refusal(err)
	}
	claims := parsed.Claims.(jwt.MapClaims)
	subject, err := claims.GetSubject()
	if err != nil || !validSubject(subject) {
		return Identity{}, errSubject
	}
	role := ""
	if raw, ok := claims["role"]; ok {
		if role, ok = raw.(string); !ok {
			return Identity{}, errRole
		}
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return Identity{}, errNoExpiry
	}
	identity := Identity{Buyer: strings.Clone(subject), Role: strings.Clone(role)}
	if len(token) <= maxCachedToken {
		a.cache.keep(&cachedToken{
			hash: hash, token: string(token), identity: identity, expires: expires.Unix(), keys: keys,
		}, now.Unix())
	}
	return identity, nil
}

// key returns the key that must have signed the token. It is chosen by what we
// were configured with, never by what the token brings along: a header may name
// a key (kid), and may not carry one or say where to fetch it (RFC 8725, 3.10).
func (a *Auth) key(t *jwt.Token, keys *keySet) (any, error) {
	for _, field := range [...]string{"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"} {
		if _, ok := t.Header[field]; ok {
			return nil, errHeader
		}
	}
	if typ, ok := t.Header["typ"]; ok {
		// Another kind of token, signed with the same key for another purpose,
		// must not pass for one of ours (RFC 8725, 3.11).
		switch name, _ := typ.(string); strings.ToLower(name) {
		case "jwt", "at+jwt", "application/at+jwt":
		default:
			return nil, errHeader
		}
	}
	kid, named := "", false
	if raw, ok := t.Header["kid"]; ok {
		if kid, named = raw.(string); !named {
			return nil, errHeader
		}
	}
	if t.Method == jwt.SigningMethodHS256 {
		// There is one secret, so a name has nothing to choose. It is looked at
		// all the same: one that is a path or a query is an attack.
		if named && !validSubject(kid) {
			return nil, errHeader
		}
		return a.secret, nil
	}
	key := keys.find(t.Method.Alg(), kid, named)
	if key == nil {
		return nil, errUnknownKey
	}
	return key, nil
}

// refusal tells the caller what was wrong, in our words: the parser's own
// errors may quote the token.
func refusal(err error) error {
	var ours *authError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		// The parser says this of an algorithm it was not told to accept, too.
		if strings.Contains(err.Error(), "signing method") {
			return errWrongAlgorithm
		}
		return errSignature
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return errWrongAlgorithm
	case errors.Is(err, jwt.ErrTokenMalformed):
		return errNotJWT
	case errors.Is(err, jwt.ErrTokenExpired):
		return errExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return errNotYetValid
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return errAudience
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return errIssuer
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return errNoExpiry
	}
	return errClaims
}

// compact reports whether the token is three parts of base64url.
func compact(token []byte) bool {
	dots := 0
	for _, c := range token {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		case c == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2
}

// validSubject reports whether s can be a buyer's id.
func validSubject(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// tokenCache remembers verified tokens. It is a table of pairs of slots: a
// token's hash chooses the pair, its bytes must be equal to be found. Nothing is
// locked and nothing grows; a newcomer takes the slot that expires first. The
// hash is seeded at random, so nobody can choose tokens that share a pair.
type tokenCache struct {
	seed  maphash.Seed
	mask  uint64
	slots []atomic.Pointer[cachedToken]
}

// cachedToken is immutable.
type cachedToken struct {
	hash     uint64
	token    string
	identity Identity
	expires  int64   // Unix seconds
	keys     *keySet // that verified it; others vouch for nothing
}

func (c *tokenCache) init(size int) {
	pairs := 1
	for pairs*2 < size {
		pairs *= 2
	}
	c.seed = maphash.MakeSeed()
	c.mask = uint64(pairs - 1)
	c.slots = make([]atomic.Pointer[cachedToken], pairs*2)
}

func (c *tokenCache) find(hash uint64, token []byte, keys *keySet) *cachedToken {
	pair := c.slots[hash&c.mask*2:][:2]
	for i := range pair {
		t := pair[i].Load()
		if t != nil && t.hash == hash && t.keys == keys && t.token == string(token) {
			return t
		}
	}
	return nil
}

func (c *tokenCache) keep(t *cachedToken, now int64) {
	pair := c.slots[t.hash&c.mask*2:][:2]
	victim := &pair[0]
	first, second := pair[0].Load(), pair[1].Load()
	switch {
	case first == nil || first.expires <= now || first.keys != t.keys || first.token == t.token:
	case second == nil || second.expires < first.expires || second.keys != t.keys || second.token == t.token:
		victim = &pair[1]
	}
	victim.Store(t)
}
