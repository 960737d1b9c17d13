;; analyses: none suspect=0
(module
  (memory (export "memory") 1)
  (func (export "all") (param $a i32)
    (i32.store8 (local.get $a) (i32.const 1))
    (i64.store offset=4 (local.get $a) (i64.const 1))))
