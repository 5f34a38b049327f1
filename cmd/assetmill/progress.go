package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainInterval spaces progress lines where there is no terminal to draw a bar on.
const plainInterval = 10 * time.Second

// progress shows how far something is: a bar on a terminal, a line now and then elsewhere. It is not safe for concurrent use.
type progress struct {
	out  io.Writer
	tty  bool
	bar  *progressbar.ProgressBar
	what string
	last time.Time
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// show says that done of total are through; what names the step, and note adds a few words.
func (p *progress) show(what string, done, total int64, note string) {
	if what != p.what {
		p.finish()
		p.what, p.last = what, time.Now() // what takes a moment needs no line
	}
	if !p.tty {
		if time.Since(p.last) < plainInterval {
			return
		}
		p.last = time.Now()
		fmt.Fprintf(p.out, "%s: %d of %d%s\n", what, done, total, note)
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(),
			progressbar.OptionFullWidth())
	}
	p.bar.ChangeMax64(max(total, 1))
	p.bar.Describe(what + note)
	_ = p.bar.Set64(min(done, max(total, 1))) // drawing is best effort
}

// finish takes the bar off the screen.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	p.what = ""
}
