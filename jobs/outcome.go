package jobs

import (
	"maps"
	"slices"
)

// Outcome is how a job ended. The set is closed.
type Outcome string

// Outcomes.
const (
	Succeeded Outcome = "succeeded" // an asset is stored
	Refused   Outcome = "refused"   // the model or its filters said no; never called again
	Failed    Outcome = "failed"    // no asset, for another reason
	Cancelled Outcome = "cancelled" // given up by its owner
)

// Reason says why a job ended as it did. The set is closed: analysts group by it. docs/outcomes.md explains each.
type Reason string

// Reasons, by outcome.
const (
	ReasonImage Reason = "image" // succeeded

	ReasonPromptFilter  Reason = "prompt_filter"  // refused: the prompt was blocked before generation
	ReasonOutputFilter  Reason = "output_filter"  // refused: what was generated was blocked
	ReasonModelDeclined Reason = "model_declined" // refused: the model answered with words instead of an image
	ReasonNoImage       Reason = "no_image"       // refused: the model made no image and said so

	ReasonInvalidMessage       Reason = "invalid_message"       // failed: not a job message at all
	ReasonInvalidJob           Reason = "invalid_job"           // failed: a job message with fields that can't be served
	ReasonIDConflict           Reason = "id_conflict"           // failed: the id belongs to a job with other content
	ReasonDeadlinePassed       Reason = "deadline_passed"       // failed: not called, since the image would come too late
	ReasonReferenceUnavailable Reason = "reference_unavailable" // failed: a reference image is missing or unreadable
	ReasonRejected             Reason = "rejected"              // failed: the service refused the request as invalid
	ReasonBadAnswer            Reason = "bad_answer"            // failed: answers that hold no usable image, again and again
	ReasonAttemptsExhausted    Reason = "attempts_exhausted"    // failed: errors until the bound on attempts

	ReasonNoLane     Reason = "no_lane"     // failed: no lane of the worker serves the job; on dead letters and events only
	ReasonRowRefused Reason = "row_refused" // failed: lineage can't store the row; on dead letters only

	ReasonCancelled Reason = "cancelled" // cancelled
)

// outcomeOf is the one table that ties reasons to outcomes.
var outcomeOf = map[Reason]Outcome{
	ReasonImage:                Succeeded,
	ReasonPromptFilter:         Refused,
	ReasonOutputFilter:         Refused,
	ReasonModelDeclined:        Refused,
	ReasonNoImage:              Refused,
	ReasonInvalidMessage:       Failed,
	ReasonInvalidJob:           Failed,
	ReasonIDConflict:           Failed,
	ReasonDeadlinePassed:       Failed,
	ReasonReferenceUnavailable: Failed,
	ReasonRejected:             Failed,
	ReasonBadAnswer:            Failed,
	ReasonAttemptsExhausted:    Failed,
	ReasonNoLane:               Failed,
	ReasonRowRefused:           Failed,
	ReasonCancelled:            Cancelled,
}

// Reasons returns all reasons, sorted.
func Reasons() []Reason { return slices.Sorted(maps.Keys(outcomeOf)) }

// Outcome returns the outcome that a reason belongs to, or "" for a reason that is not of the set.
func (r Reason) Outcome() Outcome { return outcomeOf[r] }
