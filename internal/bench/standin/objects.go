package standin

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// object is the resource of an object, as the JSON API spells it.
type object struct {
	Kind           string            `json:"kind"`
	Name           string            `json:"name"`
	Bucket         string            `json:"bucket"`
	Generation     int64             `json:"generation,string"`
	Metageneration string            `json:"metageneration"`
	ContentType    string            `json:"contentType,omitempty"`
	Size           int64             `json:"size,string"`
	CRC32C         string            `json:"crc32c"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	Created        string            `json:"timeCreated"`
	Updated        string            `json:"updated"`

	data []byte // nil when it was dropped
}

func encodeCRC32C(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// objects are all buckets' objects. Buckets exist as soon as somebody names them.
type objects struct {
	mu         sync.Mutex
	buckets    map[string]map[string]*object
	generation int64 // the last one given
}

// condition is a generation precondition.
type condition struct {
	generation int64 // 0: there must be no object
	set        bool
}

func parseCondition(text string) (condition, error) {
	if text == "" {
		return condition{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return condition{n, true}, err
}

func (c condition) holds(o *object) bool {
	switch {
	case !c.set:
		return true
	case o == nil:
		return c.generation == 0
	default:
		return o.Generation == c.generation
	}
}

// put stores an object as the next generation of its name, if the condition holds.
func (s *objects) put(o *object, c condition) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.holds(s.buckets[o.Bucket][o.Name]) {
		return false
	}
	if s.buckets == nil {
		s.buckets = map[string]map[string]*object{}
	}
	if s.buckets[o.Bucket] == nil {
		s.buckets[o.Bucket] = map[string]*object{}
	}
	now := time.Now()
	s.generation = max(s.generation+1, now.UnixMicro())
	o.Kind, o.Generation, o.Metageneration = "storage#object", s.generation, "1"
	o.Created = now.UTC().Format(time.RFC3339Nano)
	o.Updated = o.Created
	s.buckets[o.Bucket][o.Name] = o
	return true
}

// get returns an object, or nil.
func (s *objects) get(bucket, name string) *object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buckets[bucket][name]
}

// remove deletes an object. found says whether there was one, done whether the condition held.
func (s *objects) remove(bucket, name string, c condition) (found, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.buckets[bucket][name]
	if o == nil {
		return false, false
	}
	if !c.holds(o) {
		return true, false
	}
	delete(s.buckets[bucket], name)
	return true, true
}

// list returns the objects whose names begin with prefix, by name.
func (s *objects) list(bucket, prefix string) []*object {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []*object{}
	for name, o := range s.buckets[bucket] {
		if strings.HasPrefix(name, prefix) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *object) int { return strings.Compare(a.Name, b.Name) })
	return all
}
