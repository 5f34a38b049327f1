// Package vertex makes online calls to the Gemini image models on Vertex AI. [Online] implements worker.Model.
//
// Contract: one [Online.Generate] is at most one paid request. Nothing here retries, follows redirects or continues an
// answer; the caller decides what happens next, from the kind of the error. What was certainly not sent is never called
// Unanswered, and what may have been paid for is never called anything else.
//
// Calls go through google.golang.org/genai, which builds requests and reads answers. Beneath it a RoundTripper takes the
// images out of the JSON while it arrives: [scanner] finds them, [decoder] turns their base64 into a blob of the byte
// budget, and the SDK sees a few kilobytes with a placeholder in each image's stead. Left alone, the SDK holds an answer
// several times and spends eight times the CPU. Thought signatures, of a megabyte and more, are dropped on the way: they
// serve only a next turn of a conversation, and a job has none.
//
// Invariants:
//   - Image bytes are the model's, verbatim, and are held only within the byte budget. An answer waits for the budget
//     before its image is read; answers without an image never wait.
//   - A call holds at most one blob and one reservation, so calls that wait for the budget can't block each other for ever.
//   - Every blob is released, on every path, by this package or by the caller that was given it.
//   - Neither prompts nor the service's unshortened words are part of any error or detail.
//
// Non-goals: batch jobs, dedicated endpoints, retries, pacing, the choice of a lane.
package vertex
