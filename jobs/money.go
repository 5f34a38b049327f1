package jobs

import (
	"encoding/json"
	"fmt"
	"math/big"
)

// USD is an amount in nano-dollars (10^-9 US dollars), BigQuery's NUMERIC scale. It holds amounts up to nine billion
// dollars exactly.
type USD int64

const dollar USD = 1_000_000_000

// String returns the amount in dollars with all nine decimals, as NUMERIC columns take it.
func (u USD) String() string {
	sign := ""
	if u < 0 {
		sign, u = "-", -u
	}
	return fmt.Sprintf("%s%d.%09d", sign, u/dollar, u%dollar)
}

// Cents returns the amount rounded to cents, for people.
func (u USD) Cents() string {
	return new(big.Rat).SetFrac64(int64(u), int64(dollar)).FloatString(2)
}

// ParseUSD reads an amount in US dollars with at most nine decimals, such as `0.0336`. Negative amounts are refused.
func ParseUSD(text string) (USD, error) {
	amount, ok := new(big.Rat).SetString(text)
	if !ok || amount.Sign() < 0 {
		return 0, fmt.Errorf("%q is no amount in US dollars such as 0.02", text)
	}
	nano := amount.Mul(amount, new(big.Rat).SetInt64(int64(dollar)))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return 0, fmt.Errorf("%q has more than nine decimals, or is too large", text)
	}
	return USD(nano.Num().Int64()), nil
}

// TokenPrice is the price of one token in nano-dollars. In JSON it is a string of US dollars for a million tokens.
type TokenPrice struct{ perToken *big.Rat }

// UnmarshalJSON reads US dollars for a million tokens.
func (p *TokenPrice) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a price is a string such as \"2.00\": %w", err)
	}
	perMillion, ok := new(big.Rat).SetString(text)
	if !ok || perMillion.Sign() < 0 {
		return fmt.Errorf("price %q is not a number of at least 0", text)
	}
	p.perToken = perMillion.Mul(perMillion, big.NewRat(int64(dollar), 1_000_000))
	return nil
}

// Usage is what an answer says of its tokens.
type Usage struct {
	Prompt  int64 // input: text and reference images
	Text    int64 // output that is text
	Image   int64 // output that is image
	Thought int64 // output of thinking
	Total   int64
	// ByImage is the list price of images that are paid by the piece and not by tokens.
	ByImage USD
}

// WithoutImage returns the usage less what the image is counted at, for answers that hold none.
func (u Usage) WithoutImage() Usage {
	u.Total -= u.Image
	u.Image, u.ByImage = 0, 0
	return u
}

// WithImage returns the usage of an answer to the job that holds an image, with the image's price where the model's images are paid by the piece:
// a service counts tokens only.
func (j *Job) WithImage(u Usage) Usage {
	u.ByImage = j.Model.imagePrices[j.Size]
	return u
}

// Cost returns what an answer with that usage costs in a tier, rounded up to a nano-dollar. An unknown tier costs list price.
func (c *Catalogue) Cost(m *Model, tier string, u Usage) USD {
	sum := new(big.Rat).SetInt64(int64(u.ByImage))
	add := func(price TokenPrice, tokens int64) {
		if price.perToken != nil {
			sum.Add(sum, new(big.Rat).Mul(price.perToken, new(big.Rat).SetInt64(tokens)))
		}
	}
	add(m.Price.Input, u.Prompt)
	add(m.Price.TextOutput, u.Text+u.Thought)
	add(m.Price.ImageOutput, u.Image)
	if factor := c.tiers[tier]; factor != nil {
		sum.Mul(sum, factor)
	}
	whole, rest := new(big.Int).QuoRem(sum.Num(), sum.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	return USD(whole.Int64())
}

// bytesPerToken is the usual length of a token of English text. Estimates only; the answer's own counts decide.
const bytesPerToken = 4

// Estimate returns what a job should cost when it yields one image in a tier. It counts the texts, the images that go in and
// the one that comes out, not thinking, whose length is known only afterwards.
func (c *Catalogue) Estimate(j *Job, tier string) USD {
	return c.Cost(j.Model, tier, j.EstimatedUsage())
}

// EstimatedUsage is the usage of one image for the job, for estimates and for answers that come without counts.
func (j *Job) EstimatedUsage() Usage {
	u := Usage{
		Prompt: int64((j.textBytes()+bytesPerToken-1)/bytesPerToken + j.images()*j.Model.ReferenceTokens),
		Image:  int64(j.Model.Sizes[j.Size]), ByImage: j.Model.imagePrices[j.Size],
	}
	u.Total = u.Prompt + u.Image
	return u
}
