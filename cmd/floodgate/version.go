package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are set by the linker in a release; see the Makefile.
var version, commit string

type versionCommand struct{}

func (*versionCommand) run(_ context.Context, m *Main) error {
	_, err := fmt.Fprintln(m.Stdout, versionLine())
	return err
}

// versionLine returns version, commit and Go version.
func versionLine() string {
	v, c := versions()
	return fmt.Sprintf("floodgate %s, commit %s, %s %s/%s", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versions returns version and commit. A binary that was built without the
// linker's flags knows what the toolchain noted in it.
func versions() (v, c string) {
	v, c = version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && c == "" {
				c = s.Value
			}
		}
	}
	if v == "" {
		v = "(devel)"
	}
	if c == "" {
		c = "unknown"
	}
	return v, c
}
