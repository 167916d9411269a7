// A browser, and what is watched and measured on every page that it opens.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(process.env.VMETRIC_GUI_MODULES + '/');
const { chromium } = require('playwright-core');
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

// The widths of a desk and of a phone.
export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 360, height: 740 };
// The goal of the issue, for the page as it travels.
const PAGE_MAX = 100_000;
// Patience with a busy machine; nothing here is a measurement.
export const PATIENCE = Number(process.env.VMETRIC_GUI_PATIENCE || 120) * 1000;

export async function launch() {
  return chromium.launch({
    executablePath: process.env.VMETRIC_CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server', '--disable-dev-shm-usage', '--force-color-profile=srgb'],
  });
}

// Everything wrong, in the order in which it was noticed; empty = all is well.
export class Findings {
  constructor() {
    this.all = [];
    this.checks = 0;
    this.sizes = {};
  }
  wrong(where, what) {
    this.all.push(`${where}: ${what}`);
    console.log(`  WRONG ${where}: ${what}`);
  }
  expect(holds, where, what) {
    this.checks += 1;
    if (!holds) this.wrong(where, what);
    return holds;
  }
}

// A window of its own, with or without the cookies of a login. `allowed` are statuses of documents that a walk provokes.
export async function open(browser, findings, world, { state, js = true, view = WIDE, theme = 'light' } = {}) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, // the site's CA is its own; the group `browser` tests that chromium takes it
    storageState: state,
    javaScriptEnabled: js,
    viewport: view,
    colorScheme: theme,
    locale: 'en-GB',
    timezoneId: 'Europe/Berlin',
    reducedMotion: 'reduce',
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(() => {
    window.__violations = [];
    document.addEventListener('securitypolicyviolation', (e) => window.__violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  const page = await context.newPage();
  page.expected = new Set(); // statuses that are meant
  const where = () => new URL(page.url()).pathname;
  page.on('pageerror', (e) => findings.wrong(where(), `script error: ${e.message}`));
  page.on('console', (m) => {
    const meant = /status of (\d+)/.exec(m.text());
    if (m.type() !== 'error' || (meant && page.expected.has(Number(meant[1])))) return;
    findings.wrong(where(), `console: ${m.text()}`);
  });
  page.on('dialog', (d) => {
    findings.wrong(where(), `a dialog opened: ${d.message()}`);
    d.dismiss().catch(() => {});
  });
  page.on('request', (r) => {
    const at = r.url();
    if (!at.startsWith(world.url + '/') && !at.startsWith('data:')) findings.wrong(where(), `external request: ${at}`);
  });
  page.on('response', (r) => {
    if (r.status() >= 500 && !page.expected.has(r.status())) findings.wrong(where(), `${r.status()} from ${r.url()}`);
  });
  return page;
}

// Goes there; the answer's size counts.
export async function go(page, findings, world, path) {
  const response = await page.goto(world.url + path, { waitUntil: 'load' });
  const bytes = (await response.body()).length;
  const at = new URL(page.url()).pathname;
  findings.sizes[at] = Math.max(findings.sizes[at] || 0, bytes);
  findings.expect(bytes <= PAGE_MAX, path, `${bytes} bytes, at most ${PAGE_MAX}`);
  return response;
}

// What must hold on every page, whatever it is about.
export async function look(page, findings, name) {
  const seen = await page.evaluate(() => {
    const root = document.documentElement;
    const width = root.clientWidth;
    const wide = [...document.querySelectorAll('body *')].filter((e) => {
      const box = e.getBoundingClientRect();
      if (box.width === 0 || box.right <= width + 1) return false;
      for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) {
        const o = getComputedStyle(p).overflowX;
        if (o === 'auto' || o === 'scroll' || o === 'hidden' || o === 'clip') return false;
      }
      return getComputedStyle(e).visibility !== 'hidden' && getComputedStyle(e).position !== 'fixed';
    });
    return {
      overflow: root.scrollWidth - width,
      wide: wide.slice(0, 3).map((e) => `${e.tagName.toLowerCase()}.${e.className}`),
      violations: window.__violations || [],
      h1: document.querySelectorAll('h1').length,
      title: document.title,
      lang: root.lang,
      inline: document.querySelectorAll('script:not([src]):not([type="application/json"]), [style], style').length,
      // Programs that are shown have braces of their own.
      text: [...document.querySelectorAll('pre, code')].reduce((text, e) => text.replace(e.innerText, ''), document.body.innerText),
    };
  });
  findings.expect(seen.overflow <= 0, name, `wider than the window by ${seen.overflow} px: ${seen.wide.join(', ')}`);
  findings.expect(seen.violations.length === 0, name, `CSP: ${seen.violations.join(', ')}`);
  if (name.endsWith('wide-light')) findings.expect(seen.inline === 0, name, `${seen.inline} inline scripts or styles`);
  findings.expect(seen.h1 === 1, name, `${seen.h1} headings of level 1`);
  findings.expect(seen.title && seen.lang, name, 'no title or language');
  findings.expect(!/\{[a-z_.]+\}|undefined|\bnull\b|NaN|\[object/.test(seen.text), name, 'a value was not filled in');
  return seen;
}

// axe-core's findings that count: serious and critical.
export async function axe(page, findings, name) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const result = await window.axe.run(document, { resultTypes: ['violations'] });
    return result.violations.map((v) => ({
      id: v.id,
      impact: v.impact,
      help: v.help,
      nodes: v.nodes.slice(0, 3).map((n) => `${n.target.join(' ')} (${(n.failureSummary || '').split('\n').slice(1, 2).join(' ').trim()})`),
    }));
  });
  const bad = found.filter((v) => v.impact === 'serious' || v.impact === 'critical');
  findings.expect(bad.length === 0, name, `axe: ${bad.map((v) => `${v.id} at ${v.nodes.join('; ')}`).join(' | ')}`);
  return found.filter((v) => !bad.includes(v)).map((v) => v.id);
}
