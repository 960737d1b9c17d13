// The panel for a module of the reader's own: its exported functions, each with a form to call it.

export class OwnModule {
  #list = document.getElementById('functions');

  /** @param load takes the bytes of a chosen module */
  constructor(load) {
    const drop = document.getElementById('drop');
    const take = async (file) => file && load(await file.arrayBuffer(), file.name);
    whenChosen(document.getElementById('file'), take);
    document.getElementById('example').addEventListener('click', async () => {
      load(await (await fetch('guests/fill.wasm')).arrayBuffer(), 'fill.wasm');
    });
    for (const type of ['dragenter', 'dragover']) {
      addEventListener(type, (event) => {
        event.preventDefault();
        drop.classList.add('over');
      });
    }
    addEventListener('dragleave', () => drop.classList.remove('over'));
    addEventListener('drop', (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      take(event.dataTransfer.files[0]);
    });
  }

  /** The names that the module may open. */
  objects() {
    return document.getElementById('objects').value.split(/[\s,]+/).filter(Boolean);
  }

  clear() {
    this.#list.replaceChildren();
  }

  /** Shows the functions of `guest`; `called` is told after each call. */
  show(guest, called) {
    this.#list.replaceChildren(...[...guest.functions].map(([name, count]) => this.#form(guest, name, count, called)));
  }

  #form(guest, name, count, called) {
    const form = document.createElement('form');
    const output = document.createElement('output');
    const inputs = Array.from({ length: count }, (_, index) => {
      const input = document.createElement('input');
      input.value = '0';
      input.ariaLabel = `${name}: parameter ${index + 1}`;
      return input;
    });
    const label = document.createElement('code');
    label.textContent = name;
    const button = document.createElement('button');
    button.textContent = 'call';
    form.append(label, ...inputs, button, output);
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        output.value = `= ${await invoke(guest, name, inputs.map(({ value }) => value))}`;
      } catch (error) {
        output.value = error.message;
      }
      called();
    });
    const item = document.createElement('li');
    item.append(form);
    return item;
  }
}

/** Hands each file that is chosen to `take`; one that is chosen again is news only to an input that forgot it. */
export function whenChosen(input, take) {
  input.addEventListener('change', () => {
    const [file] = input.files;
    input.value = '';
    if (file) take(file);
  });
}

/**
 * A form does not know which parameters are 64 bits wide, and the engine refuses a number for those before anything runs:
 * so every combination is tried.
 */
async function invoke(guest, name, texts) {
  for (let wide = 0; ; wide += 1) {
    try {
      return await guest.invoke(name, ...texts.map((text, index) => (wide & (1 << index) ? BigInt(text) : Number(text))));
    } catch (error) {
      if (!/BigInt/.test(error.message) || wide + 1 === 1 << texts.length) throw error;
    }
  }
}
