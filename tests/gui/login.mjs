// The first start's owner, and logins.
import { go, look, open } from './browser.mjs';
import { OWNER } from './world.mjs';

// Makes the owner by the one-time link, or logs in when that has been done; the cookies.
export async function login(browser, findings, world) {
  const page = await open(browser, findings, world);
  page.expected.add(409).add(403).add(404).add(410).add(400);
  const first = new URL(world.first, world.url);
  await page.goto(world.url + first.pathname + first.search);
  if (await page.locator('input[name=password]').count()) {
    await look(page, findings, 'first');
    if (await page.locator('input[name=name]').count()) await page.fill('input[name=name]', OWNER.name);
    for (const box of await page.locator('input[type=password]').all()) await box.fill(OWNER.password);
    await page.locator('main form button').first().click();
    await page.waitForURL((u) => !u.pathname.startsWith('/first'));
  }
  await enter(page, findings, world);
  const state = await page.context().storageState();
  await page.context().close();
  return state;
}

// Types name and password, if it is asked for.
export async function enter(page, findings, world, who = OWNER) {
  if (!new URL(page.url()).pathname.startsWith('/login')) await go(page, findings, world, '/');
  if (!new URL(page.url()).pathname.startsWith('/login')) return;
  await page.fill('input[name=name]', who.name);
  await page.fill('input[type=password]', who.password);
  await page.locator('main form button').first().click();
  await page.waitForURL((u) => !u.pathname.startsWith('/login'));
}
