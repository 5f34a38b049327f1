// Package jobs is the domain of assetmill: what a job is, when it is valid, how it is identified, how it can end and
// what it costs. It is pure: no I/O, no clock, no cloud client.
//
// A job is one prompt, one paid call, one asset and one terminal lineage row. [Catalogue.Parse] turns the message that a
// producer published (schemas.Job) into a [Job] with every default filled in, or into the list of everything that is
// wrong with it. Two jobs with the same id must have the same [Job.Digest]; the id is what money is spent once for.
//
// What models can do and cost is data, not code: catalogue.json.
package jobs
