// Command generate makes everything that follows from the .proto files of package schemas: the Go types, the
// BigQuery table schemas and the reference page docs/schemas.md. It fails when a field has no comment, since the
// comments become the column descriptions that analysts read.
//
// Run it from the module's root. With -check it writes nothing and exits with 1 when a generated file is stale.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	schemaDir = "schemas"
	// importRoot is the path under which the files are registered in every program that links them. Without it,
	// names as common as "options.proto" would collide with other packages' files.
	importRoot = "assetmill/v1/"
)

// sources are the files in the order in which the reference page shows them.
var sources = []string{"job.proto", "result.proto", "batch.proto", "rows.proto", "options.proto"}

func main() {
	log.SetFlags(0)
	log.SetPrefix("generate: ")
	check := flag.Bool("check", false, "write nothing; exit with 1 when a generated file is stale")
	flag.Parse()
	if err := run(context.Background(), *check); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, check bool) error {
	files, err := compile(ctx)
	if err != nil {
		return err
	}
	out, err := goTypes(ctx, files)
	if err != nil {
		return err
	}
	if err := tables(files, out); err != nil {
		return err
	}
	if err := reference(files, out); err != nil {
		return err
	}
	if check {
		return compare(out)
	}
	for name, content := range out {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile parses the sources, comments included.
func compile(ctx context.Context) ([]protoreflect.FileDescriptor, error) {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: func(path string) (io.ReadCloser, error) {
				name, ok := strings.CutPrefix(path, importRoot)
				if !ok {
					return nil, os.ErrNotExist
				}
				return os.Open(filepath.Join(schemaDir, name))
			},
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	var paths []string
	for _, s := range sources {
		paths = append(paths, importRoot+s)
	}
	linked, err := compiler.Compile(ctx, paths...)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	files := make([]protoreflect.FileDescriptor, len(linked))
	for i, f := range linked {
		files[i] = f
	}
	return files, nil
}

// goTypes runs protoc-gen-go of the protobuf version in go.mod over the files.
func goTypes(ctx context.Context, files []protoreflect.FileDescriptor) (map[string][]byte, error) {
	req := &pluginpb.CodeGeneratorRequest{Parameter: proto.String("paths=source_relative")}
	req.ProtoFile = append(req.ProtoFile, protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto))
	for _, f := range slices.Backward(files) { // options.proto is last and the others import it
		req.FileToGenerate = append(req.FileToGenerate, f.Path())
		req.ProtoFile = append(req.ProtoFile, protodesc.ToFileDescriptorProto(f))
	}
	in, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "protoc-gen-go")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("protoc-gen-go: %w", err)
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &resp); err != nil {
		return nil, fmt.Errorf("protoc-gen-go: %w", err)
	}
	if resp.Error != nil {
		return nil, fmt.Errorf("protoc-gen-go: %s", resp.GetError())
	}
	out := map[string][]byte{}
	for _, f := range resp.File {
		out[filepath.Join(schemaDir, strings.TrimPrefix(f.GetName(), importRoot))] = []byte(f.GetContent())
	}
	return out, nil
}

// compare reports every file whose content on disk differs from what would be generated.
func compare(out map[string][]byte) error {
	var stale []string
	for name, want := range out {
		got, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if !bytes.Equal(got, want) {
			stale = append(stale, name)
		}
	}
	if len(stale) > 0 {
		slices.Sort(stale)
		return fmt.Errorf("stale: %s; run `make generate` and commit the result", strings.Join(stale, ", "))
	}
	return nil
}
