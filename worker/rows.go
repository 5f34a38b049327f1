package worker

import (
	"maps"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// maxDetail bounds the sentence that lineage keeps for a person, in bytes.
const maxDetail = 1000

// maxInvalidText bounds what is kept of the prompt of a message that is no valid job: it may be megabytes.
const maxInvalidText = 4096

// end returns how the job ended, as lineage and the ledger hold it.
func (t *task) end() Record {
	row := t.row()
	switch {
	case t.failure != nil:
		row.Reason, row.Detail = string(t.failure.reason), jobs.Cut(t.failure.detail, maxDetail)
	default:
		row.Reason, row.Detail = string(t.answer.Reason), jobs.Cut(t.answer.Detail, maxDetail)
	}
	row.Outcome = string(jobs.Reason(row.Reason).Outcome())
	if t.answer != nil {
		t.addAnswer(row)
	}
	if t.asset.URI != "" {
		t.addAsset(row)
	}
	return Record{Generation: row, Attempts: t.spent.Attempts}
}

// row is the part of the row that every end of a valid job has.
func (t *task) row() *schemas.GenerationRow {
	j := t.job
	calls, throttled := int64(t.spent.Calls), int64(t.spent.Throttled)
	row := &schemas.GenerationRow{
		JobId: j.ID, Submission: j.Submission, Campaign: j.Campaign, Client: j.Client,
		Labels: jobs.KeyValues(j.Labels), Source: jobs.KeyValues(j.Source), SourceFile: j.SourceFile, SourceRow: j.SourceRow,
		Prompt: j.Prompt, PromptSha256: j.PromptSHA256(), System: j.System, References: j.References, Turns: j.TurnRows(),
		Model: j.Model.ID, Region: j.Region, Mode: string(j.Mode), Size: j.Size, AspectRatio: j.AspectRatio,
		Variant: int64(j.Variant), Retention: j.Retention,
		Lane: t.lane.Name, Tier: t.lane.Tier, Location: t.lane.Location,
		Attempts: &calls, Throttled: &throttled,
		PublishedAt: micros(t.delivery.Published), ReceivedAt: micros(t.received), CalledAt: micros(t.called), AnsweredAt: micros(t.answered),
		StoredAt: micros(t.stored), FinishedAt: time.Now().UnixMicro(), Deadline: micros(j.Deadline),
		QueueMs: elapsed(t.delivery.Published, t.called), CallMs: elapsed(t.called, t.answered), StoreMs: elapsed(t.answered, t.stored),
		PriceVersion: t.cfg.Catalogue.Version(), CostUsd: t.spent.Cost.String(), CostIsFallback: &t.spent.Fallback,
		Worker: t.cfg.ID, WorkerVersion: t.cfg.Version, MessageId: t.delivery.ID, TraceId: t.traceID(),
		BatchId: t.batch,
	}
	if j.Seed != nil {
		seed := int64(*j.Seed)
		row.Seed = &seed
	}
	for _, s := range j.Safety {
		row.Safety = append(row.Safety, &schemas.KeyValue{Key: s.Category, Value: s.Threshold})
	}
	return row
}

func (t *task) addAnswer(row *schemas.GenerationRow) {
	a := t.answer
	row.ModelVersion, row.TrafficType, row.FinishReason, row.SafetyRatings = a.ModelVersion, a.TrafficType, a.FinishReason, a.Ratings
	row.PromptTokens, row.TextTokens, row.ImageTokens = a.Usage.Prompt, a.Usage.Text, a.Usage.Image
	row.ThoughtTokens, row.TotalTokens = a.Usage.Thought, a.Usage.Total
}

func (t *task) addAsset(row *schemas.GenerationRow) {
	row.AssetUri, row.AssetGeneration, row.AssetBytes = t.asset.URI, t.asset.Generation, t.asset.Bytes
	row.AssetCrc32C, row.AssetMimeType = EncodeCRC32C(t.asset.CRC32C), t.asset.MimeType
	row.AssetWidth, row.AssetHeight = int64(t.asset.Width), int64(t.asset.Height)
}

// invalidRow records a message that is no valid job, with as much of it as can be told.
func (t *task) invalidRow(reason jobs.Reason, detail string) *schemas.GenerationRow {
	none := int64(0)
	row := &schemas.GenerationRow{
		JobId:   jobs.InvalidID(t.delivery.ID, t.delivery.Data),
		Outcome: string(reason.Outcome()), Reason: string(reason), Detail: detail,
		Attempts: &none, CostUsd: jobs.USD(0).String(), PriceVersion: t.cfg.Catalogue.Version(),
		PublishedAt: micros(t.delivery.Published), ReceivedAt: micros(t.received), FinishedAt: time.Now().UnixMicro(),
		Worker: t.cfg.ID, WorkerVersion: t.cfg.Version, MessageId: t.delivery.ID, TraceId: t.traceID(),
	}
	if t.job != nil {
		row.JobId = t.job.ConflictID()
	}
	if m := t.message; m != nil {
		row.Submission, row.Campaign, row.Client = name(m.GetSubmission()), name(m.GetCampaign()), name(m.GetClient())
		row.Model, row.Size, row.AspectRatio = name(m.GetModel()), name(m.GetSize()), name(m.GetAspectRatio())
		row.Prompt = jobs.Cut(m.GetPrompt(), maxInvalidText)
		row.SourceFile, row.SourceRow = name(m.GetSourceFile()), m.GetSourceRow()
		if proto.Size(m) <= maxInvalidText {
			row.Source = jobs.KeyValues(m.GetSource())
		}
	}
	return row
}

// name cuts a field of an invalid message to what a valid one could hold at most.
func name(text string) string { return jobs.Cut(text, jobs.MaxSourceFileBytes) }

// repeated is how a job ended that had ended before. Under another submission the job ends anew, at no cost, so that the submission's
// books are complete; the view of all jobs keeps the first.
func (t *task) repeated(end Record) Record {
	if end.Generation.GetSubmission() == t.job.Submission {
		return end
	}
	row, j := proto.CloneOf(end.Generation), t.job
	none := int64(0)
	row.Submission, row.Client, row.Labels = j.Submission, j.Client, jobs.KeyValues(j.Labels)
	row.Source, row.SourceFile, row.SourceRow = jobs.KeyValues(j.Source), j.SourceFile, j.SourceRow
	row.MessageId, row.PublishedAt, row.ReceivedAt = t.delivery.ID, micros(t.delivery.Published), micros(t.received)
	row.Attempts, row.Throttled, row.CostUsd, row.CostIsFallback = &none, &none, jobs.USD(0).String(), new(bool)
	row.Worker, row.WorkerVersion, row.TraceId = t.cfg.ID, t.cfg.Version, t.traceID()
	return Record{Generation: row}
}

// result is the event that announces a row to whoever published this message, which need not be the first of the job.
func (t *task) result(row *schemas.GenerationRow) *schemas.JobResult {
	r := &schemas.JobResult{
		JobId: row.GetJobId(), Submission: row.GetSubmission(), Campaign: row.GetCampaign(), Client: row.GetClient(),
		Outcome: row.GetOutcome(), Reason: row.GetReason(), Detail: row.GetDetail(),
		AssetUri: row.GetAssetUri(), AssetGeneration: row.GetAssetGeneration(), AssetBytes: row.GetAssetBytes(),
		AssetCrc32C: row.GetAssetCrc32C(), AssetMimeType: row.GetAssetMimeType(),
		AssetWidth: int32(row.GetAssetWidth()), AssetHeight: int32(row.GetAssetHeight()),
		Model: row.GetModel(), CostUsd: row.GetCostUsd(), MessageId: t.delivery.ID,
		FinishedAt: time.UnixMicro(row.GetFinishedAt()).UTC().Format(time.RFC3339Nano),
	}
	r.Source = maps.Clone(t.message.GetSource())
	return r
}

// micros is a time as TIMESTAMP columns take it; 0, which they store as NULL, for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// elapsed is the milliseconds from one step to a later one, or nil when either did not happen.
func elapsed(from, to time.Time) *int64 {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	ms := max(to.Sub(from).Milliseconds(), 0) // the message's time is by Pub/Sub's clock
	return &ms
}
