package rival

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
)

// NaiveConfig says where a naive worker finds things. Pub/Sub and Cloud Storage come from their emulators' variables.
type NaiveConfig struct {
	Project      string
	Subscription string
	Bucket       string
	Dataset      string
	Table        string
	ModelURL     string
	BigQueryURL  string
	InFlight     int
	Log          io.Writer
}

// Naive works on jobs until ctx ends, in the plainest way: receive, call, read all, unmarshal, write, insert, ack. All clients are as
// they come.
func Naive(ctx context.Context, cfg NaiveConfig) error {
	queue, err := pubsub.NewClient(ctx, cfg.Project)
	if err != nil {
		return err
	}
	defer queue.Close()
	store, err := storage.NewClient(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	rows, err := bigquery.NewClient(ctx, cfg.Project, option.WithEndpoint(cfg.BigQueryURL), option.WithoutAuthentication())
	if err != nil {
		return err
	}
	defer rows.Close()
	n := &naive{cfg: cfg, bucket: store.Bucket(cfg.Bucket), rows: rows.Dataset(cfg.Dataset).Table(cfg.Table).Inserter()}
	sub := queue.Subscriber(cfg.Subscription)
	sub.ReceiveSettings.MaxOutstandingMessages = cfg.InFlight
	return sub.Receive(ctx, func(ctx context.Context, m *pubsub.Message) {
		if err := n.handle(ctx, m.Data); err != nil {
			fmt.Fprintln(cfg.Log, err)
			m.Nack()
			return
		}
		m.Ack()
	})
}

type naive struct {
	cfg    NaiveConfig
	bucket *storage.BucketHandle
	rows   *bigquery.Inserter
}

type naiveJob struct {
	ID     string `json:"id"`
	Prompt string `json:"prompt"`
}

type naiveAnswer struct {
	Candidates []struct {
		Content struct {
			Parts []struct {
				InlineData struct {
					MimeType string `json:"mimeType"`
					Data     []byte `json:"data"`
				} `json:"inlineData"`
			} `json:"parts"`
		} `json:"content"`
	} `json:"candidates"`
}

type naiveRow struct {
	JobID      string    `bigquery:"job_id"`
	Prompt     string    `bigquery:"prompt"`
	Outcome    string    `bigquery:"outcome"`
	AssetURI   string    `bigquery:"asset_uri"`
	AssetBytes int64     `bigquery:"asset_bytes"`
	FinishedAt time.Time `bigquery:"finished_at"`
}

func (n *naive) handle(ctx context.Context, data []byte) error {
	var job naiveJob
	if err := json.Unmarshal(data, &job); err != nil {
		return err
	}
	mime, picture, err := n.call(ctx, job.Prompt)
	if err != nil {
		return err
	}
	name := "keep/default/" + job.ID + ".png"
	w := n.bucket.Object(name).NewWriter(ctx)
	w.ContentType = mime
	if _, err := w.Write(picture); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	return n.rows.Put(ctx, &naiveRow{
		JobID: job.ID, Prompt: job.Prompt, Outcome: "succeeded", AssetURI: "gs://" + n.cfg.Bucket + "/" + name,
		AssetBytes: int64(len(picture)), FinishedAt: time.Now(),
	})
}

func (n *naive) call(ctx context.Context, prompt string) (mime string, picture []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.cfg.ModelURL+callPath(n.cfg.Project), strings.NewReader(request(prompt)))
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("model: %s", resp.Status)
	}
	var answer naiveAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", nil, err
	}
	for _, c := range answer.Candidates {
		for _, p := range c.Content.Parts {
			if len(p.InlineData.Data) > 0 {
				return p.InlineData.MimeType, p.InlineData.Data, nil
			}
		}
	}
	return "", nil, errors.New("no image")
}
