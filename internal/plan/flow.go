package plan

import "math"

// network is a flow network with capacities and costs: whole numbers, so that the cheapest flow is found exactly. Costs are not negative.
type network struct {
	arcs [][]int32 // by node: indices into ends; an arc's reverse is at its index ^ 1
	ends []arc
}

type arc struct {
	to   int32
	room int64 // how much more may flow
	cost int64 // of one unit
}

// endless is a capacity that is never reached.
const endless = math.MaxInt64 / 4

func newNetwork(nodes int) *network { return &network{arcs: make([][]int32, nodes)} }

// connect adds an arc and returns its index.
func (n *network) connect(from, to int, room, cost int64) int {
	i := len(n.ends)
	n.ends = append(n.ends, arc{int32(to), room, cost}, arc{int32(from), 0, -cost})
	n.arcs[from] = append(n.arcs[from], int32(i))
	n.arcs[to] = append(n.arcs[to], int32(i+1))
	return i
}

// flowed is what flows along an arc.
func (n *network) flowed(i int) int64 { return n.ends[i^1].room }

// fill sends as much as it can from one node to another, at the least cost. Each round takes the cheapest way that has room; since arcs back undo
// what earlier rounds did, the sum is the cheapest as well (successive shortest paths).
func (n *network) fill(from, to int) (amount, cost int64) {
	for {
		via, price := n.cheapest(from, to)
		if via == nil {
			return amount, cost
		}
		room := int64(endless)
		for at := to; at != from; at = int(n.ends[via[at]^1].to) {
			room = min(room, n.ends[via[at]].room)
		}
		for at := to; at != from; at = int(n.ends[via[at]^1].to) {
			n.ends[via[at]].room -= room
			n.ends[via[at]^1].room += room
		}
		amount += room
		cost += room * price
	}
}

// cheapest returns the cheapest way with room, as the arc by which each node is reached, and its price; nil when there is none. Bellman and Ford's algorithm, with a
// queue: arcs back have negative costs.
func (n *network) cheapest(from, to int) (via []int32, price int64) {
	price = endless
	prices := make([]int64, len(n.arcs))
	via = make([]int32, len(n.arcs))
	queued := make([]bool, len(n.arcs))
	for i := range prices {
		prices[i], via[i] = endless, -1
	}
	prices[from] = 0
	for queue := []int{from}; len(queue) > 0; {
		at := queue[0]
		queue = queue[1:]
		queued[at] = false
		for _, i := range n.arcs[at] {
			a := n.ends[i]
			if next := prices[at] + a.cost; a.room > 0 && next < prices[a.to] {
				prices[a.to], via[a.to] = next, i
				if !queued[a.to] {
					queued[a.to] = true
					queue = append(queue, int(a.to))
				}
			}
		}
	}
	if via[to] < 0 {
		return nil, 0
	}
	return via, prices[to]
}
