package engine_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The engine is the root of the import graph and pure: that is why it can be
// replayed, simulated and fuzzed.
func TestTheEngineImportsTheStandardLibraryOnly(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "floodgate/engine").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	if got := strings.Fields(string(out)); len(got) != 1 || got[0] != "floodgate/engine" {
		t.Errorf("outside the standard library the engine needs %v", got)
	}
}

// The rule in product.go has no clock, no input or output and no goroutine.
func TestTheEngineKnowsNoNetworkAndNoFiles(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{join .Imports "\n"}}`, "floodgate/engine").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for _, path := range strings.Fields(string(out)) {
		if path == "os" || path == "net" || path == "syscall" || strings.HasPrefix(path, "net/") || strings.HasPrefix(path, "os/") || path == "unsafe" {
			t.Errorf("the engine imports %s", path)
		}
	}
}
