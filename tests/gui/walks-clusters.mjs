// A cluster's pages while its members are updated, by what arrives by itself: nothing is loaded again.
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { go } from './browser.mjs';
import { at, main, panel, said, shown } from './steps.mjs';

// The two that a person asks for on purpose, each with its question.
async function ask(page, word, reason) {
  await main(page).getByText(`${word}…`).click();
  const form = main(page).locator('details.ask[open]');
  if (reason) await form.getByLabel('Reason (noted in the activity)').fill(reason);
  return form;
}

const note = (page, kind, text) => main(page).locator(`.note.${kind}`).getByText(text).first().waitFor();
const member = (page, name) => main(page).getByRole('region', { name: 'Table of members' }).getByRole('row').filter({ hasText: name });

// Fleet Management > Clusters > a name: order, peers, lease; pause, resume, abort, override; a roll-out that fails on its second member.
async function rolling(tools) {
  const { findings, world, step } = tools;
  const [headquarters, harbour, hillside] = world.directors;
  const version = (id) => world.fleet('directors').agents.find((d) => d.id === id).version;
  world.fleet('cluster', 'create', 'quay', ...world.directors.flatMap((id) => ['--member', id]));
  world.fleet('cluster', 'change', 'quay', '--drain', '1s', '--soak', '2s');
  const page = await at(world, tools, '/');
  step('Fleet Management > Clusters: 3 up 0 down');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Clusters' }).click();
  await main(page).getByRole('row').filter({ hasText: 'quay' }).getByText('3 up 0 down').waitFor();
  await main(page).getByLabel('Search').fill('harbour');
  await main(page).getByRole('button', { name: 'Apply' }).click();
  await shown(tools, page, 'clusters-found');
  await main(page).getByRole('link', { name: 'quay' }).click();
  step('the order of updates: who has the fewest agents goes first; its peers reach each');
  await member(page, 'harbour').getByText('Reached by 2 of 2').waitFor();
  await member(page, 'headquarters').getByText('Reached by 2 of 2').waitFor();
  const order = await main(page).getByRole('region', { name: 'Table of members' }).locator('tbody th').allInnerTexts();
  findings.expect(order[0] === world.awkward && order[1] === 'harbour' && order[2] === 'headquarters', 'cluster', `the order is ${order.join(', ')}`);
  step('Pause updates: asked, and said why nobody goes');
  const paused = await ask(page, 'Pause updates', 'stocktaking');
  await paused.getByRole('button', { name: 'Pause updates' }).click();
  await said(page, /No other member goes/);
  await note(page, 'warn', /paused by owner: stocktaking/);
  await shown(tools, page, 'cluster-paused');
  step('Override: what it costs is said first');
  const exception = await ask(page, 'Override', 'the ship sails');
  await exception.getByLabel('Member').selectOption({ label: 'harbour' });
  await exception.getByRole('button', { name: 'What does it cost?' }).click();
  await main(page).getByText(/ithout harbour, 2 of 3 members/).waitFor();
  await shown(tools, page, 'cluster-override');
  await main(page).getByRole('link', { name: 'Cancel' }).click();
  step('what another person does is seen at once');
  world.fleet('cluster', 'resume', 'quay');
  await main(page).locator('.note').waitFor({ state: 'detached' });
  step('a roll-out: the first member goes on, the second one fails its check');
  const check = `${dirname(world.state)}/director-1/state/config/check`;
  mkdirSync(dirname(check), { recursive: true });
  writeFileSync(check, '#!/bin/sh\necho the licence server is gone\nexit 1\n');
  chmodSync(check, 0o755);
  const before = [version(headquarters), version(harbour)];
  const wanted = before[1] === '3.0.0' ? '3.1.0' : '3.0.0';
  world.fleet('assign', '--director', hillside, '--director', harbour, '--director', headquarters, '--version', wanted, '--end-probation');
  await main(page).getByText('Has the lease').first().waitFor();
  await shown(tools, page, 'cluster-updating');
  step('halted, with the reason at the top; the third one stays');
  await note(page, 'bad', /harbour failed its update/);
  await note(page, 'bad', /licence server is gone/);
  await member(page, 'harbour').getByText('Failed', { exact: true }).waitFor();
  await panel(page, 'Activity of its members').getByText('Cluster halted').first().waitFor();
  await shown(tools, page, 'cluster-halted');
  const last = version(headquarters);
  findings.expect(last === before[0] && version(harbour) === before[1], 'cluster', `after the halt they run ${last} and ${version(harbour)}`);
  await go(page, findings, world, '/fleet-management/clusters');
  await main(page).getByRole('row').filter({ hasText: 'quay' }).getByText('Halted').waitFor();
  await main(page).getByRole('link', { name: 'quay' }).click();
  step('Abort updates: asked; the roll-out is over');
  const over = await ask(page, 'Abort updates', 'another version comes');
  await over.getByRole('button', { name: 'Abort updates' }).click();
  await said(page, /ended for this cluster/);
  await note(page, 'warn', /ended by owner: another version comes/);
  world.fleet('cancel', '--all');
  writeFileSync(check, '#!/bin/sh\nexit 0\n');
  world.fleet('cluster', 'remove', 'quay');
  await page.context().close();
}

export const CLUSTERS = { 'cluster-rolling': rolling };
