// Time as the machines of this page see it: monotonic, injectable, so that tests own it.

export interface Timers {
  /** Milliseconds, monotonic, from any origin. */
  now(): number;
  /** Resolves after `ms`, or at once when the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  random(): number;
}

export const realTimers: Timers = {
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener("abort", done);
    }),
  random: () => Math.random(),
};

/** Full jitter: anything between nothing and a bound that doubles with every try. */
export function fullJitter(attempt: number, timers: Timers, baseMs: number, capMs: number): number {
  return timers.random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 16));
}
