;; analyses: hoist
(module
  (memory (export "memory") 1)
  (func $up_and_down (param $p i32) (param $q i32) (param $n i32) (param $rows i32) (local $i i32)
    (loop $next
      (local.set $i (local.get $n))
      (loop $columns
        (i64.store (local.get $p) (i64.const 1))
        (i32.store8 (local.get $q) (i32.const 1))
        (local.set $p (i32.add (local.get $p) (i32.const 8)))
        (local.set $q (i32.sub (local.get $q) (i32.const 1)))
        (br_if $columns (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
      (br_if $next (local.tee $rows (i32.sub (local.get $rows) (i32.const 1)))))))
