package jobs

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
)

// idEncoding keeps all 256 bits of a hash within the alphabet of ids: 52 characters of [a-z2-7].
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Digest is a hash of everything that decides a job's image and where it is stored. Two messages with the same job id and
// different digests are a conflict: one of them must not be answered with the other's image.
type Digest [sha256.Size]byte

// String returns the digest in lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Digest returns the job's digest. It leaves out what may change without changing the image or its place: submission,
// client, mode, deadline, labels and source.
func (j *Job) Digest() Digest {
	h := newFields("assetmill job content v1")
	h.text(j.Campaign, j.Prompt, j.System, j.Model.ID, j.Size, j.AspectRatio, j.Region, j.Retention)
	if j.Seed == nil {
		h.text("no seed")
	} else {
		h.text("seed", strconv.Itoa(int(*j.Seed)))
	}
	h.text(strconv.Itoa(j.Variant), strconv.Itoa(len(j.References)))
	h.text(j.References...)
	h.text(strconv.Itoa(len(j.Safety)))
	for _, s := range j.Safety {
		h.text(s.Category, s.Threshold)
	}
	// Jobs without turns keep the digests, and so the ids, that they had before there were turns.
	if len(j.Turns) > 0 {
		h.text("turns", strconv.Itoa(len(j.Turns)))
		for _, t := range j.Turns {
			h.text(t.Prompt, t.Image)
		}
	}
	return h.sum()
}

// PromptSHA256 returns the SHA-256 of the prompt in lower-case hex.
func (j *Job) PromptSHA256() string {
	sum := sha256.Sum256([]byte(j.Prompt))
	return hex.EncodeToString(sum[:])
}

// DeriveID returns the id of a job whose producer gave none. The same content in the same submission always has the same
// id; occurrence, from 0, tells apart rows of one submission that are identical.
func (j *Job) DeriveID(occurrence int) string {
	digest := j.Digest()
	h := newFields("assetmill job id v1")
	h.text(j.Submission, string(digest[:]), strconv.Itoa(occurrence))
	sum := h.sum()
	return idEncoding.EncodeToString(sum[:])
}

// invalidPrefix marks the ids of messages that were no valid job. Producers' ids can't collide with them by chance: the
// rest is a full hash.
const invalidPrefix = "invalid-"

// InvalidID returns the id under which lineage records a message that was no valid job. Redelivery of the same message
// has the same id.
func InvalidID(messageID string, data []byte) string {
	h := newFields("assetmill invalid message v1")
	h.text(messageID, string(data))
	sum := h.sum()
	return invalidPrefix + idEncoding.EncodeToString(sum[:])
}

// ConflictID returns the id under which lineage records a job whose id belongs to another. The same job of the same submission always
// has the same.
func (j *Job) ConflictID() string {
	digest := j.Digest()
	h := newFields("assetmill id conflict v1")
	h.text(j.Submission, j.ID, string(digest[:]))
	sum := h.sum()
	return invalidPrefix + idEncoding.EncodeToString(sum[:])
}

// SubmissionID returns the id of a submission whose submitter named none: the same files, in the same order, with the same
// options always have the same id. Options are key and value by turns.
func SubmissionID(fileDigests [][sha256.Size]byte, options []string) string {
	h := newFields("assetmill submission v1")
	h.text(strconv.Itoa(len(fileDigests)))
	for _, d := range fileDigests {
		h.text(string(d[:]))
	}
	h.text(options...)
	sum := h.sum()
	// People type submission ids. 100 bits keep a collision out of reach for any number of submissions that a project
	// will ever hold.
	return "s-" + idEncoding.EncodeToString(sum[:])[:20]
}

// fields hashes a sequence of strings so that no two sequences share an input: each is preceded by its length.
type fields struct{ h hash.Hash }

func newFields(domain string) fields {
	f := fields{sha256.New()}
	f.text(domain)
	return f
}

func (f fields) text(values ...string) {
	var length [8]byte
	for _, v := range values {
		binary.BigEndian.PutUint64(length[:], uint64(len(v)))
		f.h.Write(length[:])
		f.h.Write([]byte(v))
	}
}

func (f fields) sum() (d Digest) {
	f.h.Sum(d[:0])
	return d
}
