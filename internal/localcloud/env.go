package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// ownPubSub is the variable that repeats the address of our own Pub/Sub. A shell that has read the env file of a local cloud that
// has since ended has PUBSUB_EMULATOR_HOST set to nothing's address; this tells it from an emulator that somebody runs.
const ownPubSub = "ASSETMILL_LOCAL_PUBSUB"

// Variable is one environment variable.
type Variable struct{ Name, Value string }

// String returns the variable as os/exec takes it.
func (v Variable) String() string { return v.Name + "=" + v.Value }

// PubSubEmulator returns the host:port of an emulator that the environment names and that is not an earlier local cloud's, or "".
func PubSubEmulator(getenv func(string) string) string {
	addr := getenv("PUBSUB_EMULATOR_HOST")
	if addr == getenv(ownPubSub) {
		return ""
	}
	return addr
}

// writeEnv replaces the file at path as a whole, so that whoever finds it finds all of it.
func writeEnv(path string, env []Variable) error {
	var text strings.Builder
	text.WriteString("# Points assetmill and Google's client libraries at the local cloud: `. .local/env`\n")
	for _, v := range env {
		fmt.Fprintf(&text, "export %s=%s\n", v.Name, quote(v.Value))
	}
	return renameio.WriteFile(path, []byte(text.String()), 0o644)
}

// quote returns value so that a POSIX shell reads it back unchanged, bare where that is possible.
func quote(value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if value != "" && strings.IndexFunc(value, func(r rune) bool { return !plain(r) }) < 0 {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// absolute returns path from the root, or as it is when there is no working directory.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
