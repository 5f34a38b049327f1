package vertextest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
)

// DirectOutput is what a model makes of outputConfig.outputUriPrefix, the wish
// to have images written to Cloud Storage instead of into the answer. Which of
// Google's models honour it is not documented.
type DirectOutput int

// The kinds of direct output.
const (
	// DirectIgnored accepts the field and answers with inline images.
	DirectIgnored DirectOutput = iota
	// DirectHonoured writes each image below the prefix, through
	// [Config.CreateObject], and answers with fileData.
	DirectHonoured
	// DirectRefused answers 400 and names the field. Nothing is billed.
	DirectRefused
	// DirectDenied answers 403: the service agent may not write there. Nothing is billed.
	DirectDenied
)

// maxObjectName is the longest name of an object in Cloud Storage, in bytes.
const maxObjectName = 1024

// setOutput reads outputConfig, which every model may carry and few obey.
func (s *Server) setOutput(c *Call, t tree) *apiError {
	prefix := t.text("outputConfig", "outputUriPrefix")
	if prefix == "" {
		return nil
	}
	switch s.cfg.DirectOutput[c.Model] {
	case DirectIgnored:
		return nil
	case DirectRefused:
		return invalid("Unable to submit request because output_config.output_uri_prefix is not supported by model %s. Remove the field and try again.", c.Model)
	case DirectDenied:
		return agentDenied(prefix)
	}
	bucket, name, ok := splitPrefix(prefix)
	if !ok || len(name) > maxObjectName {
		return invalid("Invalid value at 'output_config.output_uri_prefix': %q is not a Cloud Storage URI.", prefix)
	}
	c.OutputPrefix = "gs://" + bucket + "/" + name
	return nil
}

// splitPrefix parts gs://bucket/some/prefix; the prefix may be empty.
func splitPrefix(uri string) (bucket, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	if !ok {
		return "", "", false
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	return bucket, prefix, bucket != ""
}

func agentDenied(uri string) *apiError {
	e := statusError(http.StatusForbidden)
	e.Message = "service-000000000000@gcp-sa-aiplatform.iam.gserviceaccount.com does not have storage.objects.create access to " + uri + "."
	return e
}

// writeDirect puts the images of a below the prefix of c and leaves their URIs
// in the answer. Names are the service's own choice and never repeat. The
// image was made and is paid for, so only the server's end stops the writing.
func (s *Server) writeDirect(c *Call, a *answer) error {
	if c.OutputPrefix == "" {
		return nil
	}
	prefix := strings.TrimSuffix(c.OutputPrefix, "/")
	folder := fmt.Sprintf("%s/%d-%d", prefix, a.createTime.UnixMicro(), s.written.Add(1))
	n := 0
	for i := range a.parts {
		p := &a.parts[i]
		if p.image == nil {
			continue
		}
		_, kind, _ := strings.Cut(p.image.mime, "/")
		uri := folder + "/sample_" + strconv.Itoa(n) + "." + kind
		n++
		if err := s.writeImage(s.base, uri, p.image); err != nil {
			return directError(err, uri)
		}
		p.uri = uri
	}
	return nil
}

func (s *Server) writeImage(ctx context.Context, uri string, img *imageFile) error {
	bucket, name, _ := splitGS(uri)
	return s.writeObject(ctx, bucket, name, img.mime, func(w io.Writer) error {
		for _, piece := range img.pieces {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeObject creates one object whole, or not at all.
func (s *Server) writeObject(ctx context.Context, bucket, name, contentType string, write func(io.Writer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.cfg.CreateObject(ctx, bucket, name, contentType)
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		cancel() // before Close, which would make half an object visible
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// directError is what a caller is told of an object that could not be written.
func directError(err error, uri string) *apiError {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return agentDenied(uri)
	case errors.Is(err, fs.ErrNotExist):
		e := statusError(http.StatusNotFound)
		e.Message = "The specified bucket does not exist: " + uri
		return e
	default:
		return statusError(http.StatusInternalServerError)
	}
}
