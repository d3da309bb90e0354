/**
 * When a call is made again, and how long to wait before it.
 *
 * The waits grow and are drawn at random from nothing up to their bound (full jitter,
 * https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/), so that the clients of a server
 * that restarts do not come back together. Where the server says when to come back, that is the least.
 */

import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { StreamResponse, Transport, UnaryResponse } from "@connectrpc/connect";
import { setTimeout as sleep } from "node:timers/promises";
import type { Breaker } from "./breaker.ts";
import { RateLimited, type StrongroomError, typed, Unavailable } from "./errors.ts";

const ATTEMPTS = 5;
/** Milliseconds a call may go on being repeated: a window of the rate limit is a minute. */
const PATIENCE = 65_000;
const FIRST_BOUND = 400;
const LAST_BOUND = 5_000;
/** Milliseconds a call may take that moves no files, and one that does. */
export const DEADLINE = 30_000;
export const LONG_DEADLINE = 3_600_000;

/** How waiting is done; tests pass their own. */
export type Wait = (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>;

const waiting: Wait = async (milliseconds, signal) => {
  await sleep(milliseconds, undefined, signal ? { signal } : {});
};

/** A transport whose calls have deadlines, are repeated where that does no harm, and fail with typed errors. */
export function patient(transport: Transport, breaker: Breaker, wait: Wait = waiting): Transport {
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues): Promise<UnaryResponse> {
      const call = () => transport.unary(method, signal, timeoutMs ?? DEADLINE, header, input, contextValues);
      return (await breaker.guard(() => repeated(method, call, wait, signal))) as UnaryResponse;
    },
    async stream(method, signal, timeoutMs, header, input, contextValues): Promise<StreamResponse> {
      breaker.check();
      const deadline = timeoutMs ?? LONG_DEADLINE;
      const answer = await transport.stream(method, signal, deadline, header, input, contextValues).catch(raise);
      return { ...answer, message: read(answer.message) } as StreamResponse;
    },
  } as Transport;
}

async function repeated<T>(
  method: DescMethod,
  call: () => Promise<T>,
  wait: Wait,
  signal: AbortSignal | undefined,
): Promise<T> {
  const begun = performance.now();
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (caught) {
      const error = typed(caught);
      const bound = Math.min(LAST_BOUND, FIRST_BOUND * 2 ** (attempt - 1));
      const pause = (error.retryAfter ?? 0) * 1000 + Math.random() * bound;
      const late = performance.now() - begun + pause > PATIENCE;
      if (attempt === ATTEMPTS || late || signal?.aborted || !mayRepeat(method, error)) {
        throw error;
      }
      await wait(pause, signal).catch(raise);
    }
  }
}

/** A limit refuses a call before it did anything. While the server is away only reading can be repeated. */
function mayRepeat(method: DescMethod, error: StrongroomError): boolean {
  if (error instanceof RateLimited) {
    return error.retryAfter !== undefined;
  }
  const reads = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  return reads && error instanceof Unavailable && (error.code === "UNAVAILABLE" || error.reason === "CONNECTION_BROKEN");
}

async function* read<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    raise(error);
  }
}

function raise(error: unknown): never {
  throw typed(error);
}
