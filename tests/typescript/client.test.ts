/** The TypeScript client against a running Strongroom, as a program on Node uses it. */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import {
  AlreadyExists,
  Conflict,
  InvalidArgument,
  NotFound,
  pages,
  PermissionDenied,
  Strongroom,
  StrongroomError,
  Unauthenticated,
} from "strongroom";

const url = process.env["STRONGROOM_URL"];
const admin = new Strongroom({ url, apiKey: process.env["STRONGROOM_API_KEY"] });

async function bytes(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) {
    all.push(piece);
  }
  return Buffer.concat(all);
}

test("keys are created, listed page by page and revoked", async () => {
  const made = [];
  for (const number of [1, 2, 3]) {
    made.push(await admin.keys.createApiKey({ name: `ts-key-${number}`, permissionSet: "read_only" }));
  }
  const names = new Set<string>();
  let count = 0;
  for await (const page of pages(admin.keys.listApiKeys, { pageSize: 2 })) {
    page.apiKeys.forEach((key) => names.add(key.name));
    count++;
    if (names.has("ts-key-1")) break;
  }
  assert.ok(count >= 2 && names.has("ts-key-3"));
  const reader = new Strongroom({ url, apiKey: made[0]!.key! });
  assert.equal((await reader.tokens.getCaller({})).name, "ts-key-1");
  await assert.rejects(reader.keys.createApiKey({ name: "more", permissionSet: "full_access" }), PermissionDenied);
  await admin.keys.revokeApiKey({ id: made[0]!.id });
  await assert.rejects(reader.tokens.getCaller({}), Unauthenticated);
});

test("secrets have versions, and errors say what to do", async () => {
  const name = "ts/db";
  await admin.secrets.createSecret({ name, data: { password: "hush", port: 5432, tags: ["a", true, null] } });
  await assert.rejects(admin.secrets.createSecret({ name, data: {} }), AlreadyExists);
  await assert.rejects(admin.secrets.updateSecret({ name, data: {}, expectedVersion: 7 }), Conflict);
  const { data, version } = await admin.secrets.getSecret({ name });
  assert.deepEqual(data, { password: "hush", port: 5432, tags: ["a", true, null] });
  assert.equal(version, 1);
  const failed = await admin.secrets.getSecret({ name: "ts/none" }).catch((error: unknown) => error);
  assert.ok(failed instanceof NotFound && failed instanceof StrongroomError);
  assert.equal(failed.code, "NOT_FOUND");
  assert.match(failed.reason, /^[A-Z_]+$/);
  assert.ok(failed.message.length > 10 && failed.requestId.length > 10);
  assert.equal(failed.name, "NotFound");
});

test("a file goes up and comes back, whole and in part", async () => {
  const content = randomBytes(5_000_001);
  const place = { model: "ts-model", version: "v1", path: "weights.bin" };
  const stored = await admin.putFile(place, content);
  assert.equal(stored.version, "v1");
  assert.ok(content.equals(await bytes(admin.getFile(place))));
  const part = await bytes(admin.getFile(place, { offset: 4_999_990, length: 5 }));
  assert.ok(content.subarray(4_999_990, 4_999_995).equals(part));
  await assert.rejects(admin.putFile(place, content), AlreadyExists);
  await assert.rejects(bytes(admin.getFile({ ...place, path: "none.bin" })), NotFound);
  async function* pieces() {
    yield content.subarray(0, 10);
    yield content.subarray(10, 30);
  }
  await admin.putFile({ ...place, version: "v2" }, pieces());
  assert.ok(content.subarray(0, 30).equals(await bytes(admin.getFile({ ...place, version: "latest" }))));
});

test("a protected file needs its code, which no error repeats", async () => {
  const place = { model: "ts-guarded", version: "v1", path: "weights.bin" };
  await admin.putFile({ ...place, accessCode: "open sesame" }, Buffer.from("guarded"));
  assert.equal(String(await bytes(admin.getFile({ ...place, accessCode: "open sesame" }))), "guarded");
  await assert.rejects(bytes(admin.getFile({ ...place, accessCode: "not sesame" })), (error: unknown) => {
    return error instanceof PermissionDenied && !error.message.includes("sesame");
  });
});

test("a token is asked for at the time of each call", async () => {
  let asked = 0;
  const token = async () => {
    asked++;
    return (await admin.tokens.createToken({})).accessToken;
  };
  const bearer = new Strongroom({ url, token });
  const callers = await Promise.all([bearer.tokens.getCaller({}), bearer.tokens.getCaller({})]);
  assert.equal(callers[0]!.principal, (await admin.tokens.getCaller({})).principal);
  assert.equal(asked, 2);
});

test("what is no address or no key is told without repeating it", () => {
  for (const bad of ["http://ada:hush@127.0.0.1:1", "ftp://127.0.0.1", "http://127.0.0.1:1/path", "127.0.0.1:8080", ""]) {
    assert.throws(() => new Strongroom({ url: bad }), (error: unknown) => {
      return error instanceof InvalidArgument && !error.message.includes("hush");
    });
  }
  assert.throws(() => new Strongroom({ url, apiKey: "hush\u0000hush" }), (error: unknown) => {
    return error instanceof Unauthenticated && !error.message.includes("hush");
  });
});
