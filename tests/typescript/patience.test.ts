/** The TypeScript client's patience, against a server over real HTTP/2 that refuses as often as it is told to. */

import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import assert from "node:assert/strict";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { CircuitOpen, InvalidArgument, RateLimited, Strongroom, Unavailable } from "strongroom";
import { RetryInfoSchema } from "strongroom/gen/google/rpc/error_details_pb.js";
import { ApiKeyService } from "strongroom/gen/strongroom/auth/v1/api_keys_pb.js";

interface Asking {
  client: Strongroom;
  refusals: ConnectError[];
  calls: string[];
  /** The milliseconds that the client would have waited, each. */
  waits: number[];
}

async function asking(use: (asking: Asking) => Promise<void>): Promise<void> {
  const refusals: ConnectError[] = [];
  const calls: string[] = [];
  const waits: number[] = [];
  const answer = (method: string) => () => {
    calls.push(method);
    const refusal = refusals.shift();
    if (refusal) throw refusal;
    return { name: "made" };
  };
  const routes = (router: ConnectRouter) =>
    router.service(ApiKeyService, { getApiKey: answer("get"), extendApiKey: answer("extend") });
  const sessions = new Set<{ destroy(): void }>();
  const server = createServer(connectNodeAdapter({ routes })).on("session", (session) => sessions.add(session));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const wait = async (milliseconds: number) => void waits.push(milliseconds);
  try {
    await use({ client: new Strongroom({ url: `http://127.0.0.1:${port}`, wait }), refusals, calls, waits });
  } finally {
    sessions.forEach((session) => session.destroy());
    server.close();
  }
}

const away = () => new ConnectError("Not now.", Code.Unavailable);
const limited = (seconds: number) =>
  new ConnectError("Slowly.", Code.ResourceExhausted, undefined, [
    { desc: RetryInfoSchema, value: { retryDelay: { seconds: BigInt(seconds) } } },
  ]);

test("a limit is waited for as long as the server says, also by what is never repeated otherwise", () =>
  asking(async ({ client, refusals, calls, waits }) => {
    refusals.push(limited(7), limited(2));
    assert.equal((await client.keys.extendApiKey({ id: "1", days: 1 })).name, "made");
    assert.deepEqual(calls, ["extend", "extend", "extend"]);
    assert.ok(waits[0]! >= 7000 && waits[0]! <= 7400 && waits[1]! >= 2000 && waits[1]! <= 2800);
  }));

test("the header of a gateway is heeded as well", () =>
  asking(async ({ client, refusals, waits }) => {
    refusals.push(new ConnectError("Slowly.", Code.ResourceExhausted, { "retry-after": "3" }));
    await client.keys.extendApiKey({ id: "1", days: 1 });
    assert.ok(waits[0]! >= 3000 && waits[0]! <= 3400);
  }));

test("a limit that ends too late, or that is none, is told at once", () =>
  asking(async ({ client, refusals, calls }) => {
    refusals.push(limited(3600), new ConnectError("Too large.", Code.ResourceExhausted));
    await assert.rejects(client.keys.getApiKey({ id: "1" }), (error: unknown) => {
      return error instanceof RateLimited && error.retryAfter === 3600;
    });
    await assert.rejects(client.keys.getApiKey({ id: "1" }), RateLimited);
    assert.equal(calls.length, 2);
  }));

test("reading is repeated while the server is away, with growing random waits; writing is not", () =>
  asking(async ({ client, refusals, calls, waits }) => {
    refusals.push(...Array.from({ length: 5 }, away));
    await assert.rejects(client.keys.getApiKey({ id: "1" }), Unavailable);
    assert.equal(calls.length, 5);
    assert.equal(waits.length, 4);
    assert.ok(waits.every((wait, number) => wait >= 0 && wait <= 400 * 2 ** number));
    refusals.push(away());
    await assert.rejects(client.keys.extendApiKey({ id: "1", days: 1 }), Unavailable);
    assert.equal(calls.length, 6);
  }));

test("errors of the caller are not repeated", () =>
  asking(async ({ client, refusals, calls }) => {
    refusals.push(new ConnectError("No.", Code.InvalidArgument));
    await assert.rejects(client.keys.getApiKey({ id: "1" }), InvalidArgument);
    assert.deepEqual(calls, ["get"]);
  }));

test("after five calls that reached nobody the next is not made", async () => {
  const client = new Strongroom({ url: "http://127.0.0.1:9", wait: async () => {} });
  for (let call = 0; call < 5; call++) {
    await assert.rejects(client.tokens.getCaller({}), Unavailable);
  }
  await assert.rejects(client.tokens.getCaller({}), (error: unknown) => {
    return error instanceof CircuitOpen && error.reason === "CIRCUIT_OPEN" && error.retryAfter! <= 10;
  });
  const stream = client.getFile({ model: "m", version: "v1", path: "p" });
  await assert.rejects(stream.next(), CircuitOpen);
});

test("every call has a deadline, and can be broken off", () =>
  asking(async ({ client, refusals }) => {
    await assert.rejects(client.keys.getApiKey({ id: "1" }, { timeoutMs: 0.001 }), (error: unknown) => {
      return error instanceof Unavailable && error.code === "DEADLINE_EXCEEDED";
    });
    refusals.push(limited(30));
    await assert.rejects(client.keys.getApiKey({ id: "1" }, { signal: AbortSignal.abort() }), (error: unknown) => {
      return error instanceof Unavailable && error.code === "CANCELLED";
    });
  }));
