;; Maps the object `fill`, changes it, syncs.
(module
  (import "vmsync1" "memory_object_open" (func $open (param i32 i32 i64 i32 i32) (result i32)))
  (import "vmsync1" "vm_map" (func $map (param i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32) (result i32)))
  (import "vmsync1" "vm_msync" (func $msync (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "fill")
  (global $base (mut i32) (i32.const 0))
  (global $state (mut i64) (i64.const 0))

  (func (export "map") (param $size i32) (result i32)
    (local $result i32)
    (local.set $result (call $open (i32.const 0) (i32.const 4) (i64.extend_i32_u (local.get $size))
      (i32.const 7) (i32.const 16)))
    (local.set $result (i32.or (local.get $result)
      (call $map (i32.const 1) (i32.const 20) (local.get $size) (i32.const 0) (i32.const 1)
        (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 1))))
    (global.set $base (i32.load (i32.const 20)))
    (local.get $result))

  (func (export "store") (param $offset i32) (param $value i64)
    (i64.store (i32.add (global.get $base) (local.get $offset)) (local.get $value)))

  ;; Eight bytes, and their page durable.
  (func (export "commit") (param $value i64) (result i32)
    (i64.store (global.get $base) (local.get $value))
    (call $msync (i32.const 1) (global.get $base) (i32.const 0x1000) (i32.const 2)))

  (func (export "fill") (param $offset i32) (param $size i32) (param $value i32)
    (memory.fill (i32.add (global.get $base) (local.get $offset)) (local.get $value) (local.get $size)))

  ;; xorshift64*, as in workload.rs.
  (func $next (result i64)
    (global.set $state (i64.xor (global.get $state) (i64.shr_u (global.get $state) (i64.const 12))))
    (global.set $state (i64.xor (global.get $state) (i64.shl (global.get $state) (i64.const 25))))
    (global.set $state (i64.xor (global.get $state) (i64.shr_u (global.get $state) (i64.const 27))))
    (i64.mul (global.get $state) (i64.const 0x2545f4914f6cdd1d)))

  ;; Eight bytes in each of `count` pages of 1 GiB.
  (func (export "scatter") (param $state i64) (param $count i32)
    (local $page i32) (local $word i32)
    (global.set $state (local.get $state))
    (loop $each
      (local.set $page (i32.and (i32.wrap_i64 (call $next)) (i32.const 0x3ffff)))
      (local.set $word (i32.and (i32.wrap_i64 (call $next)) (i32.const 0x1ff)))
      (i64.store
        (i32.add (global.get $base)
          (i32.add (i32.shl (local.get $page) (i32.const 12)) (i32.shl (local.get $word) (i32.const 3))))
        (call $next))
      (br_if $each (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))

  ;; Eight bytes in each of `count` words of 2 MiB.
  (func (export "pack") (param $state i64) (param $count i32)
    (local $word i32)
    (global.set $state (local.get $state))
    (loop $each
      (local.set $word (i32.and (i32.wrap_i64 (call $next)) (i32.const 0x3ffff)))
      (i64.store (i32.add (global.get $base) (i32.shl (local.get $word) (i32.const 3))) (call $next))
      (br_if $each (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))

  (func (export "sync") (param $offset i32) (param $size i32) (result i32)
    (call $msync (i32.const 1) (i32.add (global.get $base) (local.get $offset)) (local.get $size) (i32.const 2))))
