package ingest_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"floodgate/engine"
	"floodgate/ingest"
)

func openAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// Ensure the document that ships is the one that is served.
func TestOpenAPI_Shipped(t *testing.T) {
	served := start(t, nil).ask("GET", "/openapi.yaml", "").is(http.StatusOK, "")
	shipped, err := os.ReadFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if served.body != string(shipped) {
		t.Error("docs/openapi.yaml and ingest/openapi.yaml differ; copy one over the other")
	}
}

// Ensure router and document have the same paths and methods.
func TestOpenAPI_Routes(t *testing.T) {
	doc := openAPI(t)
	documented := make(map[string]string)
	for path, item := range doc.Paths.Map() {
		documented[path] = strings.Join(slices.Sorted(maps.Keys(item.Operations())), " ")
	}
	routed := make(map[string]string)
	for path, allowed := range ingest.RouteTable() {
		var methods []string
		for _, m := range strings.Split(allowed, ", ") {
			if m != "HEAD" && m != "OPTIONS" { // come with every route
				methods = append(methods, m)
			}
		}
		slices.Sort(methods)
		routed[path] = strings.Join(methods, " ")
	}
	delete(routed, "/") // a page for people
	for path, methods := range routed {
		if documented[path] != methods {
			t.Errorf("%s: the router has %q, the document %q", path, methods, documented[path])
		}
	}
	for path := range documented {
		if routed[path] == "" {
			t.Errorf("%s: in the document, and not in the router", path)
		}
	}
	for path := range ingest.RouteTable() {
		concrete := strings.NewReplacer("{product}", "p", "{id}", "o").Replace(path)
		if name, _ := ingest.Match(concrete); name == "none" {
			t.Errorf("%s: in the table, and not matched", path)
		}
	}
}

// Ensure every documented problem type pattern admits every problem there is.
func TestOpenAPI_Problems(t *testing.T) {
	schema := openAPI(t).Components.Schemas["Problem"].Value
	for name, status := range ingest.AllProblems() {
		problem := map[string]any{"type": "urn:floodgate:problem:" + name, "title": "t", "status": float64(status), "detail": "d"}
		if err := schema.VisitJSON(problem); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Ensure real requests and their answers are what the document says, on every
// route, with every success there is.
func TestOpenAPI_Answers(t *testing.T) {
	doc := openAPI(t)
	openapi3filter.RegisterBodyDecoder("application/yaml", plainText)
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo", LimitPerBuyer: 5, EndsAt: n.now.Load() + 86_400_000}, 20)
	n.product(engine.Settings{ID: "held", HoldSeconds: 60}, 20)
	n.product(engine.Settings{ID: "soon", StartsAt: n.now.Load() + 60_000}, 20)
	n.product(engine.Settings{ID: "gone"}, 0)
	asAdmin := "Authorization: Bearer " + adminToken

	seen := make(map[string]bool) // operations that succeeded
	ask := func(template, method, path, body string, want int, headers ...string) answer {
		t.Helper()
		a := n.ask(method, path, body, headers...)
		if a.status != want {
			t.Errorf("%s %s: status %d, want %d: %s", method, path, a.status, want, a.body)
		}
		item := doc.Paths.Value(template)
		if item == nil || item.GetOperation(method) == nil {
			t.Fatalf("%s %s is not in the document", method, template)
		}
		operation := item.GetOperation(method)
		request, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			request.Header.Set(name, value)
		}
		input := &openapi3filter.RequestValidationInput{
			Request: request, PathParams: pathParams(template, path),
			Route: &routers.Route{Spec: doc, Path: template, PathItem: item, Method: method, Operation: operation},
			Options: &openapi3filter.Options{
				IncludeResponseStatus: true, MultiError: true,
				AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
			},
		}
		if want < 300 { // a refused request may well be one the document forbids
			seen[operation.OperationID] = true
			if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
				t.Errorf("%s %s %s: the document forbids a request that succeeded: %v", method, path, body, err)
			}
		}
		response := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: a.status, Header: a.header, Options: input.Options}
		response.SetBodyBytes([]byte(a.body))
		if err := openapi3filter.ValidateResponse(context.Background(), response); err != nil {
			t.Errorf("%s %s: %d %s: %v", method, path, a.status, a.body, err)
		}
		return a
	}
	id := func(a answer) string { return a.text("id") }

	const place = "/v1/products/{product}/orders"
	first := ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"u-1","quantity":2}`, 201, "Idempotency-Key: k 1")
	again := ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"u-1","quantity":2}`, 201, "Idempotency-Key: k 1")
	if again.header.Get("Idempotent-Replayed") != "true" || again.body != first.body {
		t.Errorf("replay: %v %s", again.header, again.body)
	}
	ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"u-1","quantity":1}`, 422, "Idempotency-Key: k 1")
	ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"u-1","quantity":4}`, 409)
	ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"u-1","colour":"red"}`, 400)
	ask(place, "POST", "/v1/products/demo/orders", "", 201)
	ask(place, "POST", "/v1/products/gone/orders", "{}", 409)
	ask(place, "POST", "/v1/products/soon/orders", "", 409)
	ask(place, "POST", "/v1/products/none/orders", "", 404)
	ask(place, "POST", "/v1/products/demo/orders", `{"buyer":"`+strings.Repeat("u", 17<<10)+`"}`, 413)
	ask(place, "POST", "/v1/products/demo/orders", "{}", 415, "Content-Type: text/plain")
	ask("/buy/{product}", "POST", "/buy/demo", "", 201)
	ask("/reserve/{product}", "POST", "/reserve/demo", `{"quantity":1}`, 201)
	ask("/buy", "POST", "/buy", "", 201)
	ask("/reserve", "POST", "/reserve", "{}", 201)

	ask("/v1/orders", "GET", "/v1/orders?buyer=u-1&limit=1", "", 200)
	ask("/v1/orders", "GET", "/v1/orders?buyer=u-1&limit=x", "", 400)
	ask("/v1/orders/{id}", "GET", "/v1/orders/"+id(first), "", 200)
	ask("/v1/orders/{id}", "GET", "/v1/orders/01900000-0000-7000-8000-000000000000", "", 404)
	held := ask("/buy/{product}", "POST", "/buy/held", `{"buyer":"u-2"}`, 201)
	other := ask("/buy/{product}", "POST", "/buy/held", `{"buyer":"u-2"}`, 201)
	ask("/v1/orders/{id}", "GET", "/v1/orders/"+id(held), "", 200)
	ask("/v1/orders/{id}/refund", "POST", "/v1/orders/"+id(held)+"/refund", `{"restock":true}`, 409, asAdmin)
	ask("/v1/orders/{id}/confirm", "POST", "/v1/orders/"+id(held)+"/confirm", "", 200)
	ask("/v1/orders/{id}/cancel", "POST", "/v1/orders/"+id(held)+"/cancel", "{}", 409)
	ask("/v1/orders/{id}/cancel", "POST", "/v1/orders/"+id(other)+"/cancel", "{}", 200)
	ask("/v1/orders/{id}/confirm", "POST", "/v1/orders/"+id(other)+"/confirm", "", 409)
	ask("/v1/orders/{id}/refund", "POST", "/v1/orders/"+id(held)+"/refund", `{"restock":true}`, 200, asAdmin)
	ask("/v1/orders/{id}/refund", "POST", "/v1/orders/"+id(held)+"/refund", "", 401)
	late := ask("/buy/{product}", "POST", "/buy/held", "", 201)
	n.now.Add(61_000)
	ask("/v1/orders/{id}/confirm", "POST", "/v1/orders/"+id(late)+"/confirm", "", 410)

	ask("/v1/products", "GET", "/v1/products", "", 200)
	const product = "/v1/products/{product}"
	ask(product, "GET", "/v1/products/demo", "", 200)
	ask(product, "GET", "/v1/products/none", "", 404)
	ask(product, "PUT", "/v1/products/new", `{"name":"New","price_minor":5,"currency":"USD","stock":3,"limit_per_buyer":1,"hold_seconds":60,"starts_at":"2029-01-01T00:00:00Z","ends_at":"2031-01-01T00:00:00Z"}`, 201, asAdmin)
	ask(product, "PUT", "/v1/products/new", `{"name":"Newer","ends_at":null}`, 200, asAdmin)
	ask(product, "PUT", "/v1/products/new", `{"stock":4}`, 409, asAdmin)
	ask(product, "PUT", "/v1/products/new", `{"stock":"4"}`, 400, asAdmin)
	ask(product, "PUT", "/v1/products/new", `{}`, 401)
	ask(product+"/restock", "POST", "/v1/products/new/restock", `{"quantity":-2}`, 200, asAdmin)
	ask(product+"/restock", "POST", "/v1/products/new/restock", `{"quantity":-2}`, 409, asAdmin)
	ask(product+"/pause", "POST", "/v1/products/new/pause", "", 200, asAdmin)
	ask("/buy/{product}", "POST", "/buy/new", "", 503)
	ask(product+"/resume", "POST", "/v1/products/new/resume", "{}", 200, asAdmin)
	ask(product+"/reset", "POST", "/v1/products/new/reset", `{"stock":0}`, 200, asAdmin)
	ask("/v1/stats", "GET", "/v1/stats", "", 200, asAdmin)
	ask("/v1/stats", "GET", "/v1/stats", "", 401)
	ask("/v1/time", "GET", "/v1/time", "", 200)
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/metrics", "/openapi.yaml"} {
		ask(path, "GET", path, "", 200)
	}
	n.now.Add(86_400_000)
	ask("/buy", "POST", "/buy/demo", "", 410)

	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if !seen[operation.OperationID] {
				t.Errorf("%s %s is documented, and no success of it is held here", method, path)
			}
		}
	}
}

func plainText(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	b, err := io.ReadAll(body)
	return string(b), err
}

// pathParams reads the parameters of a path by its template.
func pathParams(template, path string) map[string]string {
	path, _, _ = strings.Cut(path, "?")
	names, values := strings.Split(template, "/"), strings.Split(path, "/")
	params := make(map[string]string)
	for i, name := range names {
		if strings.HasPrefix(name, "{") && i < len(values) {
			params[strings.Trim(name, "{}")] = values[i]
		}
	}
	return params
}
