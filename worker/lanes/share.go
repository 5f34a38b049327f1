package lanes

import "time"

// A share is taken over shareSlots slots of slotLength: a minute, of which the oldest slot may be partly over.
const (
	shareSlots = 6
	slotLength = 10 * time.Second
)

// share is the part of the latest calls that something happened to. It is not safe for concurrent use.
type share struct {
	slots [shareSlots]struct {
		number    int64 // of the slot, counted from the epoch of Unix
		all, part int
	}
}

func (s *share) add(now time.Time, counts bool) {
	number := now.UnixNano() / int64(slotLength)
	slot := &s.slots[number%shareSlots]
	if slot.number != number {
		slot.number, slot.all, slot.part = number, 0, 0
	}
	slot.all++
	if counts {
		slot.part++
	}
}

// of returns the share, 0 to 1.
func (s *share) of(now time.Time) float64 {
	number := now.UnixNano() / int64(slotLength)
	all, part := 0, 0
	for _, slot := range s.slots {
		if slot.number > number-shareSlots {
			all += slot.all
			part += slot.part
		}
	}
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}
