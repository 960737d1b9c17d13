// The timeline: a bar for each sync, as high as it took (logarithmic), in the colour of its kind.

import { resolve } from './picture.js';

const SHOWN = 60;
const FLOOR_MS = 0.02;
const CEILING_MS = 100;
const GRID = [[0.1, '0.1 ms'], [1, '1 ms'], [10, '10 ms']];
const COLOURS = { SYNC: 'writing', ASYNC: 'clean', INVALIDATE: 'dirty', crash: 'danger' };

export class Timeline {
  #canvas;
  #bars = [];
  #frame = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  add(bar) {
    this.#bars.push(bar);
    if (this.#bars.length > SHOWN) this.#bars.shift();
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const context = canvas.getContext('2d');
    context.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(canvas);
    const colour = (name) => resolve(style.getPropertyValue(`--${name}`));
    const level = (ms) => {
      const part = Math.log(Math.max(ms, FLOOR_MS) / FLOOR_MS) / Math.log(CEILING_MS / FLOOR_MS);
      return Math.max(2, Math.min(part, 1) * (height - 14));
    };
    context.font = '11px ui-monospace, monospace';
    context.lineWidth = 1;
    for (const [ms, label] of GRID) {
      const y = Math.round(height - level(ms)) + 0.5;
      context.strokeStyle = colour('line');
      context.beginPath();
      context.moveTo(46, y);
      context.lineTo(width, y);
      context.stroke();
      context.fillStyle = colour('quiet');
      context.fillText(label, 0, y + 3.5);
    }
    const step = (width - 50) / SHOWN;
    this.#bars.forEach(({ kind, ms, failed }, index) => {
      const x = 50 + (SHOWN - this.#bars.length + index) * step;
      const tall = kind === 'crash' ? height - 6 : level(ms);
      context.fillStyle = colour(failed ? 'danger' : COLOURS[kind]);
      context.beginPath();
      context.roundRect(x, height - tall, kind === 'crash' ? 2 : Math.max(2, step - 2), tall, 2);
      context.fill();
    });
  }
}
