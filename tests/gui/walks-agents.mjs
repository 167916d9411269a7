// User Action for agents, and the default for the agents of a cluster.
import { go } from './browser.mjs';
import { AUTO, at, choose, customPolicy, main, panel, said, shown } from './steps.mjs';

const MAIN = { name: 'Main' };
// Longest wait for what Director and agent do, milliseconds.
const PATIENCE = 120_000;

const rows = (world) => world.fleet('agents').agents;

async function until(page, what, holds) {
  const end = Date.now() + PATIENCE;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`${what} did not come`);
    await page.waitForTimeout(250);
  }
}

// Available updates: agents whose Update Method is User Action wait; one, a Director's, all; the agent's own page; Revoke.
async function confirmAgents(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/organization/settings/update-management');
  page.expected.add(422);
  step('the agents wait for a person');
  const agents = () => panel(page, 'Agents');
  await choose(agents(), AUTO);
  await choose(agents(), 'User Action');
  await agents().getByRole('button', { name: 'Save' }).click();
  await said(page, /saved/i);
  const ids = world.agents.map((agent) => agent.split('/')[1]);
  await until(page, 'who waits', () => rows(world).filter((a) => ids.includes(a.id) && a.needs).length >= 3);
  step('Fleet Management > Available updates');
  await page.getByRole('navigation', MAIN).getByRole('link', { name: 'Available updates' }).click();
  const waiting = () => main(page).getByRole('region', { name: 'Agents that wait for confirmation' });
  await waiting().waitFor();
  await shown(tools, page, 'updates-agents');
  step('nothing chosen');
  await waiting().getByRole('button', { name: /chosen agents/ }).click();
  await main(page).getByText(/Choose at least one agent/).waitFor();
  step('one agent is chosen, confirmed and triggered');
  await waiting().getByRole('checkbox', { name: /^Choose database-1 of / }).check();
  await waiting().getByRole('button', { name: /chosen agents/ }).click();
  await said(page, /was confirmed/);
  const one = () => rows(world).find((a) => a.hostname === 'database-1');
  await until(page, 'its order', () => ['ordered', 'done', 'failed'].includes(one().authorization?.state));
  await go(page, findings, world, '/updates');
  await main(page).getByRole('region', { name: 'Confirmed for agents' }).getByText(/^1 agent/).first().waitFor();
  await shown(tools, page, 'updates-agents-confirmed');
  step("the agent's own page says what became of it");
  await go(page, findings, world, `/devices/linux/${one().director}/${one().id}`);
  await panel(page, 'User Action').getByText(/confirmed by/).waitFor();
  await shown(tools, page, 'agent-confirmed');
  step('Revoke ends what has not switched, and a page says so');
  const left = rows(world).find((a) => ids.includes(a.id) && a.needs && !a.authorization);
  await go(page, findings, world, `/devices/linux/${left.director}/${left.id}`);
  await panel(page, 'User Action').getByRole('button', { name: /^Confirm and update to/ }).click();
  await said(page, /was confirmed/);
  await until(page, 'its word', () => rows(world).find((a) => a.id === left.id).authorization);
  await go(page, findings, world, `/devices/linux/${left.director}/${left.id}`);
  if (await panel(page, 'User Action').getByRole('button', { name: 'Revoke' }).count()) {
    await panel(page, 'User Action').getByRole('button', { name: 'Revoke' }).click();
    await said(page, /taken back|ended/);
  }
  step('back to Manual, for the other walks');
  await go(page, findings, world, '/organization/settings/update-management');
  await choose(agents(), 'Manual');
  await agents().getByRole('button', { name: 'Save' }).click();
  await said(page, /saved/i);
  await page.context().close();
}

// Fleet Management > Clusters > a name > Default for its agents; a member's own rests, and counts again.
async function clusterAgents(tools) {
  const { findings, world, step } = tools;
  const members = world.directors.flatMap((id) => ['--member', id]);
  world.fleet('cluster', 'create', 'shore', ...members);
  const page = await at(world, tools, '/');
  step('Fleet Management > Clusters, a name');
  await page.getByRole('navigation', MAIN).getByRole('link', { name: 'Clusters' }).click();
  await main(page).getByRole('link', { name: 'shore' }).click();
  step('the default for its agents: Custom Policy, Save; off again loses nothing');
  await customPolicy(tools, page, () => panel(page, 'Default for its agents'), { off: /Organization|built in/ });
  await shown(tools, page, 'cluster-agents');
  step("a member's own default rests");
  await go(page, findings, world, `/fleet-management/directors/${world.directors[0]}`);
  await panel(page, 'Default for its agents').getByText(/belongs to the cluster/).waitFor();
  step('it counts again when the cluster is gone');
  world.fleet('cluster', 'remove', 'shore');
  await go(page, findings, world, `/fleet-management/directors/${world.directors[0]}`);
  await panel(page, 'Default for its agents').getByRole('button', { name: 'Save' }).waitFor();
  await page.context().close();
}

export const AGENTS = { 'confirm-agents': confirmAgents, 'cluster-agents': clusterAgents };
