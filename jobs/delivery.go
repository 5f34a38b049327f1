package jobs

import "time"

// Delivery is one message as the queue hands it to a handler.
type Delivery struct {
	ID         string // Pub/Sub's message id, the same at every redelivery
	Data       []byte
	Attributes map[string]string
	Published  time.Time // when the topic accepted it first
}

// Action is what becomes of a message.
type Action int

// Actions.
const (
	Ack   Action = iota + 1 // everything about the message is durable: forget it
	Retry                   // deliver it again, to whomever
	Dead                    // move it to the dead-letter topic with its reason, then forget it
)

// String returns the action's name in lower case.
func (a Action) String() string {
	switch a {
	case Ack:
		return "ack"
	case Retry:
		return "retry"
	case Dead:
		return "dead"
	default:
		return "unknown"
	}
}

// Verdict is what a handler decides about a message. Only the queue carries it out, so nothing can be acknowledged before
// the handler has returned.
type Verdict struct {
	Action Action
	// Reason and Detail say why, for Dead: they become attributes of the dead letter. For Retry they are for the log.
	Reason Reason
	Detail string
	// After asks, for Retry, for a pause before the next delivery. The queue bounds it.
	After time.Duration
}
