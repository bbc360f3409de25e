package main

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

// Ensure every fault of a configuration is named at once, with its flag and
// value, and that no secret is.
func TestConfig_Faults(t *testing.T) {
	for _, row := range []struct {
		name string
		env  []string
		args []string
		want []string
	}{
		{"all at once", []string{"FLOODGATE_SYNC=sometimes", "FLOODGATE_JWT_SECRET=short-but-private"},
			[]string{"--addr=nowhere", "--shards=many", "--max-connections=0", "--ack=later", "--retain=long", "--default-product=a/b", "--jwks-file=/no/such/file"},
			[]string{"9 faults", "--addr=nowhere", "--shards=many", "--max-connections=0", "--ack=later", "--sync=sometimes", "--retain=long", `--default-product="a/b"`, "--jwt-secret: has 17 bytes", "--jwks-file: "}},
		{"a flag beats its variable", []string{"FLOODGATE_SHARDS=many"}, []string{"--shards=few"}, []string{"1 fault ", "--shards=few"}},
		{"no JWKS file", nil, []string{"--jwks-file=/no/such/file"}, []string{"--jwks-file: ", "/no/such/file"}},
		{"port too large", nil, []string{"--addr=127.0.0.1:65536"}, []string{"--addr=127.0.0.1:65536: has no port"}},
		{"cluster", nil, []string{"--redis-url=redis://user:hunter2@host", "--rabbitmq-url=amqp://user:hunter2@host", "--postgres-url=postgres://user:hunter2@host", "--settle", "--ack=queue", "--demo"},
			[]string{"6 faults", "--redis-url: cluster mode is not in this version", "--rabbitmq-url: ", "--postgres-url: ", "--settle: ", "--ack=queue: ", "--demo: "}},
		{"beyond loopback", nil, []string{"--addr=0.0.0.0:0"}, []string{"--addr=0.0.0.0:0: is reachable", "--insecure-open-buyers"}},
		{"beyond loopback by no host", nil, []string{"--addr=:0"}, []string{"--addr=:0: is reachable"}},
		{"beyond loopback by IPv6", nil, []string{"--addr=[::]:0"}, []string{"is reachable"}},
		{"beyond loopback by name", nil, []string{"--addr=example.org:0"}, []string{"is reachable"}},
		{"beyond loopback with a weak admin token", nil, []string{"--addr=0.0.0.0:0", "--insecure-open-buyers", "--admin-token=changeme"}, []string{"1 fault ", "--admin-token: is too easy"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir() + "/data"
			code, stdout, stderr := run(t, environ(row.env...), append([]string{"serve", "--data-dir=" + dir}, row.args...)...)
			if code != exitUsage || stdout != "" {
				t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
			}
			for _, want := range row.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in:\n%s", want, stderr)
				}
			}
			for _, secret := range []string{"short-but-private", "hunter2"} {
				if strings.Contains(stderr, secret) {
					t.Errorf("a secret is in:\n%s", stderr)
				}
			}
			if fresh, err := absent(dir); err != nil || !fresh {
				t.Error("the data directory was touched")
			}
		})
	}
}

// Ensure addresses that only this machine can reach need no token.
func TestConfig_Loopback(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:3000", "127.8.9.1:3000", "localhost:3000", "[::1]:3000", "[::ffff:127.0.0.1]:3000"} {
		f := &faults{}
		if beyond := (&serveFlags{Addr: addr}).validateAddr(f); beyond || f.orNil() != nil {
			t.Errorf("%s: beyond %v, %v", addr, beyond, f.orNil())
		}
	}
}

// Ensure help lists every flag of the contract with its variable.
func TestHelp(t *testing.T) {
	code, stdout, stderr := run(t, environ(), "serve", "--help")
	if code != exitFine || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, flag := range []string{
		"addr", "data-dir", "shards", "ack", "sync", "redis-url", "node-name", "rabbitmq-url", "postgres-url", "settle",
		"jwt-secret", "jwks-file", "admin-token", "max-connections", "demo", "default-product", "insecure-open-buyers",
	} {
		if !strings.Contains(stdout, "--"+flag) || !strings.Contains(stdout, "$"+variable(flag)) {
			t.Errorf("--%s or %s is missing in:\n%s", flag, variable(flag), stdout)
		}
	}
	for _, args := range [][]string{{}, {"sell"}, {"serve", "--nothing"}} {
		if code, _, stderr := run(t, environ(), args...); code != exitUsage || stderr == "" {
			t.Errorf("%q: exit code %d: %s", args, code, stderr)
		}
	}
}

// Ensure every default that help states is the one that holds.
func TestHelp_DefaultsAreTrue(t *testing.T) {
	for _, target := range []any{serveFlags{}, tokenCommand{}} {
		walk(reflect.TypeOf(target), func(f reflect.StructField) {
			value, ok := f.Tag.Lookup("default")
			_, said, _ := strings.Cut(f.Tag.Get("help"), "Default: ")
			if !ok || strings.HasPrefix(value, "${") {
				return
			}
			if said != value {
				t.Errorf("%s: the default is %q, help says %q", f.Name, value, said)
			}
		})
	}
}

func walk(t reflect.Type, visit func(reflect.StructField)) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			walk(f.Type, visit)
		} else {
			visit(f)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := run(t, environ(), "version")
	if code != exitFine || !strings.Contains(stdout, "floodgate ") || !strings.Contains(stdout, ", commit ") || !strings.Contains(stdout, " go1.") {
		t.Errorf("exit code %d: %q", code, stdout)
	}
}

func TestToken_Faults(t *testing.T) {
	code, stdout, stderr := run(t, environ(), "token", "--sub=a b", "--role=king", "--ttl=0s")
	if code != exitUsage || stdout != "" {
		t.Fatalf("exit code %d: %s", code, stdout)
	}
	for _, want := range []string{"4 faults", "--jwt-secret: ", `--sub="a b"`, `--role="king"`, "--ttl=0s"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not in:\n%s", want, stderr)
		}
	}
}

func TestHealth(t *testing.T) {
	p := serve(t, t.TempDir())
	addr := "--addr=" + strings.TrimPrefix(p.url, "http://")
	if code, stdout, stderr := run(t, environ(), "health", addr); code != exitFine || !strings.Contains(stdout, "ready") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	p.drain(exitFine)
	if code, _, _ := run(t, environ(), "health", addr); code != exitFailed {
		t.Errorf("exit code %d of a node that is gone", code)
	}
}

func TestVerify_Report(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := run(t, environ(), "verify", "--data-dir="+dir); code != exitFailed || stderr == "" {
		t.Errorf("nothing there: exit code %d: %s", code, stderr)
	}
	if fresh, err := absent(dir); err != nil || !fresh {
		t.Error("an audit made something")
	}
	p := serve(t, dir, "--admin-token="+testToken)
	admin := "Authorization: Bearer " + testToken
	p.ask(201, "PUT", "/v1/products/held", `{"name":"Held","price_minor":5,"currency":"EUR","stock":10,"hold_seconds":600,"limit_per_buyer":3}`, admin)
	var ids []string
	for _, buyer := range []string{"a", "b", "c"} {
		a := p.ask(201, "POST", "/reserve/held", `{"buyer":"`+buyer+`","quantity":2}`, "Idempotency-Key: k")
		ids = append(ids, decode[orderJSON](t, a.body).ID)
	}
	p.ask(200, "POST", "/v1/orders/"+ids[0]+"/confirm", "")
	p.ask(200, "POST", "/v1/orders/"+ids[1]+"/cancel", "")
	p.ask(200, "POST", "/v1/orders/"+ids[0]+"/refund", `{"restock":true}`, admin)
	p.ask(200, "POST", "/v1/products/held/restock", `{"quantity":-3}`, admin)
	p.ask(200, "POST", "/v1/products/demo/reset", `{"stock":7}`, admin)
	p.drain(exitFine)

	code, stdout, stderr := run(t, environ(), "verify", "--json", "--data-dir="+dir)
	if code != exitFine {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	var a audit
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		t.Fatal(err)
	}
	want := []productRow{
		{ID: "demo", Run: 2, Stock: 7, Remaining: 7},
		{ID: "held", Run: 1, Stock: 7, Remaining: 5, Held: 2, Orders: 3},
	}
	if !a.OK || a.Orders != 3 || a.Keys != 3 || !reflect.DeepEqual(a.Products, want) {
		t.Errorf("got %+v", a)
	}
}

// absent reports whether there is nothing at the path yet.
func absent(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return len(entries) == 0, err
}
