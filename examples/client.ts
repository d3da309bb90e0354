/**
 * A program in TypeScript that keeps a secret and a model: the client waits when it is told to, tries again, and gives up
 * in time. Node runs it as it stands: `node client.ts`.
 *
 * Needs STRONGROOM_URL and STRONGROOM_API_KEY.
 */

import { CircuitOpen, pages, RateLimited, Strongroom, StrongroomError } from "strongroom";

const strongroom = new Strongroom({
  url: process.env["STRONGROOM_URL"],
  apiKey: process.env["STRONGROOM_API_KEY"],
});

async function main(): Promise<void> {
  const caller = await strongroom.tokens.getCaller({});
  console.log(`this is ${caller.name}`);

  await strongroom.secrets.updateSecret({ name: "example-ts/db", data: { password: "hush" }, allowMissing: true });
  const { data, version } = await strongroom.secrets.getSecret({ name: "example-ts/db" });
  console.log(`version ${version} of the secret has ${Object.keys(data ?? {}).join(", ")}`);

  // A name of this moment, as a version is written once.
  const place = { model: "example-ts", version: `v${Date.now()}`, path: "weights.bin" };
  await strongroom.putFile(place, Buffer.alloc(3_000_000, "weights"));
  let received = 0;
  for await (const piece of strongroom.getFile(place)) {
    received += piece.length;
  }
  console.log(`${received} bytes came back`);

  for await (const page of pages(strongroom.models.listModels, { managerId: "default" })) {
    for (const model of page.models.filter((one) => one.name === "example-ts")) {
      console.log(`${model.name} is there`);
    }
  }
}

try {
  await main();
} catch (error) {
  if (error instanceof CircuitOpen) {
    // Five calls in a row reached nobody: this one was not made.
    console.error(`nobody is there; again in ${error.retryAfter} s`);
  } else if (error instanceof RateLimited) {
    console.error(`the limit is used up for ${error.retryAfter} s`);
  } else if (error instanceof StrongroomError) {
    console.error(`${error.reason}: ${error.message}`);
  } else {
    throw error;
  }
  process.exitCode = 1;
}
