// Steps that several walks have in common.
import { NARROW, WIDE, axe, go, look, open } from './browser.mjs';

export const AUTO = 'Auto';
// Every Sunday at 02:00, the specification's own example.
export const SUNDAY = '0 2 * * 0';

// A window that is logged in.
export async function at(world, tools, path, options = {}) {
  const page = await open(tools.browser, tools.findings, world, { state: tools.state, ...options });
  if (path) await go(page, tools.findings, world, path);
  return page;
}

export const main = (page) => page.getByRole('main');
export const choose = (where, name) => where.getByRole('radio', { name: new RegExp(`^${name}`) }).check();
export const seen = (where, name) => where.getByRole('radio', { name: new RegExp(`^${name}`) }).isVisible();
export const panel = (page, name) => main(page).getByRole('region', { name, exact: true });
export const said = (page, text) => page.locator('.toasts').getByText(text).first().waitFor();

// Steps 4 to 6 of every Custom Policy: toggle, settings, Save; then off, and on again.
export async function customPolicy({ findings, step }, page, form, { off }) {
  step('4. Enable Custom Policy toggle');
  const toggle = () => form().getByRole('checkbox', { name: 'Custom Policy' });
  await toggle().check();
  step('5. Configure custom update settings');
  await choose(form(), AUTO);
  await choose(form(), 'Scheduled');
  await choose(form(), 'Interval');
  await form().getByRole('textbox', { name: 'Interval' }).fill('12h');
  step('6. Click Save');
  await form().getByRole('button', { name: 'Save' }).click();
  await said(page, /saved/i);
  findings.expect((await form().locator('.in-force').innerText()).includes('Custom Policy'), 'panel', 'no value says Custom Policy');
  step('off again: inherited, nothing lost');
  await toggle().uncheck();
  await form().getByRole('button', { name: 'Save' }).click();
  await said(page, /saved/i);
  const text = await form().locator('.in-force').innerText();
  const inherits = off instanceof RegExp ? off.test(text) : text.includes(off);
  findings.expect(inherits && !text.includes('Custom Policy'), 'panel', `with Custom Policy off it says: ${text}`);
  await toggle().check();
  findings.expect((await form().getByRole('textbox', { name: 'Interval' }).inputValue()) === '12h', 'panel', 'what was typed before is gone');
}

// A step that the tour does not reach: at both widths and in both themes, with axe.
export async function shown({ findings, out }, page, name) {
  for (const [view, width] of [[WIDE, ''], [NARROW, '-narrow']]) {
    await page.setViewportSize(view);
    await look(page, findings, `${name}${width}`);
    for (const theme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: theme });
      if (width === '') await axe(page, findings, `${name} ${theme}`);
      await page.screenshot({ path: `${out}/${name}${width}${theme === 'dark' ? '-dark' : ''}.png`, fullPage: true });
    }
    await page.emulateMedia({ colorScheme: 'light' });
  }
  await page.setViewportSize(WIDE);
}

// The install command: pin, SHA-256, and a button that copies all of it.
export async function command({ findings, world, step }, page, words) {
  step('the install command to copy');
  const text = await main(page).locator('#install').innerText();
  const pin = world.fleet('status').pin;
  for (const word of [...words, ...(words.includes('vmetric-director') ? [pin] : [])]) {
    findings.expect(text.includes(word), 'install command', `does not hold ${word}`);
  }
  findings.expect(/[0-9a-f]{64}/.test(text), 'install command', 'holds no SHA-256');
  await main(page).locator('[data-copy=install]').click();
  await said(page, 'Copied');
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  findings.expect(copied.trim() === text.trim(), 'copy', 'what is copied is not what is shown');
}
