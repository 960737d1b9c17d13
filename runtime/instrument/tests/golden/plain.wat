;; analyses: none
(module
  (memory (export "memory") 1)
  (func (export "all") (param $a i32) (param $v f64)
    (i32.store (local.get $a) (i32.const 1))
    (i32.store8 offset=1 (local.get $a) (i32.const 1))
    (i32.store16 offset=4095 (local.get $a) (i32.const 1))
    (i64.store offset=4096 (local.get $a) (i64.const 1))
    (i64.store8 (i32.const 4096) (i64.const 1))
    (i64.store16 offset=8 (i32.const 65528) (i64.const 1))
    (i64.store32 (i32.add (local.get $a) (i32.const 100)) (i64.const 1))
    (f32.store (i32.mul (local.get $a) (local.get $a)) (f32.const 1))
    (f64.store (i32.sub (local.get $a) (i32.const 8)) (local.get $v))
    (v128.store (local.get $a) (v128.const i64x2 1 2))))
