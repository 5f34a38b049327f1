package collectbench

import (
	"fmt"
	"slices"
	"testing"
)

// BenchmarkCollect collects outputs of a gigabyte. The metrics `of-loop` and `of-2-loops` are its speed divided by that of the loop in the same turn,
// alone and with two at a time. Those with `-cpu` compare the CPU, which hardly depends on who else uses the machine: `-all-cpu` with what the stand-ins
// take, which is the speed of a machine that is busy to the last core. They are medians of the turns. `best-of-loop` compares the fastest turn of each.
func BenchmarkCollect(b *testing.B) {
	for _, size := range []int{1_500_000, 6_000_000} {
		b.Run(mb(size)+"MB", func(b *testing.B) { benchmarkCollect(b, ask{Rows: int(750e6) / size, ImageBytes: size}) })
	}
}

func mb(bytes int) string { return fmt.Sprintf("%.1f", float64(bytes)/1e6) }

func benchmarkCollect(b *testing.B, a ask) {
	all := map[string][]float64{}
	note := func(name string, value float64) { all[name] = append(all[name], value) }
	for b.Loop() {
		r, stop, err := startCloud(b.Context(), a)
		if err != nil {
			b.Fatal(err)
		}
		took := map[int]figures{}
		for _, loops := range []int{1, 2, 0} { // 0: the collector
			r.Loops = loops
			if took[loops], err = contend(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			b.Logf("%d loops: %+v", loops, took[loops])
		}
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		size, ours := float64(r.Place.Size)/1e6, took[0]
		note("MB/s", size/ours.Seconds)
		note("cpu-ms/image", ours.CPU*1e3/float64(a.Rows))
		note("peak-MiB", float64(ours.Peak)/(1<<20))
		for loops, name := range map[int]string{1: "loop", 2: "2-loops"} {
			theirs := took[loops]
			note(name+"-MB/s", size/theirs.Seconds)
			note("of-"+name, theirs.Seconds/ours.Seconds)
			note("of-"+name+"-cpu", theirs.CPU/ours.CPU)
			note("of-"+name+"-all-cpu", (theirs.CPU+theirs.Cloud)/(ours.CPU+ours.Cloud))
		}
	}
	b.ReportMetric(slices.Max(all["MB/s"])/slices.Max(all["loop-MB/s"]), "best-of-loop")
	b.ReportMetric(slices.Max(all["MB/s"])/slices.Max(all["2-loops-MB/s"]), "best-of-2-loops")
	for name, values := range all {
		slices.Sort(values)
		b.ReportMetric(values[(len(values)-1)/2], name) // of two in the middle the lower one
	}
}
