// The import module `vmsync1` of one guest: each function hands its words to the `Vm`, and a sync is timed and told of.

/**
 * @param vm the guest's `Vm`
 * @param sync runs a call that may return pages: `sync(flags, address, size, call)`
 * @param wrap what the engine needs around a function that may wait
 */
export function vmsync1(vm, sync, wrap) {
  return {
    mach_task_self: () => 1,
    vm_msync: wrap((task, address, size, flags) =>
      sync(flags, address >>> 0, size >>> 0, () => vm.vm_msync(task, address, size, flags)),
    ),
    mach_vm_msync: wrap((task, address, size, flags) =>
      sync(flags, Number(address), Number(size), () => vm.mach_vm_msync(task, unsigned(address), unsigned(size), flags)),
    ),
    vm_map: (task, address, size, mask, flags, object, offset, copy, protection, maximum, inherit) =>
      vm.vm_map(task, address, size, mask, flags, object, unsigned(offset), copy, protection, maximum, inherit),
    vm_allocate: (...words) => vm.vm_allocate(...words),
    vm_deallocate: (...words) => vm.vm_deallocate(...words),
    vm_protect: (...words) => vm.vm_protect(...words),
    vm_region: (...words) => vm.vm_region(...words),
    vm_behavior_set: (...words) => vm.vm_behavior_set(...words),
    memory_object_open: (name, length, size, flags, port) =>
      vm.memory_object_open(name, length, unsigned(size), flags, port),
    memory_object_close: (port) => vm.memory_object_close(port),
    memory_object_info: (port, info) => vm.memory_object_info(port, info),
  };
}

const unsigned = (word) => BigInt.asUintN(64, word);
