/** What can go wrong when calling Strongroom, as classes; the same as `strongroom.errors` of the Python client. */

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** What is known of a failure. */
export interface Failure {
  /** The gRPC code's name, such as `NOT_FOUND`. */
  code: string;
  /** Stable, and for programs, such as `SECRET_NOT_FOUND`; empty if no Strongroom answered. */
  reason?: string;
  metadata?: Record<string, string>;
  /** Seconds after which the same call may succeed, if that is known. */
  retryAfter?: number | undefined;
}

/** Any failure. `message` says what to do. */
export class StrongroomError extends Error {
  readonly code: string;
  readonly reason: string;
  readonly metadata: Record<string, string>;
  readonly retryAfter: number | undefined;

  constructor(message: string, failure: Failure) {
    super(message);
    this.name = new.target.name;
    this.code = failure.code;
    this.reason = failure.reason ?? "";
    this.metadata = failure.metadata ?? {};
    this.retryAfter = failure.retryAfter;
  }

  /** The id under which the request stands in the server's logs; empty if the error is the client's own. */
  get requestId(): string {
    return this.metadata["request_id"] ?? "";
  }
}

/** The request can never succeed as it is. */
export class InvalidArgument extends StrongroomError {}
/** No credential, or not a valid one. */
export class Unauthenticated extends StrongroomError {}
/** The credential is valid and does not allow this. */
export class PermissionDenied extends StrongroomError {}
/** What the request names does not exist. */
export class NotFound extends StrongroomError {}
/** What the request would create is there already. */
export class AlreadyExists extends StrongroomError {}
/** The state does not allow it now. */
export class FailedPrecondition extends StrongroomError {}
/** Somebody else was faster: read again, then repeat. */
export class Conflict extends StrongroomError {}
/** Beyond the end. */
export class OutOfRange extends StrongroomError {}
/** Too much at a time: wait for `retryAfter` seconds, then repeat. */
export class RateLimited extends StrongroomError {}
/** The server can't be reached or is not ready. */
export class Unavailable extends StrongroomError {}
/** Calls in a row did not reach the server, so this one was not made. `retryAfter` says when one is. */
export class CircuitOpen extends Unavailable {}
/** Bytes are damaged. */
export class DataLoss extends StrongroomError {}

const BY_CODE: Partial<Record<Code, typeof StrongroomError>> = {
  [Code.InvalidArgument]: InvalidArgument,
  [Code.Unauthenticated]: Unauthenticated,
  [Code.PermissionDenied]: PermissionDenied,
  [Code.NotFound]: NotFound,
  [Code.AlreadyExists]: AlreadyExists,
  [Code.FailedPrecondition]: FailedPrecondition,
  [Code.Aborted]: Conflict,
  [Code.OutOfRange]: OutOfRange,
  [Code.ResourceExhausted]: RateLimited,
  [Code.Unavailable]: Unavailable,
  [Code.DeadlineExceeded]: Unavailable,
  [Code.Canceled]: Unavailable,
  [Code.DataLoss]: DataLoss,
};

/** The typed error of a failed call, with the reason and metadata of its ErrorInfo if it has one. */
export function typed(error: unknown): StrongroomError {
  const failed = ConnectError.from(error);
  const [info] = failed.findDetails(ErrorInfoSchema);
  const code = failed.code === Code.Canceled ? "CANCELLED" : snake(Code[failed.code]);
  if (info === undefined && (failed.code === Code.Internal || failed.code === Code.Unknown)) {
    // Strongroom gives a reason with these. Without one they tell of a stream that broke as its server died.
    const message = `The connection broke (${failed.rawMessage || code}). Run it again.`;
    return new Unavailable(message, { code, reason: "CONNECTION_BROKEN" });
  }
  const kind = BY_CODE[failed.code] ?? StrongroomError;
  return new kind(failed.rawMessage || code, {
    code,
    reason: info?.reason ?? "",
    metadata: { ...info?.metadata },
    retryAfter: retryAfter(failed),
  });
}

/** `NOT_FOUND` for `NotFound`: the names of https://grpc.io/docs/guides/status-codes/. */
function snake(name: string): string {
  return name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

function retryAfter(failed: ConnectError): number | undefined {
  const delay = failed.findDetails(RetryInfoSchema)[0]?.retryDelay;
  if (delay !== undefined) {
    return Math.max(0, Number(delay.seconds) + delay.nanos / 1e9);
  }
  // A gateway that refuses knows no RetryInfo (RFC 9110, section 10.2.3).
  const header = failed.metadata.get("retry-after") ?? "";
  return /^[0-9]{1,9}$/.test(header) ? Number(header) : undefined;
}
