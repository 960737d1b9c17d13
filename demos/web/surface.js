// The drawing surface: shows a guest's pixels, and turns pointer and keys into lines.

/** Colours as the guests keep them: red in the low byte. */
const COLOURS = [
  ['Slate', 0xff998877], ['Amber', 0xff1ca3f5], ['Rose', 0xff6b4de8], ['Violet', 0xffd65c8a], ['Blue', 0xfff2843a],
  ['Green', 0xff7fb03a], ['Eraser', 0],
];
const RADIUS = 3.5;
const ERASER_RADIUS = 12;
const KEY_STEP = 4;

export class Surface {
  #canvas;
  #context;
  #colour = 1;
  #on;
  #last;
  #cursor = { x: 192, y: 128, down: false, shown: false };
  #pixels;

  constructor(canvas, colours, on) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    this.#on = on;
    this.#makeColours(colours);
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = this.#point(event);
      this.#line(this.#last, this.#last);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!this.#last) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) {
        const point = this.#point(part);
        this.#line(this.#last, point);
        this.#last = point;
      }
    });
    for (const type of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(type, () => {
        if (this.#last) this.#on.lifted();
        this.#last = undefined;
      });
    }
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('blur', () => {
      this.#cursor.shown = false;
      this.#paint();
    });
  }

  set focusable(on) {
    this.#canvas.tabIndex = on ? 0 : -1;
  }

  resize(width, height) {
    this.#canvas.width = width;
    this.#canvas.height = height;
  }

  show(bytes) {
    this.#pixels = new ImageData(new Uint8ClampedArray(bytes.buffer), this.#canvas.width);
    this.#paint();
  }

  #paint() {
    if (!this.#pixels) return;
    this.#context.putImageData(this.#pixels, 0, 0);
    if (!this.#cursor.shown) return;
    const { x, y, down } = this.#cursor;
    this.#context.strokeStyle = down ? '#1f6feb' : '#888';
    this.#context.strokeRect(x - 5.5, y - 5.5, 11, 11);
  }

  #makeColours(holder) {
    COLOURS.forEach(([name, colour], index) => {
      const button = document.createElement('button');
      button.role = 'radio';
      button.ariaLabel = button.title = name;
      button.ariaChecked = String(index === this.#colour);
      button.style.background = colour === 0 ? 'linear-gradient(135deg, #fff 45%, #d33 45% 55%, #fff 55%)' : css(colour);
      button.addEventListener('click', () => {
        this.#colour = index;
        [...holder.children].forEach((other, at) => (other.ariaChecked = String(at === index)));
      });
      holder.append(button);
    });
  }

  #line(from, to) {
    const [, colour] = COLOURS[this.#colour];
    this.#on.draw(from.x, from.y, to.x, to.y, colour === 0 ? ERASER_RADIUS : RADIUS, colour | 0);
  }

  #point({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return {
      x: ((clientX - left) / width) * this.#canvas.width,
      y: ((clientY - top) / height) * this.#canvas.height,
    };
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const cursor = this.#cursor;
    if (event.key === ' ') {
      cursor.down = !cursor.down;
      if (!cursor.down) this.#on.lifted();
    } else if (moves[event.key]) {
      const from = { ...cursor };
      const [dx, dy] = moves[event.key];
      cursor.x = Math.min(Math.max(cursor.x + dx * KEY_STEP, 0), this.#canvas.width);
      cursor.y = Math.min(Math.max(cursor.y + dy * KEY_STEP, 0), this.#canvas.height);
      if (cursor.down) this.#line(from, cursor);
    } else {
      return;
    }
    event.preventDefault();
    cursor.shown = true;
    this.#paint();
  }
}

const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

/** A first drawing, for a board that was never used: ribbons that meet. */
export function doodle(draw, width, height) {
  const ribbons = COLOURS.slice(1, 6);
  ribbons.forEach(([, colour], ribbon) => {
    let last;
    for (let step = 0; step <= 48; step += 1) {
      const part = step / 48;
      const swing = Math.sin(part * 2 * Math.PI + ribbon * 0.42) * Math.sin(part * Math.PI);
      const point = [24 + part * (width - 48), height / 2 + swing * height * 0.3 + (ribbon - 2) * 9];
      if (last) draw(...last, ...point, 3.5, colour | 0);
      last = point;
    }
  });
}

/** FNV-1a over words: two drawings of equal hash are taken for equal. */
export function hash(bytes) {
  let sum = 0x811c9dc5;
  for (const word of new Uint32Array(bytes.buffer)) sum = Math.imul(sum ^ word, 0x01000193);
  return sum >>> 0;
}
