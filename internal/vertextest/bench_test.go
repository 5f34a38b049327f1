package vertextest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
)

// BenchmarkServe measures server and reading client together, so it bounds from
// above what the stand-in costs in a benchmark of something else.
func BenchmarkServe(b *testing.B) {
	for _, bc := range []struct {
		name, protocol string
		bytes          int
	}{{"small h1", "h1", 0}, {"1.5MiB h1", "h1", 3 << 19}, {"1.5MiB h2c", "h2c", 3 << 19}, {"6MiB h2c", "h2c", 6 << 20}} {
		b.Run(bc.name, func(b *testing.B) {
			s, err := vertextest.Start(vertextest.Config{PlainPictures: true, ImageBytes: bc.bytes, CallLog: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			tr := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 64}
			tr.Protocols.SetHTTP1(bc.protocol == "h1")
			tr.Protocols.SetUnencryptedHTTP2(bc.protocol == "h2c")
			c := &http.Client{Transport: tr}
			b.SetBytes(int64(bc.bytes))
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := c.Post(s.URL()+proPath, "application/json", strings.NewReader(request("A lighthouse")))
					if err != nil {
						b.Error(err)
						return
					}
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err != nil || resp.StatusCode != http.StatusOK {
						b.Error(resp.Status, err)
						return
					}
				}
			})
		})
	}
}
