package vertex

import (
	"errors"
	"fmt"

	"github.com/assetmill/assetmill/internal/blob"
)

// maxImageBytes is the largest image that is taken, in bytes. The largest picture that a model makes, 4K at 16:9, has 51
// million bytes before any compression.
const maxImageBytes = 64 << 20

// Sizes of images to expect, in bytes: what the largest ones of a size class have been seen to take, as PNG. They are
// reservations, not limits.
const (
	expected512 = 1 << 20
	expected1K  = 5 << 19
	expected2K  = 6 << 20
	expected4K  = 24 << 20
)

func expectedBytes(size string) int64 {
	switch size {
	case "512":
		return expected512
	case "2K":
		return expected2K
	case "4K":
		return expected4K
	default:
		return expected1K
	}
}

// capture is a [sink] that keeps one image of an answer: the first that is not a thought. It holds at most one blob.
type capture struct {
	// reserve waits for the byte budget. It is called at most once.
	reserve func() (*blob.Blob, error)
	decoder *decoder

	blob     *blob.Blob // nil until an image begins
	count    int        // images seen
	kept     int        // number of the image in blob, from 1; 0: none
	settled  bool       // the kept image belongs to a part that is complete and no thought
	tooLarge bool       // the kept image passed maxImageBytes; blob holds its beginning
	extra    int        // images seen after the kept one was settled
}

// placeholder stands in the remainder for the image of that number, from 1.
func placeholder(number int) string { return fmt.Sprintf("image %d", number) }

func (c *capture) begin() error {
	c.count++
	if c.settled {
		c.extra++
		c.decoder.reset(discard{})
		return nil
	}
	if c.blob == nil {
		b, err := c.reserve()
		if err != nil {
			return err
		}
		c.blob = b
	}
	c.blob.Reset() // of a thought, or of a value that this one replaces
	c.kept, c.tooLarge = c.count, false
	c.decoder.reset(keeper{c})
	return nil
}

func (c *capture) Write(p []byte) (int, error) { return c.decoder.Write(p) }

func (c *capture) end() (string, error) { return placeholder(c.count), c.decoder.Close() }

func (c *capture) part(thought bool) {
	if c.settled || c.blob == nil {
		return
	}
	if c.settled = !thought; thought {
		c.blob.Reset()
		c.kept = 0
	}
}

// take hands the blob of the kept image to the caller, who must release it.
func (c *capture) take() *blob.Blob {
	b := c.blob
	c.blob = nil
	b.Settle()
	return b
}

// release gives back what was not taken.
func (c *capture) release() {
	c.blob.Release()
	c.blob = nil
}

// keeper writes into the capture's blob. An image that is too large is cut but read to its end: what it cost stands behind it.
type keeper struct{ *capture }

func (k keeper) Write(p []byte) (int, error) {
	if k.tooLarge {
		return len(p), nil
	}
	if _, err := k.blob.Write(p); errors.Is(err, blob.ErrTooLarge) {
		k.tooLarge = true
	} else if err != nil {
		return 0, err
	}
	return len(p), nil
}

// discard checks base64 that nobody keeps.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
