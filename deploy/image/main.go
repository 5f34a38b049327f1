// Command image builds the container image of assetmill without a container engine, writes it to a folder as an OCI image layout, and pushes
// it when asked to.
//
// The image holds the static binary, certificate authorities, a user without rights, the licences of everything that is linked in, and a bill of
// materials; no shell and no package manager. The same commit, version and Go make the same image, bit by bit: nothing of the machine goes
// into it, not even the time of the build. It is for one platform.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		stop()
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "image:", err)
		}
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	root, out, version, revision, arch, image string
	created                                   time.Time
	push                                      bool
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	var created string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&o.root, "root", "../..", "folder of the repository")
	flags.StringVar(&o.out, "out", ".local/image", "folder for the image, within the repository unless it is absolute")
	flags.StringVar(&o.version, "version", "dev", "what assetmill --version says")
	flags.StringVar(&o.revision, "revision", "", "commit")
	flags.StringVar(&created, "created", "1970-01-01T00:00:00Z", "time of the commit, as in RFC 3339: the image's time, so that it is always the same")
	flags.StringVar(&o.arch, "arch", "amd64", "architecture: amd64 or arm64")
	flags.StringVar(&o.image, "image", "", "name with tag to push to, such as europe-west4-docker.pkg.dev/PROJECT/assetmill/assetmill:v1.2.3")
	flags.BoolVar(&o.push, "push", false, "push it, with the credentials of gcloud or Docker")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	case o.arch != "amd64" && o.arch != "arm64":
		return o, fmt.Errorf("-arch is %q; allowed: amd64, arm64", o.arch)
	case o.push && o.image == "":
		return o, errors.New("-push needs -image, the name to push to")
	}
	var err error
	if o.created, err = time.Parse(time.RFC3339, created); err != nil {
		return o, fmt.Errorf("-created: %w", err)
	}
	if o.root, err = filepath.Abs(o.root); err != nil {
		return o, err
	}
	if !filepath.IsAbs(o.out) {
		o.out = filepath.Join(o.root, o.out)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "assetmill-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "assetmill")
	if err := compile(ctx, o, binary); err != nil {
		return err
	}
	parts, err := gather(ctx, o, binary)
	if err != nil {
		return err
	}
	img, err := assemble(o, parts)
	if err != nil {
		return err
	}
	digest, err := write(o.out, img, parts.materials)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "image %s in %s\n", digest, o.out)
	if !o.push {
		return nil
	}
	name, err := push(ctx, o.image, img, parts.materials)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "pushed %s\n", name)
	return nil
}
