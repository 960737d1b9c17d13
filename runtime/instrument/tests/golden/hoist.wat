;; analyses: hoist
(module
  (memory (export "memory") 1)
  (func (export "pointer") (param $p i32) (param $end i32)
    (loop $l
      (i64.store (local.get $p) (i64.const 1))
      (i32.store offset=8 (local.get $p) (i32.const 1))
      (br_if $l (i32.ne (local.tee $p (i32.add (local.get $p) (i32.const 12))) (local.get $end)))))
  (func (export "index") (param $a i32) (param $n i32) (local $i i32)
    (block $out
      (loop $l
        (br_if $out (i32.ge_s (local.get $i) (local.get $n)))
        (f64.store (i32.add (local.get $a) (i32.shl (local.get $i) (i32.const 3))) (f64.const 1))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $l))))
  (func (export "down") (param $a i32) (param $n i32)
    (loop $l
      (i32.store (i32.add (local.get $a) (local.get $n)) (i32.const 1))
      (br_if $l (i32.gt_u (local.tee $n (i32.sub (local.get $n) (i32.const 4))) (i32.const 16)))))
  (func (export "fixed") (param $a i32) (param $n i32)
    (loop $l
      (i32.store offset=4 (local.get $a) (local.get $n))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  ;; Not a counted loop, a store that need not run, a call.
  (func $f (export "unknown") (param $p i32) (param $q i32)
    (loop $l
      (i32.store (local.get $p) (i32.const 1))
      (br_if $l (local.tee $p (i32.load (local.get $p)))))
    (loop $l
      (if (i32.load (local.get $p)) (then (i32.store (local.get $p) (i32.const 1))))
      (br_if $l (i32.ne (local.tee $p (i32.add (local.get $p) (i32.const 4))) (local.get $q))))
    (loop $l
      (i32.store (local.get $p) (i32.const 1))
      (call $f (local.get $p) (local.get $q))
      (br_if $l (i32.ne (local.tee $p (i32.add (local.get $p) (i32.const 4))) (local.get $q))))))
