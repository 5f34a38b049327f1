package localcloud

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pkg/xattr"
)

// Where fake-gcs-server v1.56.1 keeps what it knows of an object: in this attribute of its file or, on file systems without
// attributes, in a file beside it with this ending.
const (
	metadataAttribute = "user.metadata"
	metadataEnding    = ".metadata"
)

// setUnfinishedAside moves object files without metadata from the storage folder to another and returns how many there were.
// fake-gcs-server writes first the bytes and then the metadata; when it is killed in between, listing that bucket fails until
// the file is gone. Nothing is deleted: files also look like this after a copy that lost the attributes.
func setUnfinishedAside(storage, aside string) (moved int, err error) {
	if _, err := os.Stat(storage); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	buckets, err := os.ReadDir(storage)
	if err != nil {
		return 0, err
	}
	finished := finishedBy(storage)
	for _, bucket := range buckets {
		if !bucket.IsDir() {
			continue
		}
		n, err := setAside(storage, bucket.Name(), aside, finished)
		moved += n
		if err != nil {
			return moved, fmt.Errorf("look for half-written objects: %w", err)
		}
	}
	return moved, nil
}

func setAside(storage, bucket, aside string, finished func(path string) (bool, error)) (moved int, err error) {
	err = filepath.WalkDir(filepath.Join(storage, bucket), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if ok, err := finished(path); ok || err != nil {
			return err
		}
		name, err := filepath.Rel(storage, path)
		if err != nil {
			return err
		}
		target := filepath.Join(aside, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		moved++
		return os.Rename(path, target)
	})
	return moved, err
}

// finishedBy returns the rule by which a file of the storage folder is complete, and chooses as fake-gcs-server does.
func finishedBy(storage string) func(path string) (bool, error) {
	_, err := xattr.Get(storage, metadataAttribute)
	if err == nil || errors.Is(err, xattr.ENOATTR) {
		return hasAttribute
	}
	return hasNeighbour
}

func hasAttribute(path string) (bool, error) {
	_, err := xattr.Get(path, metadataAttribute)
	if errors.Is(err, xattr.ENOATTR) {
		return false, nil
	}
	return err == nil, err
}

func hasNeighbour(path string) (bool, error) {
	neighbour := path + metadataEnding
	if object, ok := strings.CutSuffix(path, metadataEnding); ok {
		neighbour = object
	}
	_, err := os.Stat(neighbour)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
