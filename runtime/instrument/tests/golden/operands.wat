;; analyses: none
(module
  (memory (export "memory") 1)
  (func $f (param i32) (result i32) (local.get 0))
  (func $two (result i32 f64) (i32.const 8) (f64.const 1))
  ;; The local changes between the address and the store.
  (func (export "stale") (param $a i32)
    (local.get $a) (local.set $a (i32.const 7)) (local.get $a) (i32.store))
  (func (export "tee") (param $a i32)
    (i32.store (local.tee $a (call $f (local.get $a))) (i32.const 1)))
  (func (export "call") (param $a i32)
    (i32.store (call $f (local.get $a)) (call $f (i32.const 1))))
  (func (export "nested") (param $a i32)
    (i32.store (call $f (local.get $a))
      (i32.atomic.rmw.add (call $f (i32.const 8)) (i32.const 1))))
  ;; The address is not on top when it is made.
  (func (export "pair") (call $two) (f64.store))
  (func (export "block") (param $a i32)
    (block (result i32) (br_if 0 (i32.const 4) (local.get $a)) (drop) (i32.const 8))
    (i32.const 1) (i32.store))
  (func (export "dead") (param $a i32)
    (return) (i32.store) (i32.const 1) (f32.const 2) (f32.store)))
