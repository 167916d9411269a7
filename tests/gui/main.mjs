// Walks through Fleet's GUI and reports. Started by tests/gui/run.
import { mkdirSync, writeFileSync } from 'node:fs';
import { Findings, launch } from './browser.mjs';
import { World } from './world.mjs';
import { login } from './login.mjs';
import { tour } from './pages.mjs';
import { WALKS } from './walks.mjs';

const args = Object.fromEntries(process.argv.slice(2).join(' ').split('--').filter(Boolean).map((part) => {
  const [name, ...value] = part.trim().split(' ');
  return [name, value.join(' ')];
}));
const all = { ...WALKS, pages: tour };
if (args.only === 'list') {
  console.log(Object.keys(all).join('\n'));
  process.exit(0);
}
const wanted = args.only ? args.only.split(',') : Object.keys(all);
const unknown = wanted.filter((name) => !all[name]);
if (unknown.length) {
  console.error(`tests/gui: there is no walk '${unknown.join(', ')}'; there are: ${Object.keys(all).join(', ')}`);
  process.exit(2);
}
const world = new World(args.world);
const out = args.out;
mkdirSync(out, { recursive: true });
const findings = new Findings();
const browser = await launch();
const report = { walks: {} };
try {
  const state = await login(browser, findings, world);
  for (const name of wanted) {
    const began = Date.now();
    const before = findings.all.length;
    let steps = 0;
    const step = (what) => {
      steps += 1;
      if (process.env.VMETRIC_GUI_STEPS) console.log(`    ${what}`);
      report.last = `${name}: ${what}`;
    };
    try {
      await all[name]({ browser, findings, world, state, out, step });
    } catch (e) {
      findings.wrong(name, `after '${report.last}': ${String(e.message).split('\n').slice(0, 6).join(' | ')}`);
    }
    const seconds = (Date.now() - began) / 1000;
    const wrong = findings.all.length - before;
    report.walks[name] = { steps, seconds, wrong };
    console.log(`${wrong ? 'FAIL' : 'ok  '} ${name.padEnd(22)} ${String(steps).padStart(4)} steps ${seconds.toFixed(1).padStart(7)} s`);
  }
} finally {
  await browser.close();
}
const sizes = Object.values(findings.sizes);
Object.assign(report, { checks: findings.checks, findings: findings.all, sizes: findings.sizes });
writeFileSync(`${out}/report.json`, JSON.stringify(report, null, 2));
console.log(`${Object.keys(report.walks).length} walks, ${findings.checks} checks, ${sizes.length} addresses, largest page ${Math.max(0, ...sizes)} bytes`);
console.log(findings.all.length ? `${findings.all.length} WRONG; see ${out}/report.json` : `nothing wrong; screenshots in ${out}`);
process.exit(findings.all.length ? 1 : 0);
