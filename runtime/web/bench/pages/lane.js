// What the workers of the lanes share: an `open`, then commits that are timed one by one.

export function serve(open) {
  let commit;
  onmessage = async ({ data }) => {
    try {
      if (data.open) commit = await open();
      const times = [];
      for (let number = 0; number < (data.count ?? 0); number += 1) {
        const start = performance.now();
        await commit(data.pages);
        times.push(performance.now() - start);
      }
      postMessage({ result: times });
    } catch (error) {
      postMessage({ error: `${error.message}\n${error.stack}` });
    }
  };
}

/** Numbers below `bound`, the same in every run. */
export function numbers(bound) {
  let state = 12345;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % bound;
  };
}
