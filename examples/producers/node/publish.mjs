// Publishes image jobs to assetmill with Google's own clients, waits for their results, and fetches rows and images.
//
//   node publish.mjs                              two jobs
//   node publish.mjs 'A red canoe' 'A blue kite'  these prompts
//   node publish.mjs --with-mistake               one message more, with a misspelt field, to show what becomes of it
//
// Settings come from the environment, as assetmill's own do: ASSETMILL_PROJECT, ASSETMILL_DATASET. On one machine,
// `. .local/env` sets them and the addresses of the local cloud, which Google's clients read by themselves. On Google Cloud,
// Application Default Credentials are used.
import { BigQuery } from '@google-cloud/bigquery';
import { PubSub } from '@google-cloud/pubsub';
import { Storage } from '@google-cloud/storage';
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';

const TIMEOUT_MS = 5 * 60_000; // a call takes 7 to 60 s, more while the model is busy
const IMAGES = 'images';

const projectId = setting('ASSETMILL_PROJECT');
const dataset = setting('ASSETMILL_DATASET', 'assetmill');

// On one machine there are no credentials. The clients look for them all the same, and would warn that they find none.
if (['PUBSUB', 'STORAGE', 'BIGQUERY'].every(service => process.env[`${service}_EMULATOR_HOST`])) {
  process.env.METADATA_SERVER_DETECTION ??= 'none';
}

function setting(name, fallback) {
  const value = process.env[name] || fallback;
  if (!value) {
    console.error(`set ${name}; for the local cloud run \`make local\`, then \`. .local/env\``);
    process.exit(2);
  }
  return value;
}

/** What to publish: one job for each prompt. */
function makeJobs(submission, prompts) {
  return prompts.map((prompt, i) => ({
    id: `${submission}-${i + 1}`, // this producer's own key: publishing it twice is paid for once
    submission,
    campaign: 'node-example',
    prompt,
    source: { SKU: `N-${i + 1}` }, // comes back in the result event and in the row
  }));
}

/**
 * Publishes messages and returns the Pub/Sub id of each. The client repeats what fails in transit; that is harmless, since
 * the job's id is what counts.
 */
async function publish(pubsub, messages) {
  const topic = pubsub.topic('jobs');
  return Promise.all(messages.map(json => topic.publishMessage({ json, attributes: { mode: 'online' } })));
}

/**
 * Collects result events, which come at least once and in any order. The function that it returns waits for one event for each
 * message that was published. A job is known by its id; a message that was no valid job has none, and is known by its message id.
 */
function collect(subscription) {
  const results = new Map();
  let notify = () => {};
  let fail = () => {};
  subscription.on('message', message => {
    const result = JSON.parse(message.data.toString('utf8'));
    results.set(result.job_id, result);
    results.set(result.message_id, result);
    message.ack();
    notify();
  });
  subscription.on('error', error => fail(error));
  return function waitFor(messages, messageIds) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => fail(new Error(`no result within ${TIMEOUT_MS / 1000} s; is a worker running?`)), TIMEOUT_MS);
      fail = error => {
        clearTimeout(timer);
        reject(error);
      };
      notify = () => {
        const found = messages.map((m, i) => results.get(m.id) ?? results.get(messageIds[i]));
        if (found.every(Boolean)) {
          clearTimeout(timer);
          resolve(found);
        }
      };
      notify();
    });
  };
}

/**
 * Reads the jobs' rows: from the table, since a time bound on the view `generations` would come after its deduplication and
 * leave BigQuery to read, and charge for, every day. Hence the deduplication here.
 */
async function readRows(bigquery, jobIds, since) {
  const [rows] = await bigquery.query({
    query: `SELECT job_id, outcome, reason, detail, model_version, attempts, call_ms, cost_usd, asset_uri
            FROM \`${projectId}.${dataset}.generations_raw\`
            WHERE finished_at >= @since AND job_id IN UNNEST(@ids)
            QUALIFY ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY finished_at, worker) = 1
            ORDER BY job_id`,
    params: { ids: jobIds, since },
  });
  return rows;
}

/** Fetches one image into a file; the client compares its CRC32C. */
async function fetchImage(storage, result) {
  const [, bucket, name] = result.asset_uri.match(/^gs:\/\/([^/]+)\/(.+)$/);
  const file = path.join(IMAGES, path.basename(name));
  await storage.bucket(bucket).file(name).download({ destination: file, validation: 'crc32c' });
  return file;
}

async function main(args) {
  const withMistake = args.includes('--with-mistake');
  const prompts = args.filter(arg => !arg.startsWith('--'));
  if (prompts.length === 0) {
    prompts.push('A red canoe on a calm mountain lake at dawn, product photography', 'A paper kite over a beach in strong wind, seen from below');
  }
  const started = new Date(Date.now() - 60_000); // clocks differ a little
  const submission = `node-${randomUUID().slice(0, 8)}`;
  const messages = makeJobs(submission, prompts);
  if (withMistake) {
    messages.push({ id: `${submission}-x`, submission, promt: 'A misspelt field' });
  }

  const pubsub = new PubSub({ projectId });
  // A subscription sees only what is published after it was made, so it comes before the jobs. A service that runs all the
  // time has one for good, without a filter.
  const [subscription] = await pubsub.topic('results').createSubscription(`results-${submission}`, {
    expirationPolicy: { ttl: { seconds: 24 * 3600 } }, // goes by itself, should this process be killed
  });
  try {
    const waitFor = collect(subscription);
    const messageIds = await publish(pubsub, messages);
    console.log(`published ${messageIds.length} messages as submission ${submission}`);
    const results = await waitFor(messages, messageIds);
    for (const r of results) {
      console.log(`${r.outcome}: ${r.reason}`, { job_id: r.job_id, detail: r.detail, asset_uri: r.asset_uri, cost_usd: r.cost_usd, source: r.source });
    }

    const rows = await readRows(new BigQuery({ projectId }), results.map(r => r.job_id), started);
    console.table(rows.map(row => ({ ...row, cost_usd: row.cost_usd?.toString() })), ['job_id', 'outcome', 'reason', 'attempts', 'call_ms', 'cost_usd']);

    await mkdir(IMAGES, { recursive: true });
    const storage = new Storage({ projectId });
    for (const r of results.filter(r => r.outcome === 'succeeded')) {
      console.log(`${await fetchImage(storage, r)}  ${r.asset_width} x ${r.asset_height}, ${r.asset_bytes} bytes`);
    }
  } finally {
    await subscription.close();
    await subscription.delete();
    await pubsub.close();
  }
}

main(process.argv.slice(2)).catch(error => {
  console.error(`publish.mjs: ${error.message}`);
  process.exitCode = 1;
});
