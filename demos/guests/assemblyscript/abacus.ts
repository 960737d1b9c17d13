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
