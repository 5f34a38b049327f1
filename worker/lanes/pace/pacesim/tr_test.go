package pacesim
import ("fmt";"testing";"time";"github.com/assetmill/assetmill/worker/lanes/pace")
type tr struct{ ours }
func (o tr) Throttled(now, began time.Time) {
	b := o.Rate()
	o.Limiter.Throttled(now, began, 0)
	fmt.Printf("%7.1f throttled (begun %.1f) rate %.3f -> %.3f wait %.1f\n", float64(now.UnixNano())/1e9, float64(began.UnixNano())/1e9, b, o.Rate(), o.Wait(now).Seconds())
}
func (o tr) Begin(now time.Time, more bool) { o.Limiter.Begin(now, more); fmt.Printf("%7.1f begin rate %.3f\n", float64(now.UnixNano())/1e9, o.Rate()) }
func TestTr(t *testing.T) {
	Run(Steady(1, 5), Algorithm{Name: "x", New: func(_ int, seed uint64, now time.Time) Pacer { return tr{ours{pace.New(pace.Config{Seed: seed}, now)}} }}, 1)
}
