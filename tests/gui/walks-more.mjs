// More walks: clusters, agents, tokens, users and accounts, templates that are changed, sessions that end while one types.
import { axe, go, look, open } from './browser.mjs';
import { enter } from './login.mjs';
import { AUTO, at, choose, command, customPolicy, main, panel, said, shown } from './steps.mjs';

// Fleet Management > Clusters > Create: members, Update Management with Custom Policy; its page has the panel.
async function newCluster(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  page.expected.add(422);
  step('Fleet Management > Clusters, Create');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Clusters' }).click();
  await main(page).getByRole('link', { name: /Create/ }).first().click();
  step('a name is missing: said beside its field');
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).locator('.field.wrong').getByText('Type a name.').waitFor();
  await main(page).getByRole('textbox', { name: 'Name' }).fill('coast <script>');
  await main(page).getByRole('button', { name: 'Next' }).click();
  step('two members are no majority: said beside them, and they stay chosen');
  const members = main(page).getByRole('checkbox');
  findings.expect((await members.count()) === 3, 'cluster', `${await members.count()} Directors are offered`);
  await members.nth(0).check();
  await members.nth(1).check();
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).locator('.field.wrong').getByText(/an odd number/).waitFor();
  findings.expect(await members.nth(1).isChecked(), 'cluster', 'who was chosen is not any more');
  await shown(tools, page, 'cluster-new-members');
  await members.nth(2).check();
  await main(page).getByRole('button', { name: 'Next' }).click();
  step('1. In the cluster creation wizard, locate Update Management step');
  await main(page).getByRole('heading', { name: 'Update Management' }).waitFor();
  step('2. Enable Custom Policy toggle');
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
  step('3. Configure custom update settings');
  await choose(main(page), 'Manual');
  step('4. Complete creation wizard');
  await main(page).getByRole('button', { name: 'Create cluster' }).click();
  await said(page, /was created/);
  await main(page).getByRole('heading', { name: 'coast <script>' }).waitFor();
  const text = await panel(page, 'Update Management').locator('.in-force').innerText();
  findings.expect(text.includes('Manual') && text.includes('Custom Policy'), 'cluster', `its policy says: ${text}`);
  await shown(tools, page, 'cluster-made');
  step('an existing cluster: by its name, Update Management panel');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Clusters' }).click();
  await main(page).getByRole('link', { name: 'coast <script>' }).click();
  await customPolicy(tools, page, () => panel(page, 'Update Management'), { off: 'Organization' });
  step('a member has no policy of its own');
  await main(page).getByRole('region', { name: 'Table of members' }).getByRole('link', { name: 'headquarters' }).click();
  await panel(page, 'Update Management').getByText(/belongs to the cluster/).waitFor();
  findings.expect((await panel(page, 'Update Management').getByRole('button', { name: 'Save' }).count()) === 0, 'cluster', 'a member has a form');
  step('Remove cluster: asked first');
  await page.goBack();
  await main(page).getByText('Remove cluster…').click();
  await main(page).getByRole('button', { name: 'Remove', exact: true }).click();
  await said(page, /was removed/);
  await page.context().close();
}

// Devices > Linux > a name > Update Management panel > Custom Policy > Save; off again loses nothing.
async function agent(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  step('1. Navigate to Devices > Linux');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Linux', exact: true }).click();
  step('2. Click the Agent name to open detail view');
  await main(page).getByRole('link', { name: 'web-1' }).first().click();
  step('3. Locate Update Management panel');
  await panel(page, 'Update Management').waitFor();
  await customPolicy(tools, page, () => panel(page, 'Update Management'), { off: /Organization|built in|Director/ });
  step('what it runs, where it is, and what happened');
  await panel(page, 'About').getByText('headquarters').first().waitFor();
  await panel(page, 'Activity').getByText('Confirmed').first().waitFor();
  findings.expect((await panel(page, 'Update').innerText()).includes('1.1.0'), 'agent', 'its version is not there');
  step('its Director, the default for its agents');
  await panel(page, 'About').getByRole('link', { name: 'headquarters' }).click();
  await customPolicy(tools, page, () => panel(page, 'Default for its agents'), { off: /Organization|built in/ });
  await page.context().close();
}

// Organization > Settings > API Tokens: made, used, revoked.
async function tokens(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/organization/settings/update-management');
  await page.getByRole('navigation', { name: 'Settings' }).getByRole('link', { name: 'API Tokens' }).click();
  step('Create: shown once, copied');
  await main(page).getByLabel('Role').selectOption('Viewer');
  await main(page).getByLabel('Good for').selectOption('1 month');
  await main(page).getByRole('button', { name: 'Create' }).click();
  const token = (await main(page).locator('#token').innerText()).trim();
  await main(page).locator('[data-copy=token]').click();
  await said(page, 'Copied');
  await shown(tools, page, 'token-made');
  const ask = async () => (await page.request.get(`${world.url}/api/v1/directors`, { headers: { authorization: `Bearer ${token}`, cookie: '' } })).status();
  findings.expect((await ask()) === 200, 'tokens', 'the API does not take it');
  step('Revoke: asked first, and worth nothing then');
  await go(page, findings, world, '/organization/settings/tokens');
  findings.expect(!(await main(page).innerText()).includes(token), 'tokens', 'it is shown again');
  await main(page).getByText('Revoke', { exact: true }).first().click();
  await main(page).getByRole('button', { name: /^Revoke / }).click();
  await said(page, /was revoked/);
  await main(page).getByText('Revoked').first().waitFor();
  findings.expect((await ask()) === 401, 'tokens', 'the API still takes it');
  await page.context().close();
}

// Chooses a password by a one-time link, in a browser of one's own.
async function choosePassword(tools, link, password) {
  const { browser, findings, world, step } = tools;
  const page = await open(browser, findings, world);
  page.expected.add(422).add(403).add(401);
  const url = new URL(link, world.url);
  await page.goto(world.url + url.pathname + url.search);
  step('a password that is too short, and one that is not the same again: said beside the field');
  const [first, again] = [page.getByLabel('Password', { exact: true }), page.getByLabel('The same again')];
  await first.fill('short');
  await again.fill('short');
  await page.getByRole('button', { name: 'Save and log in' }).click();
  await page.locator('.field.wrong').getByLabel('Password', { exact: true }).waitFor();
  await first.fill(password);
  await again.fill(`${password}x`);
  await page.getByRole('button', { name: 'Save and log in' }).click();
  await page.locator('.field.wrong').getByLabel('The same again').waitFor();
  await axe(page, findings, 'a password that differs');
  await first.fill(password);
  await again.fill(password);
  await page.getByRole('button', { name: 'Save and log in' }).click();
  await page.waitForURL((u) => u.pathname === '/');
  return page;
}

// Organization > Users: added, another role, disabled, removed; and the own password.
async function users(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  page.expected.add(422);
  step('Organization > Users');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Users' }).click();
  step('a name that is none: said beside its field, what was typed stands');
  const add = panel(page, 'Add a user');
  await add.getByRole('textbox', { name: 'Name' }).fill('vera <script>');
  await choose(add, 'Contributor');
  await add.getByRole('button', { name: 'Add and make a link' }).click();
  await add.locator('.field.wrong').getByRole('textbox', { name: 'Name' }).waitFor();
  findings.expect((await add.getByRole('textbox', { name: 'Name' }).inputValue()) === 'vera <script>', 'users', 'what was typed is gone');
  findings.expect(await add.getByRole('radio', { name: /^Contributor/ }).isChecked(), 'users', 'the role is gone');
  await shown(tools, page, 'users-wrong');
  step('added as a viewer: the link is shown once');
  await add.getByRole('textbox', { name: 'Name' }).fill('vera');
  await choose(add, 'Viewer');
  await add.getByRole('button', { name: 'Add and make a link' }).click();
  const link = (await main(page).locator('#new-link').innerText()).trim();
  await shown(tools, page, 'users-added');
  const theirs = await choosePassword(tools, link, 'some words of vera');
  step('a viewer looks, and changes nothing');
  const nav = theirs.getByRole('navigation', { name: 'Main' });
  findings.expect((await nav.getByRole('link', { name: 'Users' }).count()) === 0, 'users', 'a viewer is led to the users');
  await nav.getByRole('link', { name: 'Directors', exact: true }).click();
  findings.expect((await main(theirs).getByRole('link', { name: /Create/ }).count()) === 0, 'users', 'a viewer is offered Create');
  await theirs.goto(`${world.url}/organization/users`);
  await theirs.getByText('Not permitted').first().waitFor();
  step('the own password: the present one is asked for');
  await theirs.getByLabel('Account of vera').click();
  await theirs.getByRole('link', { name: 'Your account' }).click();
  const fill = async (now, next, again) => {
    await main(theirs).getByLabel('Present password').fill(now);
    await main(theirs).getByLabel('New password').fill(next);
    await main(theirs).getByLabel('The same again').fill(again);
    await main(theirs).getByRole('button', { name: 'Change password' }).click();
  };
  await fill('not the one', 'other words of vera', 'other words of vera');
  await main(theirs).locator('.field.wrong').getByLabel('Present password').waitFor();
  await fill('some words of vera', 'short', 'short');
  await main(theirs).locator('.field.wrong').getByLabel('New password').waitFor();
  await fill('some words of vera', 'other words of vera', 'other words');
  await main(theirs).locator('.field.wrong').getByLabel('The same again').waitFor();
  await shown(tools, theirs, 'account-wrong');
  await fill('some words of vera', 'other words of vera', 'other words of vera');
  await said(theirs, /Your password is changed/);
  step('another role: the session ends, the login leads back, and the role counts');
  const row = () => main(page).getByRole('row').filter({ hasText: 'vera' }).first();
  await go(page, findings, world, '/organization/users');
  await row().getByText('Change role…').click();
  await choose(row(), 'Contributor');
  await row().getByRole('button', { name: 'Change role' }).click();
  await said(page, /contributor now/);
  await theirs.goto(`${world.url}/organization/settings/update-management`);
  await theirs.waitForURL((u) => u.pathname === '/login');
  await enter(theirs, findings, world, { name: 'vera', password: 'other words of vera' });
  findings.expect(new URL(theirs.url()).pathname === '/organization/settings/update-management', 'users', `back at ${theirs.url()}`);
  await panel(theirs, 'Agents').getByRole('button', { name: 'Save' }).waitFor();
  step('disabled: logged out, and not let in');
  await row().getByText('Disable…').click();
  await row().getByRole('button', { name: 'Disable' }).click();
  await said(page, /may not log in any more/);
  await theirs.goto(`${world.url}/activity`);
  await theirs.getByLabel('Name').fill('vera');
  await theirs.getByLabel('Password').fill('other words of vera');
  await theirs.getByRole('button', { name: 'Log in' }).click();
  await theirs.getByText(/name or the password is wrong/).waitFor();
  await theirs.context().close();
  step('removed');
  await row().getByText('Remove…').click();
  await row().getByRole('button', { name: 'Remove' }).click();
  await said(page, /is removed/);
  findings.expect((await main(page).getByRole('rowheader', { name: 'vera' }).count()) === 0, 'users', 'still there after the removal');
  step('the audit log has all of it');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Audit' }).click();
  for (const action of ['ChangePassword', 'UseLink']) await main(page).getByText(action).first().waitFor();
  await page.context().close();
}

// Devices > Enrollment Templates > a name: its terms and its policy are changed; two people at once.
async function editTemplate(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/devices/templates/new');
  page.expected.add(422);
  await main(page).getByRole('textbox', { name: 'Template Name' }).fill('tills & scales');
  await main(page).getByLabel('Director').selectOption({ label: 'headquarters' });
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).getByRole('button', { name: 'Create template' }).click();
  await command(tools, page, ['vmetric-agent', '-service install', 'sha256:']);
  await main(page).getByRole('link', { name: 'To the templates' }).click();
  step('click the template name');
  await main(page).getByRole('link', { name: 'tills & scales' }).click();
  const other = await at(world, tools, new URL(page.url()).pathname);
  other.expected.add(422);
  step('devices that are no number: said beside the field, what was typed stands');
  await main(page).getByRole('textbox', { name: 'Template Name' }).fill('tills <b>');
  await main(page).getByLabel('Devices').fill('0');
  await main(page).getByRole('button', { name: 'Save' }).click();
  await main(page).locator('.field.wrong').getByLabel('Devices').waitFor();
  findings.expect((await main(page).getByRole('textbox', { name: 'Template Name' }).inputValue()) === 'tills <b>', 'template', 'the name is gone');
  await shown(tools, page, 'template-wrong');
  step('Save: name, devices, Custom Policy');
  await main(page).getByLabel('Devices').fill('7');
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
  await choose(main(page), AUTO);
  await choose(main(page), 'Immediate');
  await main(page).getByRole('button', { name: 'Save' }).click();
  await said(page, /is saved/);
  const row = () => main(page).getByRole('row').filter({ hasText: 'tills <b>' });
  await row().getByText('0/7').waitFor();
  await row().getByText('Auto · Immediate').waitFor();
  step('who saves later is told, and what was typed stands');
  await main(other).getByLabel('Devices').fill('9');
  await main(other).getByRole('button', { name: 'Save' }).click();
  await main(other).getByText(/Somebody else saved/).waitFor();
  findings.expect((await main(other).getByLabel('Devices').inputValue()) === '9', 'template', 'what was typed is gone');
  await axe(other, findings, 'a template in conflict');
  await other.context().close();
  step('off again: inherited, and what was typed is there the next time');
  await main(page).getByRole('link', { name: 'tills <b>' }).click();
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).uncheck();
  await main(page).getByRole('button', { name: 'Save' }).click();
  await row().getByText('Inherited').waitFor();
  await main(page).getByRole('link', { name: 'tills <b>' }).click();
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
  findings.expect(await main(page).getByRole('radio', { name: /^Immediate/ }).isChecked(), 'template', 'the method is gone');
  step('Remove');
  await main(page).getByText('Remove…').click();
  await main(page).getByRole('button', { name: 'Remove' }).click();
  await said(page, /was removed/);
  await page.context().close();
}

// The session ends while one types: the login leads back to the page, not to where the form was sent.
async function expiredForm(tools) {
  const { findings, world, step } = tools;
  const end = async (path, act) => {
    const page = await at(world, tools, path);
    step(`${path}: the session ends, then Save`);
    await page.context().clearCookies();
    await act(page);
    await page.waitForURL((u) => u.pathname === '/login');
    await enter(page, findings, world);
    const url = new URL(page.url());
    findings.expect(url.pathname + url.search === path, 'expired form', `one is at ${page.url()}, not ${path}`);
    await page.context().close();
  };
  await end('/organization/settings/update-management', (page) => panel(page, 'Agents').getByRole('button', { name: 'Save' }).click());
  await end(`/fleet-management/directors/${world.directors[0]}`, (page) => panel(page, 'Update Management').getByRole('button', { name: 'Save' }).click());
  await end('/fleet-management/directors?q=head', (page) => page.getByRole('button', { name: /Switch between/ }).click());
  await end('/organization/users', (page) => panel(page, 'Add a user').getByRole('button', { name: /Add/ }).click());
}

// Nothing jumps while live data arrives: what stands above and around keeps its place when a part of the page is renewed.
async function steady(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  step('parts are renewed while one looks at the overview');
  await page.locator('[data-connection]').getByText('Live').waitFor();
  await page.evaluate(() => {
    window.__shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.__shift += entry.value;
    }).observe({ type: 'layout-shift', buffered: false });
    window.__renewed = 0;
    new MutationObserver(() => { window.__renewed += 1; }).observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true });
  });
  step('a Director is updated: tiles, roll-outs and versions change');
  world.fleet('assign', '--director', world.directors[1], '--version', '3.1.0');
  await page.getByRole('region', { name: 'Directors by version' }).getByText('3.1.0').waitFor();
  await page.waitForFunction(() => window.__renewed > 0);
  // Whatever came with it has been drawn.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const shift = await page.evaluate(() => window.__shift);
  findings.expect(shift < 0.05, 'steady', `the overview moved by ${shift}`);
  step('an open question and what is typed in it stay while its part is renewed');
  await go(page, findings, world, `/fleet-management/directors/${world.directors[0]}`);
  await page.locator('[data-connection]').getByText('Live').waitFor();
  await main(page).getByText('Reject version…').click();
  const reason = main(page).locator('details.ask[open] input[name=reason]');
  await reason.fill('half a sent');
  const before = await reason.boundingBox();
  world.fleet('policy', 'set', '--director', world.directors[0], '--version', 'latest');
  await panel(page, 'Activity').getByText('Policy changed').first().waitFor();
  const after = await reason.boundingBox();
  findings.expect((await reason.inputValue()) === 'half a sent', 'steady', 'what was typed is gone');
  findings.expect(before && after && before.y === after.y, 'steady', 'the field moved while one typed');
  await look(page, findings, 'a question that is open');
  await page.context().close();
}

export const MORE = {
  // Before the clusters: their policy updates whom it orders.
  steady,
  'new-cluster': newCluster,
  agent,
  tokens,
  users,
  'edit-template': editTemplate,
  'expired-form': expiredForm,
};
