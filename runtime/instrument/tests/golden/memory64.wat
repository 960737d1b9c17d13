;; analyses: all
(module
  (memory (export "memory") i64 1) (memory $small 1)
  (func (export "all") (param $a i64) (param $n i64)
    (i64.store (local.get $a) (i64.const 1))
    (i64.store offset=8 (local.get $a) (i64.const 1))
    (i64.store offset=5000000000 (local.get $a) (i64.const 1))
    (i64.store (i64.const 4096) (i64.const 1))
    (memory.fill (local.get $a) (i32.const 0) (local.get $n))
    (memory.copy 0 $small (local.get $a) (i32.const 0) (i32.wrap_i64 (local.get $n)))))
