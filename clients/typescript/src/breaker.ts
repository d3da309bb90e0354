/** A circuit breaker: after several calls in a row that could not connect, the next ones fail at once for a while. */

import { CircuitOpen, StrongroomError, Unavailable } from "./errors.ts";

/** Calls in a row, their repetitions included, that find nobody before the circuit opens. */
const FAILURES = 5;
/** Seconds for which it stays open. */
const REST = 10;

/**
 * Closed: calls pass. Open: they fail with CircuitOpen. Half open, after the rest: one call is let through, and what
 * becomes of it closes the circuit or opens it again. An error that the server answers with is an answer.
 */
export class Breaker {
  #failures = 0;
  #openUntil: number | undefined;
  #probing = false;
  readonly #now: () => number;

  /** `now`: seconds, never going back. */
  constructor(now: () => number = () => performance.now() / 1000) {
    this.#now = now;
  }

  /** Makes a call, whose StrongroomError decides; or throws CircuitOpen instead. */
  async guard<T>(call: () => Promise<T>): Promise<T> {
    const probe = this.#admit();
    try {
      const answer = await call();
      this.#told(probe, true);
      return answer;
    } catch (error) {
      this.#told(probe, !foundNobody(error));
      throw error;
    }
  }

  /** Throws CircuitOpen while the circuit is open, for calls whose beginning tells nothing of the server: streams. */
  check(): void {
    const left = this.#openUntil === undefined ? 0 : this.#openUntil - this.#now();
    if (left > 0) {
      throw this.#refusal(left);
    }
  }

  #admit(): boolean {
    if (this.#openUntil === undefined) {
      return false;
    }
    const left = this.#openUntil - this.#now();
    if (left > 0 || this.#probing) {
      throw this.#refusal(left);
    }
    this.#probing = true;
    return true;
  }

  #refusal(left: number): CircuitOpen {
    const retryAfter = Math.max(1, Math.ceil(left));
    const message = `${this.#failures} calls in a row did not reach Strongroom. The next is made in ${retryAfter} s.`;
    return new CircuitOpen(message, { code: "UNAVAILABLE", reason: "CIRCUIT_OPEN", retryAfter });
  }

  #told(probe: boolean, connected: boolean): void {
    if (this.#openUntil !== undefined && !probe) {
      return; // begun before the circuit opened: only the probe decides now
    }
    this.#probing = false;
    this.#failures = connected ? 0 : this.#failures + 1;
    const opens = !connected && (probe || this.#failures >= FAILURES);
    this.#openUntil = opens ? this.#now() + REST : undefined;
  }
}

function foundNobody(error: unknown): boolean {
  // What the caller itself broke off says nothing of the server.
  const own = error instanceof StrongroomError && error.code === "CANCELLED";
  return error instanceof Unavailable && !own && ["", "CONNECTION_BROKEN"].includes(error.reason);
}
