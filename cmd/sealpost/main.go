// Command sealpost is an email security gateway: it takes the attachments out of incoming mail, seals
// them, and puts a Secure Link in their place. See `sealpost --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// commands is the whole command line.
type commands struct {
	Init     initCommand     `cmd:"" help:"Make a configuration, a keyring and a recovery key in a new directory."`
	Check    checkCommand    `cmd:"" help:"Say what is wrong with an installation and how to mend it."`
	Serve    serveCommand    `cmd:"" help:"Run the gateway."`
	Agent    agentCommand    `cmd:"" help:"Add, list and remove the agents that may open Secure Links."`
	Queue    queueCommand    `cmd:"" help:"Where is this mail, and why?"`
	Trace    traceCommand    `cmd:"" help:"The way of one mail, from connection to last reply, in words."`
	Policy   policyCommand   `cmd:"" help:"Show how well personal data in text is found."`
	Preview  previewCommand  `cmd:"" help:"Show what would become of a mail, without sending it."`
	SendTest sendTestCommand `cmd:"" help:"Send a mail through the running gateway and follow it to the next hop."`
	SRS      srsCommand      `cmd:"" name:"srs" help:"Look after the keys of the addresses that bounces come back to."`
	Open     openCommand     `cmd:"" help:"Open a Secure Link and save its files."`
	Move     moveCommand     `cmd:"" help:"Carry an installation over to another database and blob store, such as PostgreSQL and S3."`
	Backup   backupCommand   `cmd:"" help:"Copy the embedded database as it is at one moment, while the gateway runs."`
	Recover  recoverCommand  `cmd:"" help:"Open packages from the blob store with the recovery key, without database or gateway."`
	Recovery recoveryCommand `cmd:"" help:"Look after the recovery key."`
	Keyring  keyringCommand  `cmd:"" help:"Change the keys that wrap what the database holds."`
	Demo     demoCommand     `cmd:"" help:"Try it: everything on loopback, with a sample mail sent through it."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

// streams is what a command talks to its user by.
type streams struct {
	in  *os.File
	out io.Writer
	err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(status)
}

// run is main with everything that a test would want to replace as an argument.
func run(ctx context.Context, args []string, std streams) (status int) {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("sealpost"),
		kong.Description("An email security gateway: attachments are sealed, a Secure Link takes their place."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	)
	if err != nil {
		_, _ = fmt.Fprintln(std.err, "sealpost:", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help has printed all there is to say
		return exited
	}
	if err != nil {
		_, _ = fmt.Fprintf(std.err, "sealpost: %v\nTry `sealpost --help`.\n", err)
		return exitUsage
	}
	if err := parsed.Run(); err != nil {
		_, _ = fmt.Fprintln(std.err, "sealpost:", err)
		return exitStatus(err)
	}
	return exitDone
}

// usageError is a command line that parses but asks for something impossible.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

func exitStatus(err error) int {
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}
