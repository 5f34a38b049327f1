package scalesim_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/assetmill/assetmill/internal/scalesim"
)

// A chart is panels one above the other, with one axis of time. It is drawn as SVG here, since the libraries that draw come with fonts, PDF and
// LaTeX: nine modules for a few lines and areas.
type chart struct {
	title    string
	from, to time.Duration
	tick     time.Duration // of the axis
	bands    []band
	panels   []panel
}

// band is a time that is shaded.
type band struct {
	from, to time.Duration
	color    string
	text     string
}

type panel struct {
	title string
	lines []line
}

type line struct {
	name   string
	color  string
	filled bool
	dashed bool
	values []float64 // one a minute, from the scenario's beginning
}

const (
	chartWidth  = 900
	panelHeight = 130
	panelGap    = 42
	marginLeft  = 64
	marginRight = 24
	marginTop   = 78
	points      = 400 // of a line at most
)

// Colours that people with colour blindness tell apart (Okabe and Ito).
const (
	blue   = "#0072B2"
	orange = "#E69F00"
	green  = "#009E73"
	red    = "#D55E00"
	grey   = "#999999"
)

func (c *chart) svg() string {
	height := marginTop + len(c.panels)*(panelHeight+panelGap) + 8
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#222">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, "<title>%s</title>\n"+`<rect width="%d" height="%d" fill="#fff"/>`+"\n", c.title, chartWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15" font-weight="bold">%s</text>`+"\n", marginLeft, c.title)
	var rows [3]float64 // where the last label of each row ends
	for _, band := range c.bands {
		from, to := max(band.from, c.from), min(band.to, c.to)
		if from >= to {
			continue
		}
		x, width := c.x(from), c.x(to)-c.x(from)
		fmt.Fprintf(&b, `<rect x="%s" y="%d" width="%s" height="%d" fill="%s" fill-opacity="0.16"/>`+"\n", num(x), marginTop-8, num(width), height-marginTop-18, band.color)
		row := 0
		for row < len(rows)-1 && rows[row] > x {
			row++
		}
		rows[row] = x + 6.5*float64(len(band.text))
		fmt.Fprintf(&b, `<text x="%s" y="%d" font-size="11" fill="#555">%s</text>`+"\n", num(x), 38+14*row, band.text)
	}
	for i := range c.panels {
		c.draw(&b, &c.panels[i], marginTop+i*(panelHeight+panelGap)+18)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c *chart) x(at time.Duration) float64 {
	return marginLeft + float64(at-c.from)/float64(c.to-c.from)*(chartWidth-marginLeft-marginRight)
}

// num is a coordinate, to a tenth.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func (c *chart) draw(b *strings.Builder, p *panel, top int) {
	highest := 0.0
	for _, l := range p.lines {
		for m := int(c.from.Minutes()); m < min(int(c.to.Minutes()), len(l.values)); m++ {
			highest = max(highest, l.values[m])
		}
	}
	step := niceStep(highest)
	highest = max(step, math.Ceil(highest/step)*step)
	y := func(v float64) float64 { return float64(top) + panelHeight*(1-v/highest) }
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", marginLeft, top-6, p.title)
	for v := 0.0; v <= highest*1.0001; v += step {
		fmt.Fprintf(b, `<path d="M%d %sH%d" stroke="#ddd"/><text x="%d" y="%s" text-anchor="end">%s</text>`+"\n",
			marginLeft, num(y(v)), chartWidth-marginRight, marginLeft-6, num(y(v)+4), num(v))
	}
	for at := c.from; at <= c.to; at += c.tick {
		fmt.Fprintf(b, `<text x="%s" y="%d" text-anchor="middle" fill="#555">%02d:%02d</text>`+"\n", num(c.x(at)), top+panelHeight+15, int(at.Hours()), int(at.Minutes())%60)
	}
	legend := float64(chartWidth - marginRight)
	for i := len(p.lines) - 1; i >= 0; i-- {
		l := &p.lines[i]
		legend -= 7*float64(len(l.name)) + 34
		fmt.Fprintf(b, `<path d="M%s %dh18" stroke="%s" stroke-width="3"%s/><text x="%s" y="%d">%s</text>`+"\n",
			num(legend), top-10, l.color, dash(l.dashed), num(legend+22), top-6, l.name)
	}
	for _, l := range p.lines {
		c.line(b, &l, y)
	}
}

func dash(on bool) string {
	if on {
		return ` stroke-dasharray="5 3"`
	}
	return ""
}

func (c *chart) line(b *strings.Builder, l *line, y func(float64) float64) {
	from, to := int(c.from.Minutes()), min(int(c.to.Minutes()), len(l.values))
	every := max(1, (to-from+points-1)/points)
	var path strings.Builder
	for m := from; m < to; m += every {
		// The highest of the minutes that share a point, so that no peak is lost.
		v := 0.0
		for k := m; k < min(m+every, to); k++ {
			v = max(v, l.values[k])
		}
		command := "L"
		if m == from {
			command = "M"
		}
		fmt.Fprintf(&path, "%s%s %s", command, num(c.x(time.Duration(m)*time.Minute)), num(y(v)))
	}
	if l.filled {
		fmt.Fprintf(b, `<path d="%sL%s %sL%s %sZ" fill="%s" fill-opacity="0.35"/>`+"\n",
			path.String(), num(c.x(time.Duration(to-1)*time.Minute)), num(y(0)), num(c.x(c.from)), num(y(0)), l.color)
		return
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6"%s/>`+"\n", path.String(), l.color, dash(l.dashed))
}

// niceStep divides an axis into three to six parts of 1, 2 or 5 times a power of ten.
func niceStep(highest float64) float64 {
	if highest <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(highest/3)))
	for _, f := range []float64{5, 2} {
		if highest/(power*f) >= 3 {
			return power * f
		}
	}
	return power
}

func each(r *scalesim.Result, of func(*scalesim.Minute) float64) (all []float64) {
	for i := range r.Minutes {
		all = append(all, of(&r.Minutes[i]))
	}
	return all
}

// bands shades what the scenario does to the workers.
func bands(sc *scalesim.Scenario) (all []band) {
	for _, a := range sc.Arrivals {
		if a.Name != "" {
			all = append(all, band{a.At, a.At + a.Over, grey, fmt.Sprintf("%s: %d,000 jobs", a.Name, a.Jobs/1000)})
		}
	}
	steps := sc.Lanes[0].Quota
	for i, s := range steps {
		if s.PerMinute == steps[0].PerMinute {
			continue
		}
		b := band{from: s.At, to: sc.Length, color: orange, text: fmt.Sprintf("quota %d/min", s.PerMinute)}
		if s.PerMinute == 0 {
			b.color, b.text = red, "outage"
		}
		if i+1 < len(steps) {
			b.to = steps[i+1].At
		}
		all = append(all, b)
	}
	for _, a := range sc.Rules.Announced {
		all = append(all, band{a.From, a.To, blue, ""})
	}
	return all
}

// fleetChart shows a whole scenario, or a part of it.
func fleetChart(title string, sc *scalesim.Scenario, r *scalesim.Result, from, to, tick time.Duration) string {
	perWorker := float64(sc.Rules.PerWorker)
	c := &chart{title: title, from: from, to: to, tick: tick, bands: bands(sc), panels: []panel{
		{"jobs that are not done, thousands", []line{
			{name: "backlog", color: blue, filled: true, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Backlog) / 1000 })},
		}},
		{"age of the oldest of them, minutes", []line{
			{name: "oldest", color: red, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Oldest) / 60 })},
		}},
		{"workers", []line{
			{name: "with those that start or stop", color: orange, filled: true, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Pods) })},
			{name: "at work", color: blue, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Ready) })},
			{name: "calls in flight / " + strconv.Itoa(sc.Rules.PerWorker), color: green, dashed: true,
				values: each(r, func(m *scalesim.Minute) float64 { return float64(m.InFlight) / perWorker })},
		}},
		{"calls in flight", []line{
			{name: "all", color: green, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.InFlight) })},
			{name: "in workers that stop", color: red, filled: true, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Stopping) })},
		}},
		{"a minute", []line{
			{name: "quota", color: orange, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Quota) })},
			{name: "images", color: blue, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Images) })},
			{name: "throttled", color: red, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Throttled) })},
		}},
	}}
	return c.svg()
}
