package workertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// format is how requests and answers look in the simulated files: a line each of some thirty bytes. A request is
//
//	number of the job, two labels
//
// where the number stands for all that the job asks for; what the workers get to see of it is its hash. An answer echoes the request and adds
//
//	kind, number of the call
//
// from which follows the image. A missing label is a dash.
type format struct{ *process }

// Kinds of answers.
const (
	answerImage    = "image"
	answerRefused  = "refused"
	answerUseless  = "useless"
	answerRejected = "400"
	answerBusy     = "429"
	answerFailing  = "500"
)

const noLabel = "-"

// request is a line of a batch's input.
type request struct {
	n      int
	hi, lo string
}

func (r request) String() string {
	hi, lo := r.hi, r.lo
	if hi == "" {
		hi, lo = noLabel, noLabel
	}
	return fmt.Sprintf("%d %s %s", r.n, hi, lo)
}

func parseRequest(fields []string) (r request, err error) {
	if len(fields) < 3 {
		return r, errors.New("the line is cut short")
	}
	if r.n, err = strconv.Atoi(fields[0]); err != nil {
		return r, err
	}
	if fields[1] != noLabel {
		r.hi, r.lo = fields[1], fields[2]
	}
	return r, nil
}

// requestHash identifies what a job asks for.
func requestHash(model, prompt string) [32]byte { return sha256.Sum256([]byte(model + "\n" + prompt)) }

// Line implements batch.Format.
func (p format) Line(j *jobs.Job, hi, lo string) (line []byte, hash [32]byte, err error) {
	r := request{p.sim.number(j.ID), hi, lo}
	return []byte(r.String() + "\n"), requestHash(j.Model.ID, j.Prompt), nil
}

// Rows implements batch.Format: a part has the lines that begin behind its first byte, up to and including the one that begins right
// behind its last; the first part has the file's first line too.
func (p format) Rows(ctx context.Context, r io.Reader, at, length int64, each func(worker.OutputRow) error) error {
	in, place, skip := bufio.NewReader(r), at, at > 0
	for skip || place <= at+length {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		begin := place
		if place += int64(len(line)); skip {
			skip = false
			continue
		}
		if err == io.EOF && p.sim.cfg.sabotage == skippedLines {
			return nil
		}
		row, rowErr := p.row(ctx, bytes.TrimSpace(line))
		if rowErr != nil {
			return rowErr
		}
		row.Offset, row.Length = begin, int64(len(line))
		if err := each(row); err != nil {
			return err
		}
	}
	return nil
}

// row reads a line. The error says that this process can't.
func (p format) row(ctx context.Context, line []byte) (row worker.OutputRow, err error) {
	if err := p.gate(); err != nil {
		return row, err
	}
	s, fields := p.sim, strings.Fields(string(line))
	asked, bad := parseRequest(fields)
	if bad != nil {
		row.Damaged = bad
		return row, nil
	}
	row.Hi, row.Lo, row.Hash = asked.hi, asked.lo, requestHash(s.modelOf(asked.n), prompt(asked.n))
	if s.cfg.sabotage == trustingMatch {
		// Whatever the labels say is believed: the request is taken for the one that they name.
		row.Hash = s.hashOfLabels(asked, row.Hash)
	}
	if len(fields) != 5 {
		row.Damaged = errors.New("the line is cut short")
		return row, nil
	}
	number, bad := strconv.Atoi(fields[4])
	answer := &worker.Answer{FinishReason: "STOP", Usage: jobs.Usage{Prompt: 20, Total: 20}, ModelVersion: "simulated-1"}
	switch kind := fields[3]; {
	case bad != nil:
		row.Damaged = bad
	case kind == answerImage:
		answer.Reason, answer.Usage = jobs.ReasonImage, imageUsage
		answer.Image, err = model(p).image(ctx, asked.n, number)
		row.Answer = answer
	case kind == answerRefused:
		answer.Reason, answer.Detail = s.refusal(asked.n), "no"
		row.Answer = answer
	case kind == answerUseless:
		answer.Reason, answer.FinishReason, answer.Detail = jobs.ReasonBadAnswer, "MAX_TOKENS", "cut short"
		row.Answer = answer
	case kind == answerRejected:
		row.Err = &worker.CallError{Kind: worker.Rejected, Reason: jobs.ReasonRejected, Status: 400, Detail: "invalid argument"}
	case kind == answerBusy:
		row.Err = &worker.CallError{Kind: worker.Throttled, Status: 429}
	case kind == answerFailing:
		row.Err = &worker.CallError{Kind: worker.Failing, Status: 500}
	default:
		row.Damaged = errors.New("unknown kind " + kind)
	}
	return row, err
}
