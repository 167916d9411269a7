// The world under test: what `vmetric-demo --stay --still --ready FILE` wrote, and its command line.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export const OWNER = { name: 'owner', password: 'four plain words for tests' };

export class World {
  constructor(file) {
    const { fleet, ...rest } = JSON.parse(readFileSync(file, 'utf8'));
    Object.assign(this, rest, { program: fleet, made: {} });
  }

  // `vmetric-fleet ...words --json`
  fleet(...words) {
    const text = execFileSync(this.program, [...words, '--json', '--state', this.state], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    const lines = text.trim().split('\n');
    return lines.length === 1 ? JSON.parse(lines[0]) : lines.map((line) => JSON.parse(line));
  }

  // The table of routes, from the program itself.
  routes() {
    const text = execFileSync(`${process.env.VMETRIC_GUI_PROGRAMS}/vmetric-demo`, ['--gui-routes'], { encoding: 'utf8' });
    return text.trim().split('\n').map((line) => {
      const [method, path, id] = line.split(' ');
      return { method, path, id };
    });
  }

  // `{director}` and the others, with something that is there. An unknown one is a page that the tour cannot reach.
  filled(path, values) {
    return path.replace(/\{([a-z_]+)\}/g, (_, name) => {
      if (values[name] === undefined) throw new Error(`${path}: tests/gui/pages.mjs has no value for {${name}}`);
      return encodeURIComponent(values[name]);
    });
  }
}
