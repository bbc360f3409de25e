package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"floodgate/ingest"
)

// This file alone knows flags and environment variables. Each package owns its
// options, their defaults and their limits; here they get names a person types.

// groups are the headings of --help.
var groups = []kong.Group{
	{Key: "node", Title: "Node:"},
	{Key: "buyers", Title: "Buyers and admins:"},
	{Key: "journal", Title: "Journal:"},
	{Key: "cluster", Title: "Cluster and settlement:"},
}

// defaults are the values that struct tags refer to.
func defaults() map[string]string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "floodgate"
	}
	return map[string]string{
		"cores": strconv.Itoa(runtime.GOMAXPROCS(0)),
		"host":  name,
	}
}

// dataFlag is shared by all commands that read a data directory.
type dataFlag struct {
	DataDir string `group:"node" default:"./data" placeholder:"DIR" help:"Journal and ledger live here; locked against a second process. Default: ./data"`
}

// secretFlag is shared by the commands that mint and that verify tokens.
type secretFlag struct {
	JWTSecret string `name:"jwt-secret" group:"buyers" placeholder:"SECRET" help:"HS256 secret of 32 bytes or more; better set by its variable than seen in a list of processes. Default: none"`
}

// serveFlags are the flags of serve.
type serveFlags struct {
	Addr string `group:"node" default:"127.0.0.1:3000" placeholder:"HOST:PORT" help:"HTTP listen address. Default: 127.0.0.1:3000"`
	dataFlag
	Shards         integer `group:"node" default:"${cores}" placeholder:"N" help:"Single-owner goroutines. Default: number of cores, here ${cores}"`
	MaxConnections integer `group:"node" default:"65536" placeholder:"N" help:"Connections held at once; past it a clear 503. Default: 65536"`
	DefaultProduct string  `group:"node" placeholder:"ID" help:"Product that /buy and /reserve sell without a name. Default: the only one, else demo"`
	Demo           bool    `group:"node" help:"Allow POST /v1/attacks and serve the storefront at /. Default: off"`

	secretFlag
	JWKSFile           string `name:"jwks-file" group:"buyers" placeholder:"FILE" help:"Public keys of EdDSA, ES256 and RS256 tokens; read again when it changes. Default: none"`
	JWTAudience        string `name:"jwt-audience" group:"buyers" placeholder:"AUD" help:"What a token's aud must hold. Default: not checked"`
	JWTIssuer          string `name:"jwt-issuer" group:"buyers" placeholder:"ISS" help:"What a token's iss must be. Default: not checked"`
	AdminToken         string `group:"buyers" placeholder:"TOKEN" help:"Bearer token of the admin API. Default: random, printed once"`
	InsecureOpenBuyers bool   `group:"buyers" help:"Listen beyond loopback although anybody may buy in anybody's name. Default: off"`

	Ack            string   `group:"journal" default:"journal" placeholder:"WHEN" help:"journal: answer after the fsync. queue: after the broker's confirm. Default: journal"`
	Sync           string   `group:"journal" default:"always" placeholder:"WHEN" help:"always: answer after the fsync. none: before, and a crash or a power cut loses the last orders. Default: always"`
	Retain         duration `group:"journal" default:"0" placeholder:"TIME" help:"How long orders of ended runs are kept, as in 720h; 0 keeps everything. Default: 0"`
	AcceptDataLoss bool     `group:"journal" help:"Start although the journal ends before what it once promised. Default: off"`

	NodeName    string `group:"cluster" default:"${host}" placeholder:"NAME" help:"What people call this node. Default: host name, here ${host}"`
	RedisURL    string `name:"redis-url" group:"cluster" placeholder:"URL" help:"Cluster mode: Redis is the gate. Default: none"`
	RabbitMQURL string `name:"rabbitmq-url" group:"cluster" placeholder:"URL" help:"Drain accepted orders there. Default: none"`
	PostgresURL string `name:"postgres-url" group:"cluster" placeholder:"URL" help:"Settlement, and the cluster's register of nodes. Default: none"`
	Settle      bool   `group:"cluster" help:"Run the settlement worker in this process. Default: off"`
}

// integer and duration take any text, so that a typing error is told together
// with all other faults and not alone.
type (
	integer struct {
		text string
		n    int
		bad  bool
	}
	duration struct {
		text string
		d    time.Duration
		bad  bool
	}
)

func (i *integer) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	*i = integer{text: string(text), n: n, bad: err != nil}
	return nil
}

func (d *duration) UnmarshalText(text []byte) error {
	value, err := time.ParseDuration(string(text))
	*d = duration{text: string(text), d: value, bad: err != nil}
	return nil
}

// faults are all that is wrong with a configuration.
type faults struct{ lines []string }

func (f *faults) exitCode() int { return exitUsage }

func (f *faults) Error() string {
	noun := "faults"
	if len(f.lines) == 1 {
		noun = "fault"
	}
	return fmt.Sprintf("%d %s in the configuration:\n  %s", len(f.lines), noun, strings.Join(f.lines, "\n  "))
}

// add names a flag, its value and what is wrong with it.
func (f *faults) add(flag, value, format string, args ...any) {
	f.lines = append(f.lines, fmt.Sprintf("--%s=%s: %s", flag, value, fmt.Sprintf(format, args...)))
}

// addHidden is add for flags whose value is a secret.
func (f *faults) addHidden(flag, format string, args ...any) {
	f.lines = append(f.lines, fmt.Sprintf("--%s: %s", flag, fmt.Sprintf(format, args...)))
}

// orNil returns the faults, or nil where there are none.
func (f *faults) orNil() error {
	if len(f.lines) == 0 {
		return nil
	}
	return f
}

func (f *faults) number(flag string, v integer, low, high int) {
	if v.bad || v.n < low || v.n > high {
		f.add(flag, v.text, "must be a whole number from %d to %d", low, high)
	}
}

func (f *faults) oneOf(flag, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(flag, value, "must be %s", strings.Join(allowed, " or "))
	}
}

// notYet names what was asked of this version that it cannot do. A node that
// quietly sold without the gate it was told to ask would oversell.
func (c *serveFlags) notYet(f *faults) {
	const cluster, settlement = "cluster mode is not in this version", "settlement is not in this version"
	if c.RedisURL != "" {
		f.addHidden("redis-url", cluster)
	}
	if c.RabbitMQURL != "" {
		f.addHidden("rabbitmq-url", settlement)
	}
	if c.PostgresURL != "" {
		f.addHidden("postgres-url", settlement)
	}
	if c.Settle {
		f.addHidden("settle", settlement)
	}
	if c.Ack == "queue" {
		f.add("ack", c.Ack, "%s, so there is no broker to wait for", settlement)
	}
	if c.Demo {
		f.addHidden("demo", "storefront and attacks are not in this version")
	}
}

// validate reports every fault at once.
func (c *serveFlags) validate() error {
	f := &faults{}
	beyond := c.validateAddr(f)
	if c.DataDir == "" {
		f.add("data-dir", "", "must name a directory")
	}
	f.number("shards", c.Shards, 1, 1024)
	f.number("max-connections", c.MaxConnections, 1, 1_000_000)
	if c.DefaultProduct != "" && !validID(c.DefaultProduct) {
		f.add("default-product", strconv.Quote(c.DefaultProduct), "must be %s", idRule)
	}
	if n := len(c.NodeName); n == 0 || n > 253 || strings.ContainsFunc(c.NodeName, unprintable) {
		f.add("node-name", strconv.Quote(c.NodeName), "must be 1 to 253 printable ASCII characters")
	}
	f.oneOf("ack", c.Ack, "journal", "queue")
	f.oneOf("sync", c.Sync, "always", "none")
	if c.Retain.bad || c.Retain.d < 0 {
		f.add("retain", c.Retain.text, "must be a time such as 720h, or 0")
	}
	f.auth(c.checkAuth())
	c.notYet(f)

	if beyond {
		if c.JWTSecret == "" && c.JWKSFile == "" && !c.InsecureOpenBuyers {
			f.add("addr", c.Addr, "is reachable from other machines, and without --jwt-secret or --jwks-file "+
				"anybody could buy in anybody's name; set one of them, or --insecure-open-buyers if that is what you want")
		}
		if c.AdminToken != "" && weakToken(c.AdminToken) {
			f.addHidden("admin-token", "is too easy to guess for an address that is reachable from other machines; "+
				"use 16 random characters or more, or none at all and take the one that is printed")
		}
	}
	return f.orNil()
}

// validateAddr reports whether other machines can reach the address.
func (c *serveFlags) validateAddr(f *faults) (beyond bool) {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		f.add("addr", c.Addr, "must be HOST:PORT, as in 127.0.0.1:3000")
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		f.add("addr", c.Addr, "has no port from 0 to 65535")
	}
	if host == "localhost" {
		return false
	}
	// A name could resolve to anything tomorrow; only an address can be known
	// to be ours alone. No host at all means every interface.
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.Unmap().IsLoopback()
}

// authOptions are what the flags say about who may buy and administrate.
func (c *serveFlags) authOptions() ingest.AuthOptions {
	return ingest.AuthOptions{
		Secret:     []byte(c.JWTSecret),
		JWKSFile:   c.JWKSFile,
		Audience:   c.JWTAudience,
		Issuer:     c.JWTIssuer,
		AdminToken: c.AdminToken,
	}
}

// checkAuth tries the options out, so that a bad JWKS file is found before the
// data directory is touched.
func (c *serveFlags) checkAuth() error {
	options := c.authOptions()
	options.CacheSize = 1
	_, err := ingest.NewAuth(options)
	return err
}

// flagOf names the flag of each field of ingest.AuthOptions that can be wrong.
var flagOf = map[string]string{
	"Secret": "jwt-secret", "JWKSFile": "jwks-file", "AdminToken": "admin-token",
}

// auth adds the faults that ingest found, under the names of their flags.
func (f *faults) auth(err error) {
	var joined interface{ Unwrap() []error }
	var one *ingest.OptionFault
	switch {
	case err == nil:
	case errors.As(err, &joined):
		for _, e := range joined.Unwrap() {
			f.auth(e)
		}
	case errors.As(err, &one):
		f.addHidden(flagOf[one.Field], "%s", one.Reason)
	}
}

const idRule = "1 to 64 of A-Z a-z 0-9 . _ -"

func validID(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// weakToken reports whether a bearer token would be among the first guesses.
func weakToken(token string) bool {
	return len(token) < 8 || slices.Contains([]string{
		"changeme", "password", "floodgate", "adminadmin", "admintoken", "admin-token", "admin_token",
		"change-me", "change_me", "secretsecret", "12345678", "123456789", "1234567890",
	}, strings.ToLower(token))
}
