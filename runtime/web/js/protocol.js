// What both sides of the worker's channel share: flags, results, errors, and what they look like in a message.

/** Flags of `sync`, as `vm_sync_t` has them. */
export const Sync = Object.freeze({ ASYNC: 0x01, SYNC: 0x02, INVALIDATE: 0x04 });

const RESULTS = {
  0: 'success', 1: 'invalid address', 2: 'protection failure', 3: 'no space', 4: 'invalid argument', 5: 'failure',
  6: 'resource shortage', 8: 'no access', 9: 'memory failure', 10: 'memory error', 14: 'aborted', 16: 'invalid task',
  17: 'invalid right', 18: 'invalid value', 23: 'memory present', 29: 'invalid object', 37: 'terminated',
  46: 'not supported',
};

/** The words for a `kern_return`. */
export const resultName = (code) => RESULTS[code] ?? `kern_return ${code}`;

/** What goes wrong, with a `code` for programs and a message for people. */
export class VmsyncError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'VmsyncError';
    this.code = code;
  }
}

/** Any error as something that a message can carry. */
export const packError = (error) => ({
  code: error?.code ?? (error instanceof WebAssembly.RuntimeError ? 'trap' : 'internal'),
  message: error?.message ?? String(error),
});

export const unpackError = ({ code, message }) => new VmsyncError(code, message);
