// Durable memory for AssemblyScript programs: the imports of `vmsync1` (../IMPORTS.md) and a `Region` over them.
//
//   const region = Region.map("counter", 4096);
//   if (region == null) return -Region.result;
//   region.store<i64>(0, region.load<i64>(0) + 1);
//   region.flush();                                   // durable when it answers 0, all or nothing
//
// Compile with `--memoryBase N`: regions lie below N, at the same address in every run.

// @ts-ignore: decorator
@external("vmsync1", "memory_object_open")
declare function memory_object_open(name: usize, nameBytes: i32, size: i64, rights: i32, port: usize): i32;
// @ts-ignore: decorator
@external("vmsync1", "memory_object_info")
declare function memory_object_info(port: i32, info: usize): i32;
// @ts-ignore: decorator
@external("vmsync1", "memory_object_close")
declare function memory_object_close(port: i32): i32;
// @ts-ignore: decorator
@external("vmsync1", "vm_map")
declare function vm_map(
  task: i32, address: usize, size: usize, mask: usize, flags: i32, port: i32, offset: i64, copy: i32,
  protection: i32, maxProtection: i32, inheritance: i32): i32;
// @ts-ignore: decorator
@external("vmsync1", "vm_deallocate")
declare function vm_deallocate(task: i32, address: usize, size: usize): i32;
// @ts-ignore: decorator
@external("vmsync1", "vm_msync")
declare function vm_msync(task: i32, address: usize, size: usize, flags: i32): i32;

const TASK_SELF: i32 = 1;
const READ_WRITE_CREATE: i32 = 7;
const READ_WRITE: i32 = 3;
const INHERIT_COPY: i32 = 1;
const ASYNCHRONOUS: i32 = 1;
const SYNCHRONOUS: i32 = 2;
const INVALIDATE: i32 = 4;
const NO_SPACE: i32 = 3;

// What the host writes to: an address, a port and an object_info.
const words: usize = memory.data(48, 16);
// Where the window ends.
const end: usize = ASC_MEMORY_BASE as usize;
// Where the highest region ends: new objects go above it. Address 0 stays free.
let free: usize = 0x10000;

/** A mapped object. Every call that can fail answers a `kern_return`: 0 is success. */
export class Region {
  /** The `kern_return` of the last `map`. */
  static result: i32 = 0;

  private constructor(
    /** Where it begins. */
    public readonly address: usize,
    /** In bytes. */
    public readonly size: usize,
    private port: i32,
  ) {}

  /** Maps the object `name`, made and grown to `size` bytes where it has to be; null: see `Region.result`. */
  static map(name: string, size: usize): Region | null {
    const bytes = String.UTF8.encode(name);
    Region.result = memory_object_open(
      changetype<usize>(bytes), bytes.byteLength, size as i64, READ_WRITE_CREATE, words);
    if (Region.result != 0) return null;
    const port = load<i32>(words);
    Region.result = memory_object_info(port, words + 16);
    if (Region.result == 0) {
      const length = load<i64>(words + 16) as usize;
      const last = load<i64>(words + 32) as usize;
      // Where an old one would overlap a region, the host refuses it.
      const address = last != 0 ? last : (free + 0xffff) & ~(0xffff as usize);
      Region.result = NO_SPACE;
      if (length <= end && address <= end - length) {
        store<usize>(words, address);
        Region.result = vm_map(
          TASK_SELF, words, length, 0, 0, port, 0, 0, READ_WRITE, READ_WRITE, INHERIT_COPY);
        if (Region.result == 0) {
          free = max(free, address + length);
          return new Region(address, length, port);
        }
      }
    }
    memory_object_close(port);
    return null;
  }

  /** The value at `offset` bytes. */
  load<T>(offset: usize): T {
    assert(offset <= this.size && sizeof<T>() <= this.size - offset);
    return load<T>(this.address + offset);
  }

  /** Stores `value` at `offset` bytes. */
  store<T>(offset: usize, value: T): void {
    assert(offset <= this.size && sizeof<T>() <= this.size - offset);
    store<T>(this.address + offset, value);
  }

  /** Makes every change durable, all or nothing, and waits for it. */
  flush(): i32 {
    return vm_msync(TASK_SELF, this.address, this.size, SYNCHRONOUS);
  }

  /** Hands every change over and does not wait: a later `flush` does. */
  flushAsync(): i32 {
    return vm_msync(TASK_SELF, this.address, this.size, ASYNCHRONOUS);
  }

  /** Undoes every change since the last `flush`. */
  invalidate(): i32 {
    return vm_msync(TASK_SELF, this.address, this.size, INVALIDATE);
  }

  /** Gives the region up; what was not flushed is lost. */
  unmap(): i32 {
    const result = vm_deallocate(TASK_SELF, this.address, this.size);
    if (result == 0 && this.address + this.size == free) free = this.address;
    memory_object_close(this.port);
    return result;
  }
}
