package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/api/googleapi"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/assetmill/assetmill/schemas"
)

// mender puts one finding right.
type mender func(ctx context.Context) error

// Mend puts findings of [Report.Mendable] right, in their order, and returns those that it has. It goes on after an error; the error joins
// all of them. The clients of the run that made the findings must still be open.
func Mend(ctx context.Context, findings []Finding) (done []Finding, err error) {
	for _, f := range findings {
		if f.mend == nil {
			continue
		}
		if e := f.mend(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %s: %w", f.Resource, f.Mendable, e))
			continue
		}
		done = append(done, f)
	}
	return done, err
}

// updateSubscription sets some fields of a subscription. To undo it, set them back.
func (x *exam) updateSubscription(s *pubsubpb.Subscription, fields *fieldmaskpb.FieldMask) mender {
	return func(ctx context.Context) error {
		ctx, done := look(ctx)
		defer done()
		_, err := x.cfg.Clients.Subscriptions.UpdateSubscription(ctx, &pubsubpb.UpdateSubscriptionRequest{Subscription: s, UpdateMask: fields})
		return err
	}
}

// createView makes a view. To undo it, delete it.
func (x *exam) createView(v schemas.View) mender {
	return func(ctx context.Context) error {
		ctx, done := look(ctx)
		defer done()
		_, err := x.bigquery.Tables.Insert(x.cfg.Project, x.cfg.Dataset, &bigquery.Table{
			TableReference: &bigquery.TableReference{ProjectId: x.cfg.Project, DatasetId: x.cfg.Dataset, TableId: v.Name},
			Description:    v.Description,
			View:           &bigquery.ViewDefinition{Query: v.SQL, ForceSendFields: []string{"UseLegacySql"}},
		}).Context(ctx).Do()
		return err
	}
}

// addLifecycleRule adds a rule to those that a bucket has now, which go back as they came. To undo it, take the rule out.
func (x *exam) addLifecycleRule(bucket string, rule json.RawMessage) mender {
	return func(ctx context.Context) error {
		ctx, done := look(ctx)
		defer done()
		text, err := x.getBucket(ctx, bucket, "fields=lifecycle,metageneration")
		if err != nil {
			return err
		}
		var now struct {
			Metageneration string                     `json:"metageneration"`
			Lifecycle      map[string]json.RawMessage `json:"lifecycle"`
		}
		var rules []json.RawMessage
		if err := json.Unmarshal(text, &now); err != nil {
			return err
		}
		if all := now.Lifecycle["rule"]; all != nil {
			if err := json.Unmarshal(all, &rules); err != nil {
				return err
			}
		}
		body, err := json.Marshal(map[string]any{"lifecycle": map[string]any{"rule": append(rules, rule)}})
		if err != nil {
			return err
		}
		return x.patchBucket(ctx, bucket, "ifMetagenerationMatch="+url.QueryEscape(now.Metageneration), body)
	}
}

func (x *exam) patchBucket(ctx context.Context, bucket, query string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, x.storageBase+"b/"+url.PathEscape(bucket)+"?"+query, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.storageHTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return googleapi.CheckResponse(resp)
}
