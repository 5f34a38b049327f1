package lanes

import (
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/assetmill/assetmill/jobs"
)

// hostForms are Google's hosts whose names tell where they are.
var hostForms = []*regexp.Regexp{
	regexp.MustCompile(`^([a-z]+-[a-z]+[0-9]{1,2})-aiplatform(?:\.mtls)?\.googleapis\.com$`),
	regexp.MustCompile(`^aiplatform\.([a-z]+(?:-[a-z]+[0-9]{1,2})?)\.rep(?:\.mtls)?\.googleapis\.com$`),
	regexp.MustCompile(`^[a-z0-9-]+\.([a-z]+-[a-z]+[0-9]{1,2})-[0-9]+\.prediction\.vertexai\.goog$`), // of a dedicated endpoint
}

// hostRegion returns where a host[:port] is, if its name tells: a region, a multi-region, or global. Else it returns nothing.
func hostRegion(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "aiplatform.googleapis.com" || host == "aiplatform.mtls.googleapis.com" {
		return jobs.GlobalRegion
	}
	for _, form := range hostForms {
		if m := form.FindStringSubmatch(host); m != nil {
			return m[1]
		}
	}
	return ""
}

// validHost reports whether text is a host or host:port, and nothing else.
func validHost(text string) bool {
	u, err := url.Parse("https://" + text)
	return err == nil && u.Host == text && u.Hostname() != "" && u.User == nil && u.Path == "" && u.RawQuery == "" && u.Fragment == "" &&
		!strings.ContainsAny(text, " ,;%")
}
