;; analyses: scatter
(module
  (memory (export "memory") 1)
  (func $computed (param $x i32) (param $n i32)
    (loop $next
      (i32.store8 (i32.rem_u (local.get $x) (i32.const 60000)) (i32.const 1))
      (local.set $x (i32.mul (local.get $x) (i32.const 1664525)))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  (func $carried (param $p i32) (param $end i32)
    (loop $next
      (i32.store8 (local.get $p) (i32.const 1))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (br_if $next (i32.ne (local.get $p) (local.get $end))))))
