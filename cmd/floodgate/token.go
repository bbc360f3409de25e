package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"floodgate/ingest"
)

// tokenCommand mints a JWT that serve accepts when it has the same secret.
type tokenCommand struct {
	secretFlag
	Sub  string   `default:"u-1" placeholder:"ID" help:"Whom the token names. Default: u-1"`
	Role string   `placeholder:"ROLE" help:"admin opens the admin API. Default: none, a buyer"`
	TTL  duration `name:"ttl" default:"1h" placeholder:"TIME" help:"How long the token is good. Default: 1h"`
	Aud  string   `placeholder:"AUD" help:"The token's audience. Default: none"`
	Iss  string   `placeholder:"ISS" help:"The token's issuer. Default: none"`
}

func (c *tokenCommand) run(_ context.Context, m *Main) error {
	f := &faults{}
	if c.JWTSecret == "" {
		f.addHidden("jwt-secret", "is needed to sign with: the one that floodgate serve has")
	}
	f.auth(ingest.AuthOptions{Secret: []byte(c.JWTSecret)}.Validate())
	if !validID(c.Sub) {
		f.add("sub", strconv.Quote(c.Sub), "must be %s", idRule)
	}
	if c.Role != "" && c.Role != ingest.RoleAdmin && c.Role != "buyer" {
		f.add("role", strconv.Quote(c.Role), "must be buyer or %s", ingest.RoleAdmin)
	}
	if c.TTL.bad || c.TTL.d < time.Second {
		f.add("ttl", c.TTL.text, "must be a time such as 1h, a second at least")
	}
	if err := f.orNil(); err != nil {
		return err
	}

	now := time.Now()
	claims := jwt.MapClaims{"sub": c.Sub, "iat": now.Unix(), "exp": now.Add(c.TTL.d).Unix()}
	for name, value := range map[string]string{"role": c.Role, "aud": c.Aud, "iss": c.Iss} {
		if value != "" {
			claims[name] = value
		}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(c.JWTSecret))
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	_, err = fmt.Fprintln(m.Stdout, signed)
	return err
}
