// Package pace decides when the next call of one worker on one lane may begin.
//
// A lane's quota is hidden. It changes, and it is shared with our other workers,
// which are not asked, and with strangers. A call beyond it is throttled within
// tens to hundreds of milliseconds and says nothing else; a call within it is
// answered after 7 to 60 s. Sharp ramps are punished. So a [Limiter] learns from
// silence: a call that has not been throttled by the time the next one is due was
// taken. It keeps a rate, spaces the calls evenly by it, lets it grow while nothing
// is throttled, and cuts it when something is.
//
// # The law
//
// The logarithm of the rate grows at a speed s. The service keeps some quarter of
// a second of unused quota, so a rate that passes the quota is not throttled at
// once: the excess first uses that up, which at speed s takes sqrt(2*0.25/s)
// seconds, and by then the rate is sqrt(s/2) too high, again as a logarithm.
// Everything follows from this:
//
//   - Search. A limiter starts with one call a second and s = 0.35, which doubles
//     the rate every two seconds. A throttle cuts the rate by 1.2*sqrt(s/2), that is
//     to just below the quota, and halves s: each round is finer than the last.
//   - Track. s does not fall below 1/(2*T*T). There a cut is 0.6/T and the growth
//     after it takes about T: a worker is throttled about once in T. T is 20 s, less
//     where there are more than 12 calls a second, and at least six calls. This is
//     what keeps the throttled share small and the rate near the quota.
//   - Follow. When nothing was throttled for longer than 1.25*T, the quota has
//     probably risen: from then on s doubles every T/5, up to 0.1, and the next
//     throttle starts a search from there.
//   - Fall. When a throttle comes within two calls of the last cut, that cut was
//     too shallow: each further one is twice as deep, up to more than a half. All
//     throttles of calls that began before a cut belong to that cut.
//   - Probe. The rate never falls below a tenth of what the lane gave lately, within
//     5 s to a minute between calls. At that floor nothing is known any more, and
//     with the first call that is taken the search starts anew, at most doubling
//     from call to call.
//
// Workers converge without being coordinated because all grow by the same factor
// while who sends more is throttled more often. When a throttled call is the last
// one, the next one follows at another point of the interval, so that workers do
// not keep colliding.
//
// The rate does not grow while the demand is smaller, while calls begin late
// because something else binds, after a call that told nothing (see
// [Limiter.Lost]), or when two minutes brought no answer at all. After a minute
// without a call it fades, because a sudden return would be a sharp ramp.
//
// # Invariants
//
// Wait is never longer than two minutes. If the caller heeds it, no two calls
// begin closer together than the interval less 2 ms, whatever happened before,
// except that the call after a throttled one may come sooner. The rate stays
// finite, positive and below the configured ceiling. Memory is constant and small.
//
// # What it does not do
//
// It repeats no call, shuts no lane, bounds no calls in flight, and knows nothing
// of prompts, prices or latencies. It takes every throttle for a sign that calls
// come too fast: where a share p of calls is throttled whatever the rate, it
// settles at about 0.09/p calls a second.
//
// How it fares against five other ways, and where it misses its targets, is in
// docs/pacing.md; package pacesim beside this one measures it.
package pace
