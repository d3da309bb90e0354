/**
 * Strongroom over REST with nothing but `fetch`, as in a browser: waits when it is told to, tries again, gives up in time.
 *
 * Needs STRONGROOM_URL and STRONGROOM_API_KEY.
 */

const URL_ = process.env.STRONGROOM_URL ?? "http://127.0.0.1:8080";
const ATTEMPTS = 5;

/** The answer to a request. `again`: whether it can be made again while the server is away. */
async function call(method, path, { body, again = method === "GET" } = {}) {
  for (let attempt = 1; ; attempt++) {
    // The key goes into a header, never into the address, which is logged everywhere.
    const headers = { "X-API-Key": process.env.STRONGROOM_API_KEY, "Content-Type": "application/json" };
    const signal = AbortSignal.timeout(30_000);
    const answer = await fetch(`${URL_}${path}`, { method, headers, body: JSON.stringify(body), signal }).catch(() => undefined);
    if (answer?.ok) {
      return answer.json();
    }
    const away = answer === undefined || answer.status === 503;
    const problem = away ? {} : await answer.json();
    const mayRepeat = answer?.status === 429 || (again && away);
    const wait = Number(answer?.headers.get("retry-after") ?? 0);
    if (!mayRepeat || attempt === ATTEMPTS || wait > 65) {
      throw new Error(away ? "nobody is there" : `${problem.reason}: ${problem.detail}`);
    }
    // Up to a bound that grows, at random, so that clients do not come back together.
    const jitter = Math.random() * Math.min(5_000, 400 * 2 ** (attempt - 1));
    await new Promise((done) => setTimeout(done, wait * 1000 + jitter));
  }
}

try {
  const caller = await call("GET", "/api/v1/caller");
  console.log(`this is ${caller.name}`);
  await call("PUT", "/api/v1/secrets/example-js/db", { body: { data: { password: "hush" }, allow_missing: true } });
  const secret = await call("GET", "/api/v1/secrets/example-js/db");
  console.log(`version ${secret.version} of the secret has ${Object.keys(secret.data).join(", ")}`);
  const { models = [] } = await call("GET", "/api/v1/managers/default/models");
  console.log(`${models.length ? "some" : "no"} models`);
  await call("GET", "/api/v1/secrets/example-js/none");
} catch (error) {
  console.log(error.message);
}
