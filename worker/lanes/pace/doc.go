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
//     where there are more than 12 calls a second, and fifty calls where that is
//     longer, up to 150 s. This is what keeps the throttled share small and the rate
//     near the quota.
//   - Follow. When nothing was throttled for longer than 1.25*T, the quota has
//     probably risen: from then on s doubles every T/5, or every two calls where
//     that is sooner, up to 0.1, and the next throttle starts a search from there.
//   - Fall. When a throttle comes within two calls of the last cut, that cut was
//     too shallow: each further one is twice as deep, up to more than a half, and what
//     it took too much is searched for. All throttles of calls that began before a cut
//     belong to that cut.
//   - Probe. The rate never falls below a tenth of what the lane gave lately, within
//     5 s to a minute between calls. At that floor nothing is known any more, and
//     with the first call that is taken the search starts anew, at most doubling
//     from call to call.
//
// Workers that do not know of each other converge because all grow by the same factor
// while who sends more is throttled more often. When a throttled call is the last
// one, the next one follows at another point of the interval, so that workers do
// not keep colliding.
//
// The rate does not grow while the demand is smaller, while calls begin late
// because something else binds, after a call that told nothing (see
// [Limiter.Lost]), or when two minutes brought no answer at all. After a minute
// without a call it fades, because a sudden return would be a sharp ramp.
//
// # Turns
//
// A lane with room for a few calls at a time can't be shared by workers that call
// when they like: however slowly all call, a share u of the quota costs them a share
// u of throttled calls. Workers that hear of each other ([Sharing]) share it by time.
// Each tells its state of the law in a [Report] with its signs of life, which arrive
// some 5 to 10 s later, and hears all others'. There is no coordinator, and nothing
// is written that the workers do not write anyway.
//
//   - The members of a lane are the workers in which jobs wait for it, in an order
//     that depends on the lane and on their ids alone. The clock of whatever stores the
//     reports is the clock of all.
//   - Time is cut into slots of 16 to 64 s, and the lane into seats of about 6 calls a
//     second; most lanes have one. In slot i the members from place i*seats on have a
//     seat each and call, each at its seat's rate; the others wait.
//   - Who takes a seat goes on with the rate, the growth and the silence that the
//     member before it has told, and corrects them when its last report arrives.
//   - The first member decides on the number of seats and the length of slots, and
//     tells it 12 s and more before it is in force.
//   - Where there are as many seats as members, where jobs are few, or where a worker
//     has heard nothing for two minutes, all call together, each by the law alone.
//     Members that call together draw their rates together.
//   - Who joins takes part 12 s after it has told so, when all have heard it; whose
//     reports stop is left out after 40 s. All reckon with the same reports, so all
//     come to the same turns. Where they do not for a while, two call in one slot or
//     nobody does, and the law sees to the rest.
//
// # Throttles that do not depend on the rate
//
// In a pool that is shared with strangers some share of the calls is throttled however
// slowly they come. A quota is known by its throttles' end as soon as the rate is lower;
// such background, as it is called here, goes on. Only a [Sharing] tells them apart:
//
//   - Evidence is calls at clearly reduced rates, and how many of them were throttled.
//     For a worker that is alone on the lane, or has its only seat, these are the calls
//     after a cut, but for the first three (eight on a narrow lane), until half of the cut is
//     made up for. Where p is not 0 it is a sixth, by which a cut goes below the quota. Of
//     their throttles one in T is the law's own. Workers that call at the same time all
//     slow down to three quarters for 8 s, when the leader says so: first after a minute,
//     then each 45 s while it is open whether there is background and how much, each four
//     minutes where there is some, or after gaps that double where there is none. All add
//     up their evidence, which fades with a time constant of ten minutes.
//   - The background p is what that shows, up to 12 %, unless it may be luck or is less than
//     0.3 %: then it is 0, each throttle counts, and the law is as above.
//   - Else each throttle adds 1 to the excess, each call takes 1.15 p off it, down to 0, and the
//     rate is cut when the excess reaches 1 + e, where e is what n throttles
//     that are expected in T may be off by chance: a quarter of a second's calls, between
//     1.5*sqrt(n) and 4*sqrt(n), and somewhat more while p is uncertain. The cut is deeper
//     by what the rate overshot meanwhile, and the silence that is expected after it longer.
//   - When p rises, earlier cuts were wrong, and the rate is searched for.
//
// # Invariants
//
// Wait is never longer than two minutes. If the caller heeds it, no two calls
// begin closer together than the interval less 10 ms, whatever happened before,
// except that the call after a throttled one may come sooner. The rate stays
// finite, positive and below the configured ceiling. Memory is constant and small.
//
// # What it does not do
//
// It repeats no call, shuts no lane, bounds no calls in flight, and knows nothing
// of prompts, prices or latencies. A [Limiter] by itself takes every throttle for a sign
// that calls come too fast: where a share of the calls is throttled whatever the rate, it
// settles at about 690 calls a minute for 1 %, 340 for 2 %, 70 for 5 %. So does a Sharing
// that does not hear of the others.
//
// How it fares against five other ways, and where it misses its targets, is in
// docs/pacing.md; package pacesim beside this one measures it.
package pace
