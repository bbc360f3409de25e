// Command floodgate sells what is scarce: never more than there is, and only
// what is on disk. See floodgate --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mattn/go-isatty"
)

// Exit codes.
const (
	exitFine    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamaged = 3 // the journal is damaged; nothing was served
)

func main() {
	// A terminal that goes away takes nothing with it, and there is nothing to
	// reopen: SIGHUP is no reason to do anything.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// The first signal drains. The second is somebody who does not want to wait.
	context.AfterFunc(ctx, stop)

	m := Main{
		Args:   os.Args[1:],
		Getenv: os.Getenv,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	}
	os.Exit(m.Run(ctx))
}

// Main is the program, with all it knows of the world. Tests run the same value
// with arguments and writers of their own.
type Main struct {
	Args   []string
	Getenv func(string) string
	Stdout io.Writer // for people: what was asked for
	Stderr io.Writer // for logs and faults
	FS     vfs.FS    // holds data directories; nil is the disk
}

// commands are what the program can be asked to do, one file each.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run a node."`
	Verify  verifyCommand  `cmd:"" help:"Check that every unit in a data directory is accounted for."`
	Token   tokenCommand   `cmd:"" help:"Mint a buyer's or an admin's JWT from the configured secret."`
	Health  healthCommand  `cmd:"" help:"Ask a node whether it may sell."`
	Version versionCommand `cmd:"" help:"Print version, commit and Go version."`
}

// command is one of them. Its error tells the exit code; see codeOf.
type command interface {
	run(ctx context.Context, m *Main) error
}

const description = `A flash-sale engine: never oversold, and every order it acknowledged is on disk.

Every flag --some-flag can be set by the environment variable FLOODGATE_SOME_FLAG; the flag wins.`

// Run runs the command that the arguments name, until it is done or ctx ends,
// and returns the exit code.
func (m *Main) Run(ctx context.Context) (code int) {
	// Kong leaves by its Exit function in the middle of printing help.
	type exit int
	defer func() {
		switch v := recover().(type) {
		case nil:
		case exit:
			code = int(v)
		default:
			panic(v)
		}
	}()

	var all commands
	parser, err := kong.New(&all,
		kong.Name("floodgate"),
		kong.Description(description),
		kong.Writers(m.Stdout, m.Stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.Vars(defaults()),
		kong.ExplicitGroups(groups),
		kong.Resolvers(environment(m.Getenv)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(describe),
	)
	if err != nil {
		panic("floodgate: " + err.Error()) // our own struct tags
	}
	if len(m.Args) == 0 {
		m.Args = []string{"--help"}
		parser.Stdout = m.Stderr
		parser.Exit = func(int) { panic(exit(exitUsage)) }
	}
	parsed, err := parser.Parse(m.Args)
	if err != nil {
		fmt.Fprintf(m.Stderr, "floodgate: %v\nTry: floodgate --help\n", err)
		return exitUsage
	}
	chosen := parsed.Selected().Target.Addr().Interface().(command)
	err = chosen.run(ctx, m)
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(m.Stderr, "floodgate %s: %v\n", parsed.Selected().Name, err)
	}
	return codeOf(err)
}

// errReported is what a command returns that has said itself why it failed.
var errReported = errors.New("failed; reported above")

// codeOf returns the exit code of a command's error.
func codeOf(err error) int {
	var coded interface{ exitCode() int }
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &coded):
		return coded.exitCode()
	}
	return exitFailed
}

// damaged is the error of a journal that cannot be trusted.
type damaged struct{ error }

func (d damaged) Unwrap() error { return d.error }
func (d damaged) exitCode() int { return exitDamaged }

// variable returns the environment variable of a flag.
func variable(flag string) string {
	return "FLOODGATE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// environment looks flags up that were not given. An empty variable counts as
// none: that is what a compose file makes of an unset one.
func environment(getenv func(string) string) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if value := getenv(variable(flag.Name)); value != "" && flag.Name != "help" {
			return value, nil
		}
		return nil, nil
	})
}

// describe adds each flag's variable to its line of help.
func describe(v *kong.Value) string {
	if v.Flag == nil || v.Name == "help" {
		return v.Help
	}
	return fmt.Sprintf("%s ($%s)", v.Help, variable(v.Name))
}

// terminal reports whether a person reads what is written to w.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
