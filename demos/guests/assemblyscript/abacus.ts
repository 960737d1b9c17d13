// A counter in AssemblyScript: `vmsync run --invoke add --map abacus=STORE abacus.wasm`.

import { Region } from "../../../guest-sdk/assemblyscript/vmsync";

/** Adds one and returns the count, or a negated `kern_return`. */
export function add(): i64 {
  const region = Region.map("abacus", 4096);
  if (region == null) return -(Region.result as i64);
  const count = region.load<i64>(0) + 1;
  region.store<i64>(0, count);
  const result = region.flush();
  return result == 0 ? count : -(result as i64);
}

/** Counts, and thinks better of it: the count as it is durable. */
export function undone(): i64 {
  const region = Region.map("abacus", 4096);
  if (region == null) return -(Region.result as i64);
  region.store<i64>(0, region.load<i64>(0) + 1000);
  const result = region.invalidate();
  return result == 0 ? region.load<i64>(0) : -(result as i64);
}

/** Maps regions again, in another order and over each other: the number of the first step that goes wrong, or 0. */
export function remapped(): i32 {
  const low = Region.map("abacus", 4096);
  const high = Region.map("abacus-high", 4096);
  if (low == null || high == null) return 1;
  low.store<i64>(0, 1);
  high.store<i64>(0, 2);
  if (low.flush() != 0 || high.flush() != 0) return 2;
  if (low.unmap() != 0 || high.unmap() != 0) return 3;
  const highAgain = Region.map("abacus-high", 4096);
  if (highAgain == null || highAgain.address != high.address) return 4;
  const lowAgain = Region.map("abacus", 4096);
  if (lowAgain == null || lowAgain.address != low.address) return 5;
  if (lowAgain.load<i64>(0) != 1 || highAgain.load<i64>(0) != 2) return 6;
  // A new one takes the place that is free now, and the old one's is taken then.
  if (highAgain.unmap() != 0) return 7;
  const next = Region.map("abacus-next", 4096);
  if (next == null || next.address != high.address) return 8;
  return Region.map("abacus-high", 4096) == null && Region.result == 3 ? 0 : 9;
}
