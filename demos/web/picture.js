// The picture of memory: a square for each page of the guest's regions.

const STATES = ['', 'clean', 'dirty'];
const ANONYMOUS = 3;
const PULSE_MS = 650;

export class Picture {
  #canvas;
  #regions = [];
  #pulses = new Map();
  #frame = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  /** Shows regions of objects; counts what is shown. */
  show(regions) {
    this.#regions = regions.filter(({ pages }) => pages[0] !== ANONYMOUS);
    this.#draw();
    const states = this.#regions.flatMap(({ pages }) => [...pages]);
    return {
      pages: states.length,
      clean: states.filter((state) => state === 1).length,
      dirty: states.filter((state) => state === 2).length,
    };
  }

  /** Shows what happened to pages for a moment: they were `writing`, or `evicted`. It was over sooner than an eye sees. */
  pulse(name, pages) {
    // Its time starts with the first frame that shows it.
    for (const page of pages) this.#pulses.set(page, { name, start: undefined });
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame((now) => this.#paint(now));
  }

  #paint(now) {
    const canvas = this.#canvas;
    const width = canvas.clientWidth;
    const count = this.#regions.reduce((sum, { pages }) => sum + pages.length, 0);
    const columns = Math.max(8, Math.min(Math.ceil(Math.sqrt(count * 1.5)), Math.floor(width / 5)));
    const cell = width / columns;
    const gap = cell > 12 ? 3 : 1;
    const rows = Math.max(1, Math.ceil(count / columns));
    const scale = devicePixelRatio;
    const height = Math.ceil(rows * cell - gap);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const colours = STATES.map((name) => (name ? resolve(colour(name)) : ''));
    const passing = { writing: resolve(colour('writing')), evicted: resolve(colour('evicted')) };
    let index = 0;
    for (const { first, pages } of this.#regions) {
      pages.forEach((state, offset) => {
        const x = (index % columns) * cell;
        const y = Math.floor(index / columns) * cell;
        const size = cell - gap;
        index += 1;
        context.globalAlpha = 1;
        square(context, x, y, size, colours[state]);
        const pulse = this.#pulses.get(first + offset);
        if (!pulse) return;
        pulse.start ??= now;
        const left = Math.max(0, 1 - (now - pulse.start) / PULSE_MS);
        context.globalAlpha = left;
        square(context, x - (left * gap) / 2, y - (left * gap) / 2, size + left * gap, passing[pulse.name]);
      });
    }
    for (const [page, { start }] of this.#pulses) {
      if (start === undefined || now - start >= PULSE_MS) this.#pulses.delete(page);
    }
    if (this.#pulses.size > 0) this.#draw();
  }
}

function square(context, x, y, size, colour) {
  if (!colour) return;
  context.beginPath();
  context.roundRect(x, y, size, size, Math.min(4, size / 4));
  context.fillStyle = colour;
  context.fill();
}

const probe = document.createElement('i');

/** A custom property may be `light-dark(…)`: the browser says which colour that is now. */
export function resolve(value) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = value;
  return getComputedStyle(probe).color;
}
