//go:build linux

package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/internal/vertextest"
)

// cloudRole is the variable that makes the test binary a local cloud; its value is a cloudConfig.
const cloudRole = "ASSETMILL_TORTURE_CLOUD"

// startLimit bounds the start of a cloud on a machine that is busy with others.
const startLimit = 2 * time.Minute

// cloudConfig is what a cloud's process is told.
type cloudConfig struct {
	Dir      string
	Min, Max time.Duration // of a call
	// BatchTime is how long a batch prediction job waits, and then runs. ShardRows is how many rows each of its output files takes; 0: all.
	BatchTime time.Duration
	ShardRows int
}

// serveCloud is the main function of a cloud's process.
func serveCloud(text string) error {
	var cfg cloudConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	addr, stopPubSub, err := startPubSub()
	if err != nil {
		return err
	}
	defer stopPubSub()
	cloud, err := localcloud.Start(ctx, localcloud.Config{
		Dir: cfg.Dir, PubSubEmulator: addr, Warn: func(text string) { fmt.Fprintln(os.Stderr, text) },
		Vertex: vertextest.Config{
			MinLatency: cfg.Min, MaxLatency: cfg.Max,
			PlainPictures: true,
			BillAbandoned: true, // a client that dies does not stop the real model either
			VaryRepeats:   true, // a second picture in the place of the first must show
			Batch:         vertextest.Batch{Pending: cfg.BatchTime, Running: cfg.BatchTime, ShardRows: cfg.ShardRows, SpoolDir: filepath.Dir(cfg.Dir)},
		},
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return cloud.Close()
}

// cloud is a local cloud in a process of its own.
type cloud struct {
	t      *testing.T
	name   string
	dir    string
	log    string
	argv   []string
	env    []string
	starts int
	*process
}

// startCloud runs a cloud and waits until it answers.
func startCloud(t *testing.T, dir, name string, p plan, prefix ...string) *cloud {
	t.Helper()
	return startCloudAs(t, dir, name, cloudConfig{Min: p.latency - p.spread, Max: p.latency + p.spread}, prefix...)
}

// startCloudAs is startCloud with a configuration, whose folder it chooses.
func startCloudAs(t *testing.T, dir, name string, settings cloudConfig, prefix ...string) *cloud {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	settings.Dir = filepath.Join(dir, name)
	cfg, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{
		t: t, name: name, dir: filepath.Join(dir, name), log: filepath.Join(dir, name),
		argv: append(prefix, self), env: append(os.Environ(), cloudRole+"="+string(cfg)),
	}
	c.begin()
	return c
}

func (c *cloud) begin() {
	c.t.Helper()
	c.starts++
	if err := os.Remove(c.envFile()); err != nil && !errors.Is(err, fs.ErrNotExist) { // a killed cloud leaves it
		c.t.Fatal(err)
	}
	c.process = start(c.t, c.name, fmt.Sprintf("%s-%d.log", c.log, c.starts), c.env, c.argv...)
	eventually(c.t, startLimit, 20*time.Millisecond, c.name+" answers", func() bool {
		if c.hasEnded() {
			c.t.Fatalf("%s has ended: %v\n%s", c.name, c.err, tail(c.process.log, 10))
		}
		_, err := os.Stat(c.envFile())
		return err == nil
	})
}

func (c *cloud) envFile() string { return filepath.Join(c.dir, "env") }
func (c *cloud) callLog() string { return filepath.Join(c.dir, "vertex-calls.jsonl") }
func (c *cloud) bucket(name string) string {
	return filepath.Join(c.dir, "storage", name)
}

// variables returns what the cloud exports.
func (c *cloud) variables() map[string]string {
	c.t.Helper()
	text, err := os.ReadFile(c.envFile())
	if err != nil {
		c.t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			vars[name] = strings.Trim(value, "'")
		}
	}
	return vars
}

// relay passes connections on to an address that may change, so that a service that comes back on another port is found where
// it was. While the service is away, nothing listens, as if the relay were the service itself.
type relay struct {
	t        *testing.T
	addr     string
	target   string
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]struct{} // nil once the relay is closed
}

// startRelay returns a relay to an address, on a port of its own that stays the same.
func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	r := &relay{t: t, addr: "127.0.0.1:0"}
	r.resume(target)
	r.addr = r.listener.Addr().String()
	t.Cleanup(r.pause)
	return r
}

// resume accepts connections for an address.
func (r *relay) resume(target string) {
	r.t.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.listener, r.target, r.open = l, target, map[net.Conn]struct{}{}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c) })
		}
	})
}

// pause ends all connections and refuses new ones.
func (r *relay) pause() {
	r.listener.Close()
	r.mu.Lock()
	for c := range r.open {
		c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.wg.Wait()
}

// keep registers a connection to be closed with the relay. It reports whether the relay is still open.
func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		return false
	}
	r.open[c] = struct{}{}
	return true
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	c.Close()
}

func (r *relay) pass(front net.Conn) {
	defer r.drop(front)
	if !r.keep(front) {
		return
	}
	back, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer r.drop(back)
	if !r.keep(back) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(back, front) })
	both.Go(func() { r.copy(front, back) })
	both.Wait()
}

// copy passes bytes one way. The end of one way is the end of both: nobody here half-closes.
func (r *relay) copy(to, from net.Conn) {
	_, _ = to.(*net.TCPConn).ReadFrom(from) // a connection that breaks is what this is for
	to.Close()
	from.Close()
}

// address returns the host:port of a variable's value, which may be a URL, and the value with another in its place.
func address(value string) (addr string, replace func(string) string) {
	if u, err := url.Parse(value); err == nil && u.Host != "" {
		return u.Host, func(other string) string { u.Host = other; return u.String() }
	}
	return value, func(other string) string { return other }
}
