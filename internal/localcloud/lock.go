package localcloud

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrRunning says that another local cloud uses the directory.
var ErrRunning = errors.New("another local cloud runs here")

// acquire takes the lock at path and writes this process's id into it. The system gives the lock back when the process ends,
// however it ends; the file stays.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := io.ReadAll(io.LimitReader(f, 32)) // only for the message
		return nil, errors.Join(fmt.Errorf("%w: process %s uses %s; stop it, or choose another directory with --dir",
			ErrRunning, strings.TrimSpace(string(owner)), filepath.Dir(path)), f.Close())
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), writeAll(f, strconv.Itoa(os.Getpid())+"\n"))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func writeAll(f *os.File, text string) error {
	_, err := f.WriteString(text)
	return err
}
