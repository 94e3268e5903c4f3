// Takes pictures of the built page against the mock farm, in every size and scheme that matters, and
// fails on any error in the browser's console (a CSP violation is one). Pictures go to target/ui-screens.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { load, root } from "./load.mjs";

const PORT = Number(process.env.PORT ?? 8091);
const ORIGIN = `http://127.0.0.1:${PORT}`;
const FARM = `${ORIGIN}/farms/arava-north`;
const OUT = process.env.OUT ?? join(root, "../../target/ui-screens");
const ONLY = process.env.ONLY ? new RegExp(process.env.ONLY) : /./;
const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 800 };
mkdirSync(OUT, { recursive: true });

const { module, close } = await load("/mock/server.ts");
const { module: backendModule, close: close2 } = await load("/mock/backend.ts");
const errors = [];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

const mock = (path) => fetch(`${ORIGIN}/mock/${path}`);
const id = (page, name) => page.getByTestId(name);

async function scene(name, options, play) {
  if (!ONLY.test(name)) return;
  const server = await module.startMock(join(root, "dist"), PORT, new backendModule.MockBackend());
  const context = await browser.newContext({
    viewport: options.size,
    colorScheme: options.dark ? "dark" : "light",
    deviceScaleFactor: options.size === PHONE ? 2 : 1,
    hasTouch: options.size === PHONE,
    locale: options.locale ?? "en-GB",
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(8_000);
  const expected = options.expect ?? /$^/;
  page.on("console", (m) => {
    if (m.type() === "error" && !expected.test(m.text())) errors.push(`${name}: ${m.text()}`);
  });
  page.on("pageerror", (e) => errors.push(`${name}: ${e.message}`));
  const shot = (part = "", full = false) => page.screenshot({ path: join(OUT, `${name}${part}.png`), fullPage: full });
  try {
    await play(page, shot);
  } catch (error) {
    errors.push(`${name}: ${error.message}`);
    await shot("-failed");
  }
  await context.close();
  server.closeAllConnections();
  await new Promise((r) => server.close(r));
  console.log(name);
}

const farm = async (page, path = "") => {
  await page.goto(FARM + path);
  await id(page, "tank-a-01").waitFor();
};

for (const [suffix, size] of [
  ["phone", PHONE],
  ["desk", DESK],
]) {
  for (const dark of [false, true]) {
    const kind = `${suffix}${dark ? "-dark" : ""}`;
    await scene(`farm-${kind}`, { size, dark }, async (page, shot) => {
      await farm(page);
      await shot();
      if (!dark) await shot("-full", true);
    });
    await scene(`panel-${kind}`, { size, dark }, async (page, shot) => {
      await farm(page);
      await id(page, "feeder-a-01").click();
      await id(page, "panel").waitFor();
      await shot();
      await id(page, "field-portion_mg").fill("200");
      await id(page, "preview").waitFor();
      await id(page, "review").scrollIntoViewIfNeeded();
      await shot("-edit");
      await id(page, "review").click();
      await id(page, "apply").waitFor();
      await shot("-review");
      await id(page, "apply").click();
      await page.locator('[data-testid=outcome][data-state=EXECUTING]').waitFor();
      await shot("-executing");
      await page.locator('[data-testid=outcome][data-state=APPLIED]').waitFor();
      await id(page, "panel").locator(".panel-body").evaluate((e) => e.scrollTo(0, 0));
      await shot("-applied");
      await id(page, "history-versions").scrollIntoViewIfNeeded();
      await id(page, "history-versions").click();
      await id(page, "history-version").first().waitFor();
      await shot("-history");
    });
  }
  await scene(`feed-${suffix}`, { size }, async (page, shot) => {
    await farm(page, "/feeders/b-01");
    await id(page, "feed-now").click();
    await id(page, "feed-now-preview").waitFor();
    await shot();
    await id(page, "feed-now-confirm").click();
    await page.locator('[data-testid=outcome][data-state=EXECUTING]').waitFor();
    await shot("-dosing");
    await page.locator('[data-testid=outcome][data-state=APPLIED]').waitFor();
    await shot("-done");
  });
  await scene(`doubt-${suffix}`, { size }, async (page, shot) => {
    await farm(page, "/feeders/b-01");
    await mock("dose?outcome=uncertain");
    await id(page, "feed-now").click();
    await id(page, "feed-now-confirm").click();
    await page.locator('[data-testid=outcome][data-state=UNCERTAIN]').waitFor();
    await shot();
    await id(page, "settle").click();
    await id(page, "settle-fed").check();
    await shot("-settle");
    await id(page, "settle-note").fill("pellets on the water");
    await id(page, "settle-confirm").click();
    await id(page, "doubt").waitFor({ state: "detached" });
    await shot("-settled");
  });
  await scene(`offline-${suffix}`, { size }, async (page, shot) => {
    await farm(page);
    await mock("presence?state=OFFLINE");
    await page.locator('[data-testid=presence][data-state=offline]').waitFor();
    await shot();
    await id(page, "feeder-a-01").click();
    await id(page, "refusal").waitFor();
    await shot("-panel");
  });
  await scene(`blind-${suffix}`, { size }, async (page, shot) => {
    await farm(page);
    await mock("silent?on=1");
    await page.locator('[data-testid=stream][data-state=broken]').waitFor({ timeout: 12_000 });
    await shot();
    await mock("silent?on=0");
    await page.locator('[data-testid=stream][data-state=live]').waitFor({ timeout: 30_000 });
    await shot("-back");
  });
  await scene(`errors-${suffix}`, { size, expect: /400|412|409/ }, async (page, shot) => {
    await farm(page, "/feeders/a-01");
    await id(page, "field-portion_mg").fill("155");
    await id(page, "field-interval").fill("30 s");
    await id(page, "review").click();
    await id(page, "error-portion_mg").waitFor();
    await shot();
    await id(page, "field-portion_mg").fill("1500");
    await id(page, "field-interval").fill("15 min");
    await id(page, "error-daily_cap_mg").waitFor();
    await shot("-server");
  });
  await scene(`conflict-${suffix}`, { size }, async (page, shot) => {
    await farm(page, "/feeders/a-01");
    await id(page, "field-portion_mg").fill("200");
    await mock("edit?feeder=a-01&portion=180");
    await id(page, "conflict").waitFor();
    await id(page, "notice").waitFor();
    await shot();
    await mock("edit?feeder=b-04&portion=1700");
    await id(page, "panel-close").click();
    await id(page, "notice").first().waitFor();
    await shot("-notice");
  });
  await scene(`states-${suffix}`, { size }, async (page, shot) => {
    await farm(page);
    await mock("link?robot=robot-c&state=DOWN");
    await id(page, "attention-first").click();
    await page.waitForTimeout(300);
    await shot();
    await id(page, "feeder-b-02").click();
    await id(page, "fault").waitFor();
    await shot("-fault");
    await page.goto(`${FARM}/feeders/a-05`);
    await id(page, "hold-info").waitFor();
    await shot("-held");
    await page.goto(`${FARM}/feeders/c-04`);
    await id(page, "panel").waitFor();
    await shot("-readonly");
  });
  await scene(`holdall-${suffix}`, { size }, async (page, shot) => {
    await farm(page);
    await id(page, "hold-all").click();
    await shot();
    await id(page, "hold-all-confirm").click();
    await id(page, "hold-all-result").waitFor();
    await shot("-done");
  });
  await scene(`picker-${suffix}`, { size }, async (page, shot) => {
    await page.goto(ORIGIN);
    await id(page, "farm-input").waitFor();
    await shot();
    await id(page, "farm-input").fill("arava-north");
    await id(page, "farm-open").click();
    await id(page, "tank-a-01").waitFor();
    await page.goto(ORIGIN);
    await id(page, "tank-a-01").waitFor();
  });
  await scene(`unknown-${suffix}`, { size }, async (page, shot) => {
    await farm(page, "/feeders/b-01");
    await mock("delay?ms=4000");
    await mock("fault?reason=&code=Unavailable&times=1&accept=1");
    await id(page, "feed-now").click();
    await id(page, "feed-now-confirm").click();
    await page.locator('[data-testid=outcome][data-state=EXECUTING]').waitFor();
    await page.reload();
    await page.locator('[data-testid=outcome][data-state=APPLIED]').waitFor();
    await mock("fault?reason=AGENT_MOVING&code=Unavailable&times=2");
    await id(page, "hold").click();
    await page.locator('[data-testid=outcome][data-state=RETRYING]').waitFor();
    await shot("-moving");
    await page.locator('[data-testid=outcome][data-kind=hold][data-state=APPLIED]').waitFor();
  });
  await scene(`spanish-${suffix}`, { size, locale: "es-ES" }, async (page, shot) => {
    await farm(page);
    await shot();
    await id(page, "feeder-b-01").click();
    await id(page, "panel").waitFor();
    await shot("-panel");
  });
}

await scene("rtl-phone", { size: PHONE }, async (page, shot) => {
  await farm(page, "/feeders/b-01");
  await page.evaluate(() => {
    document.documentElement.dir = "rtl";
  });
  await shot("-panel");
  await id(page, "panel-close").click();
  await shot();
});
await scene("icons", { size: { width: 512, height: 512 } }, async (page) => {
  // The icons of the manifest, drawn from the one drawing: run with OUT=public to renew them.
  const drawing = readFileSync(join(root, "public", "favicon.svg"), "utf8");
  await page.setContent(`<style>body{margin:0;background:#083f4a}svg{display:block;width:100vw;height:100vh}</style>${drawing}`);
  await page.screenshot({ path: join(OUT, "icon-512.png") });
  await page.setViewportSize({ width: 180, height: 180 });
  await page.screenshot({ path: join(OUT, "icon-180.png") });
});

await browser.close();
await close();
await close2();
if (errors.length > 0) {
  console.error(errors.join("\n"));
  process.exitCode = 1;
}
process.exit();
