// The page's own clock: monotonic, ticking once a second for everything that shows an age.
import { signal } from "@preact/signals";

/** performance.now(), renewed every second while the page is shown. */
export const tick = signal(performance.now());

/** Wall time minus monotonic time may drift this much in a tick; more means that the device slept. */
const SLEPT_MS = 3_000;

/**
 * Starts the ticking. `onSleep` is called when the device slept or the tab was frozen: the monotonic
 * clock of some browsers stands still then, so ages on the screen are too young until the farm is
 * read anew. The wall clock only raises the suspicion; no age is computed from it.
 */
export function startClock(onSleep: () => void): () => void {
  let drift = Date.now() - performance.now();
  const beat = () => {
    const now = performance.now();
    const after = Date.now() - now;
    if (after - drift > SLEPT_MS) onSleep();
    drift = after;
    tick.value = now;
  };
  const timer = setInterval(beat, 1_000);
  const shown = () => {
    if (document.visibilityState === "visible") beat();
  };
  document.addEventListener("visibilitychange", shown);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", shown);
  };
}
