package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is one plot of growth; both axes are logarithmic.
type chart struct {
	file, title string
	x, y        string
	ticks       []int // of x; none: powers of ten
	lines       []series
}

type series struct {
	name   string
	points plotter.XYs
}

// charts are those for which there is something to draw.
func (p *plan) charts(b *book) []chart {
	list := []chart{
		{file: "size", title: "Durable stream by entry size, batches of 1,000 or 4 MiB", x: "payload, bytes", y: "payload, MB/s", ticks: []int{16, 64, 256, 1024, 4096, 16384, 65536},
			lines: p.lines(func(s store) plotter.XYs {
				xys := xy(b, jobSize, s.name(), "rate", func(x int) float64 { return float64(x) / 1e6 })
				if at := xy(b, jobStream, s.name(), "rate", func(int) float64 { return float64(p.size) / 1e6 }); len(xys) > 0 {
					for _, q := range at {
						if q.X == mainBatch {
							xys = sorted(append(xys, plotter.XY{X: float64(p.size), Y: q.Y}))
						}
					}
				}
				return xys
			})},
		{file: "batch", title: "Durable stream by entries in a batch", x: "entries in a batch", y: "entries/s",
			lines: p.lines(func(s store) plotter.XYs {
				if ownBatches(s) {
					return nil
				}
				xys := xy(b, jobStream, s.name(), "rate", one)
				name := s.name()
				if r, ok := s.(runlogStore); ok && r.waits {
					name = "runlog"
				}
				if len(xys) == 0 {
					return nil
				}
				return sorted(append(xys, xy(b, jobAlone, name, "rate", one)...))
			})},
		{file: "callers", title: "Goroutines, each waiting for its own append", x: "goroutines", y: "entries/s", ticks: []int{1, 4, 16, 64, 128},
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobGroup, s.name(), "rate", one) })},
		{file: "open", title: "Open after the process died", x: "entries", y: "ms",
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobOpen, s.name(), "open", func(int) float64 { return 1e-6 }) })},
		{file: "memory", title: "Anonymous memory that this open adds", x: "entries", y: "MiB",
			lines: p.lines(func(s store) plotter.XYs {
				return xy(b, jobOpen, s.name(), "anon", func(int) float64 { return 1.0 / (1 << 20) })
			})},
		{file: "get", title: "Read by number, random", x: "entries", y: "ns",
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobRead, s.name(), "get.ns", one) })},
		{file: "scan", title: "Scan", x: "entries", y: "entries/s",
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobRead, s.name(), "scan.rate", one) })},
		{file: "find", title: "Look up an order id", x: "entries", y: "ns",
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobFind, s.name(), "hit.ns", one) })},
		{file: "miss", title: "Look up an id that is not there", x: "entries", y: "ns",
			lines: p.lines(func(s store) plotter.XYs { return xy(b, jobFind, s.name(), "miss.ns", one) })},
		{file: "segments", title: "runlog: the same entries in more segments", x: "segments", y: "ns", lines: []series{
			{"read by number", xy(b, jobSegments+" read", "runlog", "get.ns", one)},
			{"look up an id", xy(b, jobSegments+" find", "runlog", "hit.ns", one)},
			{"look up no id", xy(b, jobSegments+" find", "runlog", "miss.ns", one)},
		}},
	}
	var drawn []chart
	for _, c := range list {
		var lines []series
		for _, s := range c.lines {
			if len(s.points) > 0 {
				lines = append(lines, s)
			}
		}
		if c.lines = lines; grows(lines) {
			drawn = append(drawn, c)
		}
	}
	return drawn
}

// grows says whether any line has more than one point.
func grows(lines []series) bool {
	for _, s := range lines {
		if len(s.points) > 1 {
			return true
		}
	}
	return false
}

func one(int) float64 { return 1 }

func (p *plan) lines(f func(s store) plotter.XYs) (list []series) {
	for _, s := range p.stores {
		list = append(list, series{s.name(), f(s)})
	}
	return list
}

// xy takes the medians of a metric over a job's x.
func xy(b *book, job, store, metric string, factor func(x int) float64) (list plotter.XYs) {
	for _, x := range b.xs(job) {
		if v, ok := b.median(point{job, x, store}, metric); ok && v > 0 {
			list = append(list, plotter.XY{X: float64(x), Y: v * factor(x)})
		}
	}
	return list
}

func sorted(list plotter.XYs) plotter.XYs {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j].X < list[j-1].X; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}

// Colors that can be read on white and on black alike.
var (
	gray = color.RGBA{128, 128, 128, 255}
	grid = color.NRGBA{128, 128, 128, 90}

	colors = map[string]color.RGBA{
		"floor": gray, "floor, at once": {160, 160, 160, 255}, "runlog": {31, 119, 255, 255}, "runlog, by batch": {92, 170, 255, 255},
		"etcd wal": {196, 110, 180, 255}, "raft-wal": {228, 87, 86, 255}, "tidwall/wal": {242, 142, 43, 255}, "bbolt": {84, 162, 75, 255},
		"pebble": {20, 160, 160, 255}, "badger": {157, 117, 93, 255}, "SQLite": {190, 155, 20, 255}, "NATS": {150, 100, 240, 255},
		"read by number": {31, 119, 255, 255}, "look up an id": {228, 87, 86, 255}, "look up no id": {84, 162, 75, 255},
	}
)

const chartWidth, chartHeight, legendWidth = 18 * vg.Centimeter, 10 * vg.Centimeter, 4.2 * vg.Centimeter

// svg draws the chart, its legend beside it.
func (c *chart) svg() ([]byte, error) {
	p := plot.New()
	p.BackgroundColor = nil // whatever the page has
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: font.Points(10)}
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks(c.ticks), ticks(nil)
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font, style.Color = sans, gray
	}
	p.Title.TextStyle.Font.Size, p.Title.Padding = font.Points(12), vg.Points(6)
	for _, line := range []*draw.LineStyle{&p.X.LineStyle, &p.Y.LineStyle, &p.X.Tick.LineStyle, &p.Y.Tick.LineStyle} {
		line.Color = gray
	}
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = grid, grid
	g.Vertical.Width, g.Horizontal.Width = vg.Points(0.5), vg.Points(0.5)
	p.Add(g)
	legend := plot.NewLegend()
	legend.TextStyle.Font, legend.TextStyle.Color = sans, gray
	legend.Top, legend.Left, legend.Padding = true, true, vg.Points(3)
	for i, s := range c.lines {
		line, dots, err := plotter.NewLinePoints(s.points)
		if err != nil {
			return nil, err
		}
		c := colors[s.name]
		line.Color, line.Width = c, vg.Points(1.2)
		if strings.HasPrefix(s.name, "runlog") {
			line.Width = vg.Points(2.6)
		}
		if strings.HasPrefix(s.name, "floor") {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}
		dots.Color, dots.Shape, dots.Radius = c, shapes[i%len(shapes)], vg.Points(2.5)
		p.Add(line, dots)
		legend.Add(s.name, line, dots)
	}
	widen(&p.X)
	widen(&p.Y)
	canvas := vgsvg.New(chartWidth, chartHeight)
	all := draw.New(canvas)
	p.Draw(draw.Crop(all, 0, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(all, chartWidth-legendWidth+vg.Points(8), 0, 0, -vg.Points(26)))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	return []byte(strings.ReplaceAll(b.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

// widen leaves some room around what an axis shows, and never less than a decade.
func widen(a *plot.Axis) {
	a.Min, a.Max = a.Min/1.2, a.Max*1.2
	if a.Max/a.Min < 10 {
		middle := math.Sqrt(a.Min * a.Max)
		a.Min, a.Max = middle/math.Sqrt(10), middle*math.Sqrt(10)
	}
}

// ticks marks these values, or the powers of ten.
func ticks(at []int) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) (list []plot.Tick) {
		for _, v := range at {
			list = append(list, plot.Tick{Value: float64(v), Label: short(float64(v), 1024)})
		}
		if len(at) > 0 {
			return list
		}
		for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
			v := math.Pow(10, e)
			if v >= low && v <= high {
				list = append(list, plot.Tick{Value: v, Label: short(v, 1000)})
			}
			for m := 2.0; m < 10; m++ {
				if v*m >= low && v*m <= high {
					list = append(list, plot.Tick{Value: v * m})
				}
			}
		}
		return list
	})
}

// short writes a round number with a unit prefix, decimal or binary.
func short(v, base float64) string {
	prefixes := []string{"", " k", " M", " G"}
	if base == 1024 {
		prefixes = []string{"", " Ki", " Mi", " Gi"}
	}
	i := 0
	for v >= base && i < len(prefixes)-1 {
		v, i = v/base, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.4g%s", v, prefixes[i]), " ")
}

// writeCharts writes them into a folder that it makes.
func writeCharts(dir string, list []chart) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range list {
		b, err := list[i].svg()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, list[i].file+".svg"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
