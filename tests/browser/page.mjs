// Uses the page as a farmer does: `node page.mjs SCENARIO URL FEEDER`. Exits with 1 and says why when
// the page does not do what it should. Waits for what can be seen, never for time.
import fs from 'node:fs';
import { chromium } from '../../web-proxy/ui/node_modules/playwright-core/index.mjs';

const [, , scenario, url, feeder] = process.argv;
const screens = process.env.SCREENS ?? 'target/screens';
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, locale: 'en-GB' });
page.setDefaultTimeout(30_000);
const faults = [];
page.on('pageerror', (e) => faults.push(`page error: ${e.message}`));
page.on('console', (m) => m.type() === 'error' && faults.push(`console: ${m.text()}`));

const id = (name) => page.getByTestId(name);
const seen = (selector) => page.waitForSelector(selector);
const screenshot = (name) => page.screenshot({ path: `${screens}/${name}.png` });
const mark = (name) => fs.writeFileSync(`${screens}/${name}`, '');

async function open() {
  await page.goto(url, { waitUntil: 'load' });
  await seen('[data-testid="stream"][data-state="live"]');
  await seen('[data-testid="presence"][data-state="online"]');
  await id(`feeder-${feeder}`).click();
  await seen(`[data-testid="panel"][data-feeder="${feeder}"]`);
}

async function portion(text) {
  await id('field-portion_mg').fill(text);
  await id('field-portion_mg').blur();
}

const outcome = (kind, state) =>
  seen(`[data-testid="outcome"][data-kind="${kind}"][data-state="${state}"]`);

const scenarios = {
  /** Old against new, applied, and followed to its outcome. */
  async portion() {
    await open();
    await portion('1600 mg');
    await id('review').click();
    const diff = await id('diff').innerText();
    if (!diff.includes('1.5') || !diff.includes('1.6')) throw new Error(`the diff says ${diff}`);
    await screenshot(`review-${feeder}`);
    await id('apply').click();
    await outcome('update_config', 'APPLIED');
    await screenshot(`applied-${feeder}`);
  },
  /** One dose, asked once, in the history. */
  async feed() {
    await open();
    await id('feed-now').click();
    await id('feed-now-amount').fill('100 mg');
    await id('feed-now-confirm').click();
    await outcome('feed_now', 'APPLIED');
    await id('history-doses').click();
    await id('history-dose').first().waitFor();
    await screenshot('fed');
  },
  /** Held, and back. */
  async hold() {
    await open();
    await id('hold').click();
    await outcome('hold', 'APPLIED');
    await seen('[data-testid="block"][data-reason="FEEDER_HELD"]');
    await screenshot('held');
    await id('resume').click();
    await outcome('resume', 'APPLIED');
  },
  /** What is wrong stands at the field. */
  async refused() {
    await open();
    await portion('1633 mg');
    await id('error-portion_mg').waitFor();
    await screenshot('refused');
    await portion('0 mg');
    await id('error-portion_mg').waitFor();
  },
  /** An edit at the machine shows as one of the farm. */
  async 'changed-at-farm'() {
    await open();
    mark('changed-at-farm.watching');
    await id('notice').first().waitFor();
    const notice = await id('notice').first().innerText();
    if (!notice.includes('2.3')) throw new Error(`the notice says ${notice}`);
    await screenshot('changed-at-farm');
  },
  /** Offline within 1 s of the lease's end; nothing can be pressed; back by itself. */
  async offline() {
    await open();
    mark('offline.watching');
    const frozen = Date.now();
    await seen('[data-testid="presence"][data-state="offline"]');
    const after = Date.now() - frozen;
    // The lease is 2.5 s here.
    if (after > 3_500 + 1_000) throw new Error(`offline only after ${after} ms`);
    await seen('[data-testid="refusal"][data-reason="AGENT_OFFLINE"]');
    if (await id('feed-now').isEnabled()) throw new Error('feed now is offered offline');
    await screenshot('offline');
    mark('offline.seen');
    await seen('[data-testid="presence"][data-state="online"]');
  },
};

try {
  await scenarios[scenario]();
  if (faults.length) throw new Error(faults.join('\n'));
} catch (e) {
  await screenshot(`failed-${scenario}`).catch(() => {});
  console.error(e);
  process.exitCode = 1;
} finally {
  await browser.close();
}
