// The walks: the paths of the specification in its own words and order of clicks, and what bad input gets.
import { NARROW, axe, go, look, open } from './browser.mjs';
import { enter } from './login.mjs';
import { AUTO, SUNDAY, at, choose, command, customPolicy, main, panel, said, seen, shown } from './steps.mjs';
import { MORE } from './walks-more.mjs';
import { AGENTS } from './walks-agents.mjs';
import { CLUSTERS } from './walks-clusters.mjs';

// Organization > Settings > Update Management: Mode; Method in Auto only; Schedule in Scheduled only; Save.
async function organization(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  step('1. Navigate to Organization > Settings');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Settings' }).click();
  step('2. Select Update Management tab');
  await page.getByRole('navigation', { name: 'Settings' }).getByRole('link', { name: 'Update Management' }).click();
  for (const whom of ['Directors', 'Agents']) {
    const form = panel(page, whom);
    step(`3. Configure: Update Mode, ${whom}`);
    await choose(form, 'Manual');
    findings.expect(!(await seen(form, 'User Action')), whom, 'Update Method is there in Manual');
    await choose(form, AUTO);
    findings.expect(await seen(form, 'User Action'), whom, 'Update Method is not there in Auto');
    step('   Update Method');
    for (const method of ['User Action', 'Immediate']) {
      await choose(form, method);
      findings.expect(!(await seen(form, 'Cron expression')), whom, `a schedule is there with ${method}`);
    }
    await choose(form, 'Scheduled');
    findings.expect(await seen(form, 'Cron expression'), whom, 'no schedule with Scheduled');
    step('   Schedule: cron expression, the next five times while one types');
    await choose(form, 'Cron expression');
    findings.expect(!(await form.getByRole('textbox', { name: 'Interval' }).isVisible()), whom, 'the interval is there beside cron');
    await form.getByRole('textbox', { name: 'Cron expression' }).fill('');
    await form.getByRole('textbox', { name: 'Cron expression' }).pressSequentially(SUNDAY);
    await form.getByText(/Sunday/).first().waitFor();
    await form.locator('ol.next li').nth(4).waitFor();
    findings.expect((await form.locator('ol.next li').count()) === 5, whom, 'not five times');
    step('   or an interval');
    await choose(form, 'Interval');
    await form.getByRole('textbox', { name: 'Interval' }).fill('24h');
    await form.locator('.preview').getByText(/24|day/).first().waitFor();
    await choose(form, 'Cron expression');
    await form.getByLabel('Time zone').fill('Europe/Berlin');
    step('4. Click Save');
    await form.getByRole('button', { name: 'Save' }).click();
    await said(page, /saved/i);
    await panel(page, whom).locator('.in-force').getByText(SUNDAY).waitFor();
    findings.expect((await panel(page, whom).locator('.in-force').innerText()).includes('Organization'), whom, 'no tier is named');
  }
  step('back to User Action, for the other walks');
  const form = panel(page, 'Directors');
  await choose(form, 'User Action');
  await form.getByRole('button', { name: 'Save' }).click();
  await said(page, /saved/i);
  step('its history');
  await panel(page, 'Directors').getByText('History').click();
  await panel(page, 'Directors').getByText(/schedule → user_action/).first().waitFor();
  await page.context().close();
}

// What bad input gets: beside its field, and what was typed stands.
async function wrong(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/organization/settings/update-management');
  page.expected.add(422);
  const form = () => panel(page, 'Agents');
  step('a cron line that is none');
  await choose(form(), AUTO);
  await choose(form(), 'Scheduled');
  await choose(form(), 'Cron expression');
  await form().getByRole('textbox', { name: 'Cron expression' }).fill('61 2 * * 0');
  await form().getByRole('button', { name: 'Save' }).click();
  await form().locator('.field.wrong .error').first().waitFor();
  findings.expect((await form().getByRole('textbox', { name: 'Cron expression' }).inputValue()) === '61 2 * * 0', 'cron', 'what was typed is gone');
  findings.expect((await form().locator('.field.wrong input').first().getAttribute('aria-invalid')) === 'true', 'cron', 'the field is not marked');
  await look(page, findings, 'a form with an error');
  await axe(page, findings, 'a form with an error');
  step('nothing typed at all');
  await form().getByRole('textbox', { name: 'Cron expression' }).fill('');
  await form().getByRole('button', { name: 'Save' }).click();
  await form().getByText(/Type five fields/).waitFor();
  step('a zone that is none');
  await form().getByRole('textbox', { name: 'Cron expression' }).fill(SUNDAY);
  await form().getByLabel('Time zone').fill('Mars/Olympus');
  await form().getByRole('button', { name: 'Save' }).click();
  await form().locator('.field.wrong').getByLabel('Time zone').waitFor();
  step('a window that never opens is told');
  await form().getByLabel('Time zone').fill('UTC');
  await form().getByRole('textbox', { name: 'Cron expression' }).fill('0 0 30 2 *');
  await form().locator('.note.warn').first().waitFor();
  step('a version that does not exist is told');
  await form().getByRole('textbox', { name: 'Cron expression' }).fill(SUNDAY);
  await form().getByLabel('Version', { exact: true }).fill('9.9.9');
  await form().locator('.note.warn').getByText(/9\.9\.9/).first().waitFor();
  await page.context().close();
}

// Fleet Management > Directors > a name > Update Management panel > Custom Policy > Save; off again loses nothing.
async function director(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  step('1. Navigate to Fleet Management > Directors');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Directors', exact: true }).click();
  step('2. Click the Director name to open detail view');
  await main(page).getByRole('link', { name: 'headquarters' }).first().click();
  step('3. Locate Update Management panel');
  const form = () => panel(page, 'Update Management');
  await form().waitFor();
  await customPolicy(tools, page, form, { off: 'Organization' });
  await page.context().close();
}

// In the Director creation wizard: Update Management step, Custom Policy toggle, settings, complete; the command to copy.
async function newDirector(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/fleet-management/directors');
  page.expected.add(422);
  step('Create');
  await main(page).getByRole('link', { name: /Create/ }).first().click();
  step('a name is missing: said beside its field');
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).locator('.field.wrong').getByText('Type a name.').waitFor();
  await main(page).getByRole('textbox', { name: 'Name' }).fill('lighthouse <b>&');
  await main(page).getByRole('button', { name: 'Next' }).click();
  step('1. In the Director creation wizard, locate Update Management step');
  await main(page).getByRole('heading', { name: 'Update Management' }).waitFor();
  step('2. Enable Custom Policy toggle');
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
  step('3. Configure custom update settings');
  await choose(main(page), AUTO);
  await choose(main(page), 'Immediate');
  step('Back keeps everything');
  await main(page).getByRole('button', { name: 'Back' }).click();
  findings.expect((await main(page).getByRole('textbox', { name: 'Name' }).inputValue()) === 'lighthouse <b>&', 'wizard', 'the name is gone after Back');
  await main(page).getByRole('button', { name: 'Next' }).click();
  findings.expect(await main(page).getByRole('checkbox', { name: 'Custom Policy' }).isChecked(), 'wizard', 'the toggle is off after Back and Next');
  findings.expect(await main(page).getByRole('radio', { name: /^Immediate/ }).isChecked(), 'wizard', 'the method is gone after Back and Next');
  step('4. Complete creation wizard');
  await main(page).getByRole('button', { name: 'Create Director' }).click();
  await command(tools, page, ['vmetric-director', 'sha256', '-service install']);
  await look(page, findings, 'director-new, last step');
  await axe(page, findings, 'director-new, last step');
  await page.setViewportSize(NARROW);
  await look(page, findings, 'director-new, last step, narrow');
  await page.context().close();
}

// Devices > Linux / Windows / macOS > Create: Setup, Update Management with Custom Policy, the command to copy.
async function newDevice(tools) {
  const { findings, world, step } = tools;
  for (const [os, words] of [['Linux', ['vmetric-agent', '-service install', 'sha256:']], ['Windows', []], ['macOS', []]]) {
    const page = await at(world, tools, '/');
    page.expected.add(422);
    step(`1. Navigate to Devices > ${os}, click Create`);
    await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: os, exact: true }).click();
    await main(page).getByRole('link', { name: /Create/ }).first().click();
    step('a name and a Director are missing: said beside their fields');
    await main(page).getByRole('button', { name: 'Next' }).click();
    await main(page).locator('.field.wrong').getByText('Type a name.').waitFor();
    await main(page).locator('.field.wrong').getByText(/Choose the Director/).waitFor();
    await axe(page, findings, `device-new ${os}, with errors`);
    await main(page).getByRole('textbox', { name: 'Name' }).fill(`till <b>& ${os}`);
    await main(page).getByLabel('Director').selectOption({ label: 'headquarters' });
    await main(page).getByRole('button', { name: 'Next' }).click();
    step('2. In the device creation wizard, Update Management step: Custom Policy');
    await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
    await choose(main(page), AUTO);
    await choose(main(page), 'User Action');
    await look(page, findings, `device-new ${os}, step 2`);
    step('3. Complete creation wizard');
    await main(page).getByRole('button', { name: 'Create device' }).click();
    await main(page).getByRole('heading', { name: 'Install and Connect' }).waitFor();
    if (words.length) await command(tools, page, words);
    await main(page).locator('#enroll').getByText(/vmetric-agent enroll --director/).waitFor();
    await shown(tools, page, `device-new-${os.toLowerCase()}-done`);
    await page.context().close();
  }
}

// Devices > Enrollment Templates: many devices, one command; renewed, switched off, removed.
async function templates(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  page.expected.add(422);
  step('Devices > Enrollment Templates, Create');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Enrollment Templates' }).click();
  await main(page).getByRole('link', { name: /Create/ }).first().click();
  await main(page).getByRole('textbox', { name: 'Template Name' }).fill('kiosks <script>');
  await main(page).getByLabel('Director').selectOption({ label: 'headquarters' });
  step('without an end, without approval: said beside its field');
  await main(page).getByLabel('Time Limit').selectOption('Indefinite');
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).locator('.field.wrong').getByText(/needs approval/).waitFor();
  await main(page).getByLabel('Approve each device').check();
  await main(page).getByRole('button', { name: 'Next' }).click();
  await main(page).getByRole('checkbox', { name: 'Custom Policy' }).check();
  await choose(main(page), AUTO);
  await choose(main(page), 'Immediate');
  await main(page).getByRole('button', { name: 'Create template' }).click();
  await command(tools, page, ['vmetric-agent', '-service install', 'sha256:']);
  await shown(tools, page, 'template-new-done');
  await main(page).getByRole('link', { name: 'To the templates' }).click();
  const row = () => main(page).getByRole('row').filter({ hasText: 'kiosks <script>' });
  await row().getByText('0/100').waitFor();
  await row().getByText('Indefinite').waitFor();
  step('Renew: another command, once');
  await row().getByText('Renew…').click();
  await row().getByRole('button', { name: 'Show new commands' }).click();
  await main(page).locator('#install').waitFor();
  await main(page).getByRole('link', { name: 'To the templates' }).click();
  step('Disable');
  await row().getByText('Disable…').click();
  await row().getByRole('button', { name: 'Disable' }).click();
  await row().getByText('Disabled').first().waitFor();
  await shown(tools, page, 'templates-list');
  step('Remove');
  await row().getByText('Remove…').click();
  await row().getByRole('button', { name: 'Remove' }).click();
  await said(page, /was removed/);
  findings.expect((await row().count()) === 0, 'templates', 'it is there after its removal');
  await page.context().close();
}

// Organization > Settings > Notifications.
async function notifications(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/organization/settings/update-management');
  page.expected.add(422);
  await page.getByRole('navigation', { name: 'Settings' }).getByRole('link', { name: 'Notifications' }).click();
  step('an address that is not https: said beside its field');
  await main(page).getByRole('textbox', { name: 'Name' }).fill('on call');
  await main(page).getByRole('textbox', { name: 'Address' }).fill('http://hooks.invalid/x');
  await main(page).getByRole('checkbox', { name: /^Rolled back/ }).check();
  await main(page).getByRole('button', { name: 'Add webhook' }).click();
  await main(page).locator('.field.wrong').getByText(/not https/).waitFor();
  findings.expect(await main(page).getByRole('checkbox', { name: /^Rolled back/ }).isChecked(), 'notifications', 'what was ticked is gone');
  await main(page).getByRole('textbox', { name: 'Address' }).fill('https://hooks.invalid/x');
  await main(page).getByRole('button', { name: 'Add webhook' }).click();
  await main(page).locator('#secret').getByText(/^vms_/).waitFor();
  await shown(tools, page, 'notifications-made');
  step('Test: what became of it is said');
  await main(page).getByRole('button', { name: 'Test' }).click();
  await main(page).getByText('Failing').waitFor();
  findings.expect((await main(page).locator('#secret').count()) === 0, 'notifications', 'the secret is shown again');
  await shown(tools, page, 'notifications-list');
  step('Remove');
  await main(page).getByText('Remove…').click();
  await main(page).getByRole('button', { name: 'Remove' }).click();
  await main(page).getByText(/There is no webhook yet/).waitFor();
  await page.context().close();
}

// Available updates: what is new, for whom; an administrator confirms and triggers.
async function userAction(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  page.expected.add(422);
  step('Fleet Management > Available updates');
  await page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name: 'Available updates' }).click();
  await main(page).getByText('vmetric-director 3.1.0').waitFor();
  step('nothing chosen');
  await main(page).getByRole('button', { name: /Confirm and update/ }).click();
  await main(page).getByText(/Choose at least one/).waitFor();
  step('one Director is chosen, confirmed and triggered');
  await main(page).getByRole('checkbox', { name: /headquarters/ }).check();
  await main(page).getByRole('button', { name: /Confirm and update/ }).click();
  await said(page, /was confirmed for 1 Director/);
  step('it runs the new version');
  const id = world.directors[0];
  const end = Date.now() + 120_000;
  let version = '';
  while (version !== '3.1.0' && Date.now() < end) {
    version = world.fleet('directors').agents.find((d) => d.id === id).version;
    await page.waitForTimeout(250);
  }
  findings.expect(version === '3.1.0', 'user action', `the Director runs ${version}`);
  await page.context().close();
}

// Two people change the same settings at the same time.
async function race(tools) {
  const { findings, world, step } = tools;
  const one = await at(world, tools, '/organization/settings/update-management');
  const two = await at(world, tools, '/organization/settings/update-management');
  two.expected.add(422).add(409);
  step('the first one saves');
  await choose(panel(one, 'Agents'), 'Manual');
  await panel(one, 'Agents').getByRole('button', { name: 'Save' }).click();
  await said(one, /saved/i);
  step('the second one is told, and what was typed stands');
  await choose(panel(two, 'Agents'), AUTO);
  await choose(panel(two, 'Agents'), 'Immediate');
  await panel(two, 'Agents').getByRole('button', { name: 'Save' }).click();
  await panel(two, 'Agents').getByText(/Somebody else saved/).waitFor();
  findings.expect(await panel(two, 'Agents').getByRole('radio', { name: /^Immediate/ }).isChecked(), 'race', 'what was typed is gone');
  await look(two, findings, 'a conflict');
  await axe(two, findings, 'a conflict');
  step('and saves after looking at it');
  await panel(two, 'Agents').getByRole('button', { name: 'Save' }).click();
  await said(two, /saved/i);
  await one.context().close();
  await two.context().close();
}

// A session that has ended: the login, and back to where one was.
async function expired(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/fleet-management/directors?q=head');
  step('the session ends');
  const session = (await page.context().cookies()).filter((c) => c.name.includes('session'));
  findings.expect(session.length === 1 && session[0].httpOnly && session[0].secure && session[0].sameSite === 'Strict', 'cookie', JSON.stringify(session.map(({ value, ...rest }) => rest)));
  await page.context().clearCookies();
  step('the next click leads to the login');
  await page.goto(`${world.url}/fleet-management/directors?q=head`);
  findings.expect(new URL(page.url()).pathname === '/login', 'expired', `one is at ${page.url()}`);
  step('and from there back');
  await enter(page, findings, world);
  const url = new URL(page.url());
  findings.expect(url.pathname + url.search === '/fleet-management/directors?q=head', 'expired', `one is at ${page.url()}`);
  await page.context().close();
}

// Names that try to be HTML are text, on every page that shows them.
async function awkward(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/');
  for (const path of ['/fleet-management/directors', '/updates', `/fleet-management/directors/${world.directors[2]}`, '/fleet-management/clusters/new']) {
    step(path);
    await go(page, findings, world, path);
    findings.expect((await page.title()).endsWith('Fleet'), path, `the title is ${await page.title()}`);
    findings.expect(!(await page.evaluate(() => [...document.querySelectorAll('script')].some((s) => !s.src))), path, 'a script of a name is in the page');
  }
  findings.expect(world.awkward.includes('<script>'), 'world', 'no awkward name');
  await page.context().close();
}

// Without JavaScript: the organization's settings, by their form alone.
async function withoutScript(tools) {
  const { findings, world, step } = tools;
  const page = await at(world, tools, '/organization/settings/update-management', { js: false });
  step('all fields are there');
  const form = panel(page, 'Agents');
  findings.expect(await form.getByRole('textbox', { name: 'Cron expression' }).isVisible(), 'without JavaScript', 'cron is hidden');
  step('Save');
  await choose(form, AUTO);
  await choose(form, 'Scheduled');
  await choose(form, 'Cron expression');
  await form.getByRole('textbox', { name: 'Cron expression' }).fill('0 3 * * 1-5');
  await form.getByRole('button', { name: 'Save' }).click();
  await page.getByText(/saved/i).first().waitFor();
  await panel(page, 'Agents').locator('.in-force').getByText('0 3 * * 1-5').waitFor();
  await page.context().close();
}

// One whole pass by keyboard alone: from the login to a saved policy.
async function keyboard(tools) {
  const { browser, findings, world, step } = tools;
  const page = await open(browser, findings, world);
  const focused = () => page.evaluate(() => {
    const e = document.activeElement;
    const label = e.labels && e.labels[0] ? e.labels[0].innerText : e.getAttribute('aria-label') || e.innerText || '';
    const style = getComputedStyle(e);
    return { name: label.trim().split('\n')[0], tag: e.tagName, type: e.type || '', box: e.closest('section') ? (e.closest('section').getAttribute('aria-labelledby') || '') : '', ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 };
  });
  const tabTo = async (name, { box = '', most = 90 } = {}) => {
    for (let i = 0; i < most; i += 1) {
      await page.keyboard.press('Tab');
      const at = await focused();
      if (at.name.startsWith(name) && at.box.includes(box)) {
        findings.expect(at.ring, 'keyboard', `${name} shows no focus`);
        return at;
      }
    }
    throw new Error(`'${name}' is not reached by ${most} times Tab on ${page.url()}`);
  };
  step('log in');
  await go(page, findings, world, '/login');
  await tabTo('Name');
  await page.keyboard.type('owner');
  await page.keyboard.press('Tab');
  await page.keyboard.type('four plain words for tests');
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.pathname === '/');
  step('Skip to content');
  await page.keyboard.press('Tab');
  findings.expect((await focused()).name.startsWith('Skip'), 'keyboard', 'the first stop is not "Skip to content"');
  step('Organization > Settings');
  await tabTo('Settings');
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.pathname === '/organization/settings/update-management');
  step('Update Mode, Update Method');
  const radio = async (first, wanted) => {
    for (let i = 0; i < 4; i += 1) {
      if ((await focused()).name.startsWith(wanted)) break;
      await page.keyboard.press('ArrowDown');
    }
    findings.expect((await focused()).name.startsWith(wanted), 'keyboard', `the arrows do not reach ${wanted} from ${first}`);
  };
  for (let i = 0; i < 60; i += 1) {
    await page.keyboard.press('Tab');
    const at = await focused();
    if (at.type === 'radio' && at.box.includes('agents')) break;
  }
  await radio('Update Mode', AUTO);
  await page.keyboard.press('Tab');
  await radio('Update Method', 'User Action');
  step('Save');
  await tabTo('Save');
  await page.keyboard.press('Enter');
  await said(page, /saved/i);
  step('Directors, by their names');
  await tabTo('Directors');
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.pathname === '/fleet-management/directors');
  await tabTo('headquarters');
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.pathname.includes(world.directors[0]));
  step('log out');
  await tabTo('Account of');
  await page.keyboard.press('Enter');
  await tabTo('Log out');
  await page.keyboard.press('Enter');
  await page.waitForURL((u) => u.pathname === '/login');
  await page.context().close();
}

export const WALKS = {
  // First: the others change who waits for a person.
  'user-action': userAction,
  // Before anybody saves Immediate for all agents: then nobody waits.
  ...AGENTS,
  organization,
  'bad-input': wrong,
  director,
  'new-director': newDirector,
  'new-device': newDevice,
  templates,
  notifications,
  'two-editors': race,
  'expired-session': expired,
  ...MORE,
  ...CLUSTERS,
  'script-in-names': awkward,
  'without-javascript': withoutScript,
  keyboard,
};
