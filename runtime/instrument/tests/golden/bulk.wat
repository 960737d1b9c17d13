;; analyses: none
(module
  (memory (export "memory") 1) (memory $other 1) (data $d "0123456789")
  (func (export "dynamic") (param $a i32) (param $n i32)
    (memory.fill (local.get $a) (i32.const 0) (local.get $n))
    (memory.copy 0 0 (local.get $a) (i32.const 4) (local.get $n))
    (memory.copy 0 $other (local.get $a) (i32.const 4) (local.get $n))
    (memory.copy $other 0 (local.get $a) (i32.const 4) (local.get $n))
    (memory.init 0 $d (local.get $a) (i32.const 0) (local.get $n)))
  (func (export "constant") (param $a i32)
    (memory.fill (local.get $a) (i32.const 0) (i32.const 0))
    (memory.fill (local.get $a) (i32.const 0) (i32.const 17))
    (memory.fill (local.get $a) (i32.const 0) (i32.const 4097))
    (memory.init 0 $d (local.get $a) (i32.const 0) (i32.const 10))))
