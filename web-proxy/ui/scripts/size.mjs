// Prints what the built page weighs, and fails if its first load grew over the budget.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET_KB = 80;
const dist = new URL("../dist", import.meta.url).pathname;
if (!existsSync(dist)) throw new Error("no dist: run `npm run build` first");

const html = readFileSync(join(dist, "index.html"), "utf8");
let first = 0;
for (const name of readdirSync(join(dist, "assets")).sort()) {
  if (!/\.(js|css)$/.test(name)) continue;
  const path = join(dist, "assets", name);
  const plain = statSync(path).size;
  const gzip = gzipSync(readFileSync(path), { level: 9 }).length;
  const brotli = existsSync(`${path}.br`) ? statSync(`${path}.br`).size : plain;
  const atOnce = html.includes(name);
  if (atOnce && name.endsWith(".js")) first += gzip;
  const kb = (n) => `${(n / 1000).toFixed(1)} kB`.padStart(9);
  console.log(`${name.padEnd(32)} ${kb(plain)}  gzip ${kb(gzip)}  brotli ${kb(brotli)}  ${atOnce ? "" : "(later)"}`);
}
console.log(`first load: ${(first / 1000).toFixed(1)} kB of JavaScript gzipped, budget ${BUDGET_KB} kB`);
if (first > BUDGET_KB * 1000) process.exitCode = 1;
