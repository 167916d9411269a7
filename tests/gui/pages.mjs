// The tour: every page of the table of routes, at both widths and in both themes.
import { mkdirSync } from 'node:fs';
import { NARROW, WIDE, axe, go, look, open } from './browser.mjs';

// Pages that are asked for without a login, or that are no page: downloads, streams, fragments.
const NO_PAGE = new Set(['live', 'audit-csv', 'audit-json', 'logout', 'first', 'theme', 'schedule-next']);

// Something that is there for each place in a path.
function values(world) {
  const [director, agent] = world.agents[0].split('/');
  return { id: director, director, agent, os: 'linux', rollout: rollout(world), cluster: cluster(world), template: template(world, director), ...world.made };
}

// The wizard's walk makes one; on its own, the tour does.
function cluster(world) {
  const all = world.fleet('cluster', 'list').clusters;
  if (all.length) return all[0].id;
  const members = world.directors.flatMap((id) => ['--member', id]);
  return world.fleet('cluster', 'create', 'tour', ...members).clusters[0].id;
}

function template(world, director) {
  const all = world.fleet('template', 'list').templates;
  return (all.length ? all : world.fleet('template', 'create', 'tour', '--director', director).templates)[0].id;
}

function rollout(world) {
  const all = world.fleet('rollouts').rollouts;
  return all.length ? all[0].id : 1;
}

export async function tour({ browser, findings, world, state, out, step }) {
  for (const folder of ['wide-light', 'wide-dark', 'narrow-light', 'narrow-dark']) mkdirSync(`${out}/${folder}`, { recursive: true });
  const page = await open(browser, findings, world, { state });
  const routes = world.routes().filter((r) => r.method === 'GET' && !NO_PAGE.has(r.id) && !/\.(csv|json)$/.test(r.path));
  findings.expect(routes.length >= 10, 'routes', `only ${routes.length} pages in the table of routes`);
  for (const route of routes) {
    const variants = route.path.includes('{os}') ? ['linux', 'windows', 'macos'] : ['linux'];
    for (const os of variants) {
      if (os !== 'linux' && route.path.includes('{agent}')) continue;
      const path = world.filled(route.path, { ...values(world), os });
      step(path);
      await shoot(page, { findings, world, out }, path, `${route.id}${variants.length > 1 ? `-${os}` : ''}`);
    }
  }
  await page.context().close();
  const nobody = await open(browser, findings, world);
  step('/login');
  await shoot(nobody, { findings, world, out }, '/login', 'login');
  await nobody.context().close();
}

async function shoot(page, { findings, world, out }, path, name) {
  const answer = await go(page, findings, world, path);
  if (!findings.expect(answer.status() === 200, path, `answers ${answer.status()}`)) return;
  for (const [view, width] of [[WIDE, 'wide'], [NARROW, 'narrow']]) {
    await page.setViewportSize(view);
    for (const theme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: theme });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      const where = `${path} ${width}-${theme}`;
      if (theme === 'light') await look(page, findings, where);
      if (width === 'wide' || theme === 'dark') await axe(page, findings, where);
      await page.screenshot({ path: `${out}/${width}-${theme}/${name}.png`, fullPage: true });
    }
  }
  await page.setViewportSize(WIDE);
}
